"""For each task an oracle, which reads the generator's rule from the text, and a guesser, which does not read at all.

Both get the text before an answer. The oracle returns the right answer, and the guesser one of those that are possible.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from word_answers import WORD_ANSWERS, WordAnswers

from miniwin.evaluation.tasks import TASKS, Memorisation
from miniwin.evaluation.tasks.words import TextTask

LETTERS = b"abcdefghijklmnopqrstuvwxyz"
CAPITALS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Answers(NamedTuple):
    oracle: Callable[[bytes], bytes]
    guess: Callable[[Random, bytes], bytes]


def last_line(text: bytes) -> bytes:
    return text.rpartition(b"\n")[2]


def value_of_key(text: bytes) -> bytes:
    """The value in the last record of the key that the last line asks for."""
    key = last_line(text)[:-1]
    return re.findall(rb"\n%b=(.)" % key, text)[-1]


def first_value_of_key(text: bytes) -> bytes:
    key = last_line(text)[:-1]
    return re.findall(rb"\n%b=(.)" % key, text)[0]


def number_of_key(text: bytes) -> bytes:
    """The digits in the record, earlier than the last line, that begins as the last line does."""
    (found,) = re.findall(rb"\n%b(\d+)(?!\d)" % re.escape(last_line(text)), text)
    return bytes(found)


def next_of_the_copy(text: bytes) -> bytes:
    """The copy so far is the start of the text's first line, mark included."""
    so_far = last_line(text)
    first = text.partition(b"\n")[0]
    assert first.startswith(so_far)
    return first[len(so_far) : len(so_far) + 1]


def what_followed(text: bytes) -> bytes:
    at = text.index(text[-1:])
    assert at < len(text) - 1
    return text[at + 1 : at + 2]


def value_behind_hops(text: bytes) -> bytes:
    found = last_line(text)[:-1]
    while found.islower():
        (found,) = re.findall(rb"\n%b=([a-z]{2}|[A-Z])" % found, text)
    return bytes(found)


def how_often(text: bytes) -> bytes:
    context, _, question = text.rpartition(b"\n")
    return b"%d" % context.count(question[:1])


def next_mark(text: bytes) -> bytes:
    marks = re.findall(rb"\n\+(.)", text)
    asked = last_line(text)[:1]
    return bytes(min([mark for mark in marks if mark > asked], default=min(marks)))


def place_modulo_4(text: bytes) -> bytes:
    return b"%d" % (text.index(b"+") % 4)


def fuzzy_value_of_key(text: bytes) -> bytes:
    (found,) = re.findall(rb"\n%b([A-Z]+;)" % last_line(text), text)
    return bytes(found)


def next_token(text: bytes) -> bytes:
    context, _, copied = text.rpartition(b"\n>")
    tokens = bytes(byte for byte in context if byte in CAPITALS)
    assert tokens.startswith(copied)
    return tokens[len(copied) : len(copied) + 1]


def code_of_bits(text: bytes) -> bytes:
    """Base64 of the bits, six to a letter."""
    number = int(bytes(byte for byte in text if byte in b"01"), 2)
    return base64.b64encode(bytes((number << 2, 0, 0)))[:1]


def known_fact(text: bytes) -> bytes:
    return bytes((Memorisation().facts[last_line(text)[:-1]],))


def came_first(text: bytes) -> bytes:
    marks = re.findall(rb"\n\+(.)", text)
    return min(last_line(text)[0:1], last_line(text)[2:3], key=marks.index)


def any_capital(random: Random, text: bytes) -> bytes:
    return bytes((random.choice(CAPITALS),))


def any_letter(random: Random, text: bytes) -> bytes:
    return bytes((random.choice(LETTERS),))


def any_word(random: Random, text: bytes) -> bytes:
    return bytes(random.choices(CAPITALS, k=random.randint(1, 3))) + b";"


def any_code(random: Random, text: bytes) -> bytes:
    return random.choice(CAPITALS[:16]).to_bytes()


def any_digit(below: int) -> Callable[[Random, bytes], bytes]:
    return lambda random, text: b"%d" % random.randrange(below)


def any_number(digits: int) -> Callable[[Random, bytes], bytes]:
    return lambda random, text: bytes(random.choices(b"0123456789", k=digits))


def either(random: Random, text: bytes) -> bytes:
    return random.choice((last_line(text)[0:1], last_line(text)[2:3]))


def as_bytes(words: WordAnswers) -> Answers:
    """Of a task whose bytes are its text in words: the answer that comes next, with its space."""

    def oracle(text: bytes) -> bytes:
        line = last_line(text).decode()
        given = line.count(",") - ("(" in line)  # a call has its first keyword already
        return f" {words.oracle(text.decode())[given]}".encode()

    return Answers(oracle, lambda random, text: f" {words.guess(random, text.decode())}".encode())


IN_WORDS_ONLY = [cls.model_fields["type"].default for cls in TASKS if issubclass(cls, TextTask)]
ANSWERS = {name: as_bytes(WORD_ANSWERS[name]) for name in IN_WORDS_ONLY} | {
    "recall": Answers(value_of_key, any_capital),
    "last-write": Answers(value_of_key, any_capital),
    "first-write": Answers(first_value_of_key, any_capital),
    "needle": Answers(number_of_key, any_number(5)),
    "several-needles": Answers(number_of_key, any_number(4)),
    "copy": Answers(next_of_the_copy, any_letter),
    "induction": Answers(what_followed, any_letter),
    "multi-hop": Answers(value_behind_hops, any_capital),
    "counting": Answers(how_often, any_digit(10)),
    "sorted-order": Answers(next_mark, any_letter),
    "position-modulo": Answers(place_modulo_4, any_digit(4)),
    "fuzzy-recall": Answers(fuzzy_value_of_key, any_word),
    "selective-copying": Answers(next_token, lambda random, text: random.choice(CAPITALS[:14]).to_bytes()),
    "compression": Answers(code_of_bits, any_code),
    "memorisation": Answers(known_fact, any_capital),
    "which-first": Answers(came_first, either),
}

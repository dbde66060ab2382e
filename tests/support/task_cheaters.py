"""Cheaters: they answer a task without doing it, from statistics of the text, of training, or of what is left to ask.

A cheater gets the text before an answer, where the context ends in it, and the answers before. What it is called says
what it knows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from miniwin.evaluation.tasks import Example, Memorisation, Task, draw


class Asked(NamedTuple):
    random: Random
    text: bytes  # all before the answer
    context: bytes  # all before the first question
    before: list[bytes]  # the right answers to the questions before
    size: int  # bytes of the answer: more than a model knows

    @property
    def question(self) -> bytes:
        return self.text.rpartition(b"\n")[2]


Cheater = Callable[[Asked], bytes]


def examples(task: Task, length: int, answers: int, seed: int) -> list[Example]:
    """Examples with so many answers or a few more. Of train: it is drawn eight times as fast as test, by one rule."""
    drawn: list[Example] = []
    while sum(len(example.answers) for example in drawn) < answers:
        drawn.append(draw(task, length, seed=seed, index=len(drawn), split="train"))
    return drawn


def questions(drawn: list[Example]) -> list[tuple[Asked, bytes]]:
    """All that is asked, each with its right answer."""
    random, found = Random(0), []
    for example in drawn:
        text, first_answer = example.text, example.answers[0][0]
        context = text[: max(0, text.rfind(b"\n", 0, first_answer))] or text[: first_answer - 1]
        before: list[bytes] = []
        for start, end in example.answers:
            found.append((Asked(random, text[:start], context, list(before), end - start), text[start:end]))
            before.append(text[start:end])
    return found


def share(asked: list[tuple[Asked, bytes]], cheater: Cheater) -> float:
    """How often a cheater is right."""
    return sum(cheater(question) == answer for question, answer in asked) / len(asked)


# -- by statistics of training


def after_the_last_bytes(trained: list[tuple[Asked, bytes]], number: int) -> Cheater:
    """In training, the commonest answer after these last bytes, or of all if they are new. 0 bytes: of all."""
    of_all: Counter[bytes] = Counter()
    after: dict[bytes, Counter[bytes]] = {}
    for asked, answer in trained:
        of_all[answer] += 1
        after.setdefault(asked.text[len(asked.text) - number :], Counter())[answer] += 1

    def cheater(asked: Asked) -> bytes:
        return after.get(asked.text[len(asked.text) - number :], of_all).most_common(1)[0][0]

    return cheater


# -- by statistics of the text


def bigrams(asked: Asked) -> bytes:
    """What most often followed the last byte in this text, byte by byte."""
    text = asked.text
    for _ in range(asked.size):
        following = Counter(text[at + 1] for at in range(len(text) - 1) if text[at] == text[-1])
        text += bytes((following.most_common(1)[0][0] if following else text[-1],))
    return text[len(asked.text) :]


Candidates = Callable[[Asked], list[bytes]]  # what may be an answer, in the order in which it stands


def found(pattern: bytes) -> Candidates:
    return lambda asked: [bytes(one) for one in re.findall(pattern, asked.context)]


def letters_of_the_copy(asked: Asked) -> list[bytes]:
    return [bytes((letter,)) for letter in asked.text.partition(b"\n")[0][1:]]


def other_marks(asked: Asked) -> list[bytes]:
    """Marks other than the one asked for."""
    return [mark for mark in found(rb"\n\+(.)")(asked) if mark != asked.question[:1]]


CANDIDATES: dict[str, Candidates] = {
    "recall": found(rb"=([A-Z])"),
    "last-write": found(rb"=([A-Z])"),
    "first-write": found(rb"=([A-Z])"),
    "which-first": lambda asked: [asked.question[:1], asked.question[2:3]],
    "several-needles": found(rb"#(\d{4})"),
    "copy": letters_of_the_copy,
    "induction": found(rb"[A-Z](.)"),
    "multi-hop": found(rb"=([A-Z])"),
    "sorted-order": other_marks,
    "fuzzy-recall": found(rb"=([A-Z]+;)"),
    "selective-copying": found(rb"[A-Z]"),
}


def first(candidates: Candidates) -> Cheater:
    return lambda asked: candidates(asked)[0]


def last(candidates: Candidates) -> Cheater:
    return lambda asked: candidates(asked)[-1]


def commonest_left(candidates: Candidates) -> Cheater:
    """The commonest candidate that was not an answer yet, one of the commonest if there are several."""

    def cheater(asked: Asked) -> bytes:
        left = Counter(candidates(asked))
        left.subtract(asked.before)
        most = max(left.values())
        return asked.random.choice([one for one, count in left.items() if count == most])

    return cheater


def as_many_questions_before(candidates: Candidates) -> Cheater:
    """The first candidate to the first question, the second to the second, and so on."""
    return lambda asked: candidates(asked)[len(asked.before)]


def place_in_its_level(asked: Asked) -> bytes:
    """In multi-hop: the value that stands among the values where the last hop stands among the last hops."""
    records = re.findall(rb"\n(..)=", asked.context)
    values = re.findall(rb"=([A-Z])", asked.context)
    place = records.index(asked.question[:2]) % len(values)
    return bytes(values[place])


def mark_behind(asked: Asked) -> bytes:
    """In sorted-order: the mark that stands behind this one in the text, or the first one behind the last."""
    marks = re.findall(rb"\n\+(.)", asked.context)
    return bytes(marks[(marks.index(asked.question[:1]) + 1) % len(marks)])


# -- by a part of the task


def any_write(asked: Asked) -> bytes:
    """A value that the key was given, whichever."""
    values = re.findall(rb"\n%b(.)" % asked.question, asked.context)
    return bytes(asked.random.choice(values))


def newest_write_or_any(asked: Asked) -> bytes:
    """The value of the very last write, if it is of this key, else any."""
    key, value = re.findall(rb"\n(.*?=)(.)", asked.context)[-1]
    return bytes(value) if key == asked.question else any_write(asked)


def not_the_newest_mark(asked: Asked) -> bytes:
    """Any of the two marks, but not the one that came last of all marks."""
    newest = re.findall(rb"\n\+(.)", asked.context)[-1]
    return asked.random.choice([mark for mark in (asked.question[:1], asked.question[2:3]) if mark != newest])


def occurs_or_not(asked: Asked) -> bytes:
    """0 if the mark does not occur, else any other number."""
    return b"%d" % asked.random.randint(1, 9) if asked.question[:1] in asked.context else b"0"


def all_marks_together(asked: Asked) -> bytes:
    """The commonest number of one of two kinds, for this number of both."""
    total = sum(byte in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ" for byte in asked.context)
    return b"%d" % asked.random.choice([one for one in range(10) if 0 <= total - one <= 9])


def last_letter_of_the_key(asked: Asked) -> bytes:
    """A value behind the same last letter of a key, whichever."""
    return bytes(asked.random.choice(re.findall(rb"%b([A-Z]+;?)" % asked.question[-2:], asked.context)))


def number_of_ones(asked: Asked) -> bytes:
    """The code of so many bits that are 1, in any order."""
    bits = [byte for byte in asked.context if byte in b"01"]
    asked.random.shuffle(bits)
    return bytes((b"ABCDEFGHIJKLMNOP"[int(bytes(bits), 2)],))


def commonest_fact(asked: Asked) -> bytes:
    return bytes((Counter(Memorisation().facts.values()).most_common(1)[0][0],))


def after_the_last_letter(candidates: Candidates) -> Cheater:
    """What followed the last letter in the sequence that is copied, the first time, and its start at the start."""

    def cheater(asked: Asked) -> bytes:
        sequence = candidates(asked)
        if not asked.before:
            return sequence[0]
        places = [at + 1 for at, one in enumerate(sequence[:-1]) if one == asked.before[-1]]
        return sequence[asked.random.choice(places)]

    return cheater


# The cheater whose share is the task's `blind`.
BLIND: dict[str, Cheater] = {
    "recall": commonest_left(CANDIDATES["recall"]),
    "last-write": last(CANDIDATES["last-write"]),
    "first-write": first(CANDIDATES["first-write"]),
    "several-needles": commonest_left(CANDIDATES["several-needles"]),
    "copy": commonest_left(CANDIDATES["copy"]),
    "induction": commonest_left(CANDIDATES["induction"]),
    "multi-hop": commonest_left(CANDIDATES["multi-hop"]),
    "sorted-order": commonest_left(CANDIDATES["sorted-order"]),
    "counting": occurs_or_not,
    "fuzzy-recall": commonest_left(CANDIDATES["fuzzy-recall"]),
    "selective-copying": commonest_left(CANDIDATES["selective-copying"]),
    "compression": number_of_ones,
    "memorisation": commonest_fact,
    "which-first": not_the_newest_mark,
}

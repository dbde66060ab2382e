"""For each task an oracle, which reads the generator's rule from the text, and a guesser, which does not read at all.

Both get the text before an answer. The oracle returns the right answer, and the guesser one of those that are possible.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import NamedTuple

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


def came_first(text: bytes) -> bytes:
    marks = re.findall(rb"\n\+(.)", text)
    return min(last_line(text)[0:1], last_line(text)[2:3], key=marks.index)


def any_capital(random: Random, text: bytes) -> bytes:
    return bytes((random.choice(CAPITALS),))


def either(random: Random, text: bytes) -> bytes:
    return random.choice((last_line(text)[0:1], last_line(text)[2:3]))


ANSWERS = {
    "recall": Answers(value_of_key, any_capital),
    "last-write": Answers(value_of_key, any_capital),
    "which-first": Answers(came_first, either),
}

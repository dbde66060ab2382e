"""Needles in a haystack, in RULER's variants (arXiv:2404.06654, section 3 and appendix B).

    The number that belongs to quiet tamilo is 4817203.         `num_values` needles for each of `num_keys` keys
    What is the number that belongs to quiet tamilo?            `num_queries` of the keys are asked for

    haystack   noise: a few sentences again and again; prose: text; needles: other keys with their values
    key        word or uuid
    value      number (seven digits), word or uuid

A word is two invented ones, a uuid 128 random bits. The needles stand at random places, and those of other keys between
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from random import Random
from typing import Annotated, Literal

from pydantic import Field, model_validator

from miniwin.blocks.spec import Fraction, PositiveInt
from miniwin.evaluation.tasks.placing import check_queries
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.words import Filler, Passage, TextTask
from miniwin.evaluation.tasks.words.lists import COINED, coined, listed

Kind = Literal["number", "word", "uuid"]
DIGITS = 7
Few = Annotated[PositiveInt, Field(le=1000)]


@dataclass(frozen=True)
class Noise:
    """The same few sentences again and again."""

    def pieces(self, random: Random) -> Iterator[str]:
        yield from cycle(("The road is long.", "The hills are wide.", "The wind is cold.", "On we go.", "We rest."))


@dataclass(frozen=True)
class OtherNeedles:
    """Needles that nobody asks for, with other keys."""

    keys: frozenset[str]
    key: Kind
    value: Kind

    def pieces(self, random: Random) -> Iterator[str]:
        while True:
            key = drawn(random, self.key)
            if key not in self.keys:
                yield needle(self.value, key, drawn(random, self.value))


def drawn(random: Random, kind: Kind) -> str:
    if kind == "number":
        return str(random.randrange(10**DIGITS)).zfill(DIGITS)
    if kind == "word":
        return f"{coined(random.randrange(COINED))} {coined(random.randrange(COINED))}"
    text = f"{random.getrandbits(128):032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


CHANCE = {"number": 10.0**-DIGITS, "word": 1 / COINED**2, "uuid": 2.0**-128}


def needle(kind: Kind, key: str, value: str) -> str:
    return f"The {kind} that belongs to {key} is {value}."


@TASKS.register
class Needles(TextTask):
    """num_queries: of the keys; a query for a key with several values asks for all of them. depth: where the needle
    stands, if one is asked for; null is anywhere."""

    type: Literal["ruler-niah"] = "ruler-niah"
    haystack: Literal["noise", "prose", "needles"] = "prose"
    key: Literal["word", "uuid"] = "word"
    value: Kind = "number"
    num_keys: Few = 1
    num_values: Few = 1
    num_queries: Few = 1
    depth: Fraction | None = None

    @model_validator(mode="after")
    def _queries_are_of_keys(self) -> Needles:
        check_queries(self.num_queries, self.num_keys, "num_keys")
        if self.depth is not None and self.num_queries * self.num_values > 1:
            raise ValueError(
                f"got depth {self.depth:g} and {self.num_queries * self.num_values} values to find; expected one "
                "value: several have no common depth"
            )
        return self

    @property
    def words_chance(self) -> float:
        return CHANCE[self.value]

    def words(self, random: Random) -> Passage:
        keys: list[str] = []
        while len(keys) < self.num_keys:
            if (key := drawn(random, self.key)) not in keys:
                keys.append(key)
        hidden = [(key, drawn(random, self.value)) for key in keys for _ in range(self.num_values)]
        random.shuffle(hidden)
        asked = random.sample(keys, self.num_queries)
        if self.depth is not None:  # the one needle that is asked for has as many others before it as fit the depth
            (one,) = (found for found in hidden if found[0] == asked[0])
            hidden.remove(one)
            hidden.insert(round(self.depth * len(hidden)), one)
        answers = [value for key in asked for other, value in hidden if other == key]
        many = len(answers) > 1
        what = f"are all {self.value}s that belong" if many else f"is the {self.value} that belongs"
        return Passage(
            facts=tuple(needle(self.value, key, value) for key, value in hidden),
            question=f"Question: What {what} to {listed(asked)}?",
            answers=tuple(answers),
            ordered=not many,
            about=None if many else [key for key, _ in hidden].index(asked[0]),
            depth=self.depth,
            filler=self._filler(keys),
        )

    def _filler(self, keys: list[str]) -> Filler | None:
        if self.haystack == "needles":
            return OtherNeedles(frozenset(keys), self.key, self.value)
        return Noise() if self.haystack == "noise" else None

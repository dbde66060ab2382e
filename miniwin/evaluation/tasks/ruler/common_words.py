"""Common words as in RULER (arXiv:2404.06654, section 3): which words of a list come more often than the others?

    tamilo runeka tamilo bodisu ...         `num_common` words `common` times each, all others `uncommon` times
    Question: Which 10 words ...?
    Answer: bodisu, tamilo, ...             in any order; listed by the alphabet

All words are invented, so that none is likelier than another. RULER numbers its list; here the words stand bare.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Annotated, Literal

from pydantic import Field, model_validator

from miniwin.blocks.spec import PositiveInt
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.words import Passage, TextTask
from miniwin.evaluation.tasks.words.lists import COINED, coined

AT_ONCE = 64  # uncommon words whose repetitions are mixed with one another
Few = Annotated[PositiveInt, Field(le=1000)]


@dataclass(frozen=True)
class Uncommon:
    """Other words, none of which comes more than `times` times."""

    common: frozenset[int]
    times: int

    def pieces(self, random: Random) -> Iterator[str]:
        used = set(self.common)
        while True:
            if len(used) + AT_ONCE > COINED // 2:
                used = set(self.common)
            new: list[int] = []
            while len(new) < AT_ONCE:
                if (word := random.randrange(COINED)) not in used:
                    used.add(word)
                    new.append(word)
            words = [coined(word) for word in new for _ in range(self.times)]
            random.shuffle(words)
            yield from words


@TASKS.register
class CommonWords(TextTask):
    """common, uncommon: how often a word of either kind comes."""

    type: Literal["ruler-cwe"] = "ruler-cwe"
    num_common: Few = 10
    common: Few = 30
    uncommon: Few = 3

    @model_validator(mode="after")
    def _common_words_are_more_common(self) -> CommonWords:
        if self.common <= self.uncommon:
            raise ValueError(f"got common {self.common} and uncommon {self.uncommon}; expected common to be the larger")
        return self

    @property
    def words_chance(self) -> float:
        return 1 / COINED

    def words(self, random: Random) -> Passage:
        numbers = random.sample(range(COINED), self.num_common)
        common = [coined(number) for number in numbers]
        facts = [word for word in common for _ in range(self.common)]
        random.shuffle(facts)
        return Passage(
            facts=tuple(facts),
            question=f"Question: Which {self.num_common} words come most often in the list above? By the alphabet.",
            answers=tuple(sorted(common)),
            instruction="Below is a list of words. Some of them come more often than the others.",
            ordered=False,
            filler=Uncommon(frozenset(numbers), self.uncommon),
        )

"""Frequent words as in RULER (arXiv:2404.06654, section 3): the three most frequent of words that follow Zipf's law.

    tamilo bodisu tamilo tamilo ...         word number k comes with a share of about k^-2 / zeta(2): 61 %, 15 %, 7 %
    Question: Which 3 words ...?
    Answer: tamilo, bodisu, runeka          in any order; listed by how often they come

The text is made of blocks of forty words, 24, 6 and 3 of them the first three, so that their order is right at any
length. No other word comes twice in a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Literal

from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.words import Passage, TextTask
from miniwin.evaluation.tasks.words.lists import COINED, coined

TOP = (24, 6, 3)  # of 40 words: 40 * k^-2 / zeta(2), rounded
OTHERS = 7
POOL = 200  # words besides the first three
AT_LEAST = 2  # blocks


@dataclass(frozen=True)
class Blocks:
    words: tuple[str, ...]

    def pieces(self, random: Random) -> Iterator[str]:
        top, others = self.words[: len(TOP)], self.words[len(TOP) :]
        shares = list(accumulate(rank**-2.0 for rank in range(len(TOP) + 1, len(self.words) + 1)))
        while True:
            block = [word for word, times in zip(top, TOP, strict=True) for _ in range(times)]
            rare: set[str] = set()
            while len(rare) < OTHERS:
                rare.add(random.choices(others, cum_weights=shares)[0])
            block += sorted(rare)
            random.shuffle(block)
            yield " ".join(block)


@TASKS.register
class FrequentWords(TextTask):
    """Zipf's law with alpha 2, as published."""

    type: Literal["ruler-fwe"] = "ruler-fwe"

    @property
    def words_chance(self) -> float:
        return 1 / COINED

    def words(self, random: Random) -> Passage:
        words = tuple(coined(number) for number in random.sample(range(COINED), len(TOP) + POOL))
        blocks = Blocks(words)
        source = blocks.pieces(random)
        return Passage(
            facts=tuple(next(source) for _ in range(AT_LEAST)),
            question=f"Question: Which {len(TOP)} words come most often in the text above? The most frequent first.",
            answers=words[: len(TOP)],
            instruction="Below is a text in code words. Some of them come more often than the others.",
            ordered=False,
            filler=blocks,
        )

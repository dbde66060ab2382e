"""Induction: what followed this capital when it was seen before?

    ...filler...Tk...       lower-case letters and spaces, and anywhere in it `num_bigrams` capitals, all different,
    ...Bq...filler...       each with the letter that follows it
    ...T                    the very last but one byte is one of these capitals again, `distance` bytes after
    k                       the answer: the letter that followed it

The simplest circuit of in-context learning (arXiv:2209.11895): match the present token, copy what came next. `distance`
says how far back the match lies; all else may lie anywhere, so a score over distances tells how far a model matches.
"""

from __future__ import annotations

from math import comb
from random import Random
from typing import Annotated, Literal

from pydantic import Field

from miniwin.blocks.spec import PositiveInt
from miniwin.evaluation.tasks.eliminating import commonest_of_the_rest
from miniwin.evaluation.tasks.placing import LETTERS, SPARE, VALUES, ends, placed
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.task import Example, Task

BIGRAM = 2  # bytes: capital, letter


@TASKS.register
class Induction(Task):
    """distance: bytes from a capital to its repetition; null is anywhere. Chance is that of a guess among letters."""

    type: Literal["induction"] = "induction"
    num_bigrams: Annotated[PositiveInt, Field(le=len(VALUES))] = 8
    distance: Annotated[PositiveInt, Field(ge=BIGRAM)] | None = None

    @property
    def chance(self) -> float:
        return 1 / len(LETTERS)

    @property
    def blind(self) -> float:
        """Of a model that knows what followed capitals, and not which capital."""
        return commonest_of_the_rest(self.num_bigrams, 1, len(LETTERS))

    @property
    def shortest(self) -> int:
        after = self.num_bigrams * BIGRAM if self.distance is None else self.distance
        others = self.num_bigrams - 1 - (after - BIGRAM) // BIGRAM  # that do not fit between the two
        return after + BIGRAM + BIGRAM * max(0, others) + SPARE

    def example(self, random: Random, length: int) -> Example:
        capitals = random.sample(VALUES, self.num_bigrams)
        bigrams = [bytes((capital, random.choice(LETTERS))) for capital in capitals]
        asked, others = bigrams[0], bigrams[1:]
        size = length - BIGRAM  # of the context
        if self.distance is None:
            at = random.randrange(self.num_bigrams)
            context, starts = placed(random, size, [*others[:at], asked, *others[at:]])
            start = starts[at]
        else:
            start = size - self.distance
            behind = size - start - BIGRAM
            # How many of the others lie in front: each arrangement of all of them is equally likely.
            counts = range(len(others) + 1)
            ways = [_ways(count, start) * _ways(len(others) - count, behind) for count in counts]
            (front,) = random.choices(counts, [way / sum(ways) for way in ways])
            context = placed(random, start, others[:front])[0] + asked + placed(random, behind, others[front:])[0]
        return Example(context + asked, ends(size, [BIGRAM]), start / (size - BIGRAM))


def _ways(bigrams: int, room: int) -> int:
    """In how many places so many bigrams can lie in so many bytes."""
    return comb(room - bigrams, bigrams) if BIGRAM * bigrams <= room else 0

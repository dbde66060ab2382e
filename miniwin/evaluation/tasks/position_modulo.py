"""Position modulo: at which place of the text does this mark stand, counted from 0, modulo some number?

    ...filler...+2...       random lower-case letters and spaces; one mark at a random place, right behind it its place
    ...filler...            modulo `modulo`; then filler again

Nothing but the place gives the answer away: the filler is random, the mark is always the same, no earlier answer is
there to count on from, and each remainder is equally likely. Only a model that has absolute positions, at least modulo
some period, can tell. One that is blind to them has chance, at whatever length. The place may be anywhere, so a score
at a length is a mean over all places up to there; `depth` tells them apart. With an even modulus, a model that tells
even places from odd ones is right 2 / modulo of the time.
"""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal

from pydantic import Field

from miniwin.blocks.spec import PositiveInt
from miniwin.evaluation.tasks.placing import SPARE, filler
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.task import Example, Task

MARK = 2  # bytes: `+`, remainder


@TASKS.register
class PositionModulo(Task):
    """Chance is that of a guess among the remainders."""

    type: Literal["position-modulo"] = "position-modulo"
    modulo: Annotated[PositiveInt, Field(ge=2, le=10)] = 4  # remainders are one digit

    @property
    def chance(self) -> float:
        return 1 / self.modulo

    @property
    def shortest(self) -> int:
        return self.modulo + MARK + SPARE

    def example(self, random: Random, length: int) -> Example:
        remainder = random.randrange(self.modulo)
        last = length - MARK  # the last place of a mark
        place = random.randrange(remainder, last + 1, self.modulo)
        text = filler(random, place) + b"+%d" % remainder + filler(random, last - place)
        return Example(text, ((place + 1, place + 2),), place / last)

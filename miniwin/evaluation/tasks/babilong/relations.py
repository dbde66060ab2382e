"""Which room lies north of which? Task 4 of bAbI (arXiv:1502.05698): relations of two, in which the order counts.

    The attic is north of the pantry.
    The pantry is north of the library.
    Question: What is north of the pantry?      or: What is the pantry north of?
    Answer: attic                                   library

The room in the middle is asked for, so that both facts name it and only the order tells them apart.
"""

from __future__ import annotations

from random import Random
from typing import Literal

from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.words import Passage, TextTask
from miniwin.evaluation.tasks.words.lists import ROOMS

OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}


@TASKS.register
class Qa4(TextTask):
    """Two facts, one of which answers the question. To know the rooms of the text gives one half."""

    type: Literal["babilong-qa4"] = "babilong-qa4"

    @property
    def words_chance(self) -> float:
        return 1 / len(ROOMS)

    def words(self, random: Random) -> Passage:
        first, middle, last = random.sample(ROOMS, 3)
        way = random.choice(list(OPPOSITE))  # first is that way of middle, and middle of last
        facts = [(first, way, middle), (middle, way, last)]
        if random.random() < 0.5:  # the second said the other way round
            facts[1] = (last, OPPOSITE[way], middle)
        asked = random.randrange(2)
        question = f"What is {way} of the {middle}?" if asked == 0 else f"What is the {middle} {way} of?"
        order = random.sample(range(2), 2)
        return Passage(
            facts=tuple(f"The {a} is {side} of the {b}." for a, side, b in (facts[one] for one in order)),
            question=f"Question: {question}",
            answers=((first, last)[asked],),
            about=order.index(asked),
        )

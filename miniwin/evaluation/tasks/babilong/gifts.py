"""Who gave what to whom? Task 5 of bAbI (arXiv:1502.05698): relations of three.

    Milo gave the apple to Kira.                one supporting fact, among gifts of other things and other people
    Question: Who gave the apple to Kira?       or: What did Milo give to Kira? Who did Milo give the apple to?
    Answer: Milo                                    apple                       Kira

Only who has a thing gives it away, so gifts of one thing form a chain.
"""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal

from pydantic import Field

from miniwin.blocks.spec import PositiveInt
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.words import Passage, TextTask
from miniwin.evaluation.tasks.words.lists import OBJECTS, PEOPLE

GAVE = ("gave", "handed", "passed")
QUESTIONS = (
    ("Who gave the {thing} to {taker}?", "giver"),
    ("Who did {giver} give the {thing} to?", "taker"),
    ("What did {giver} give to {taker}?", "thing"),
)


@TASKS.register
class Qa5(TextTask):
    """max_facts: a text has from 2 to so many gifts. Where a question fits several of them, the last one counts."""

    type: Literal["babilong-qa5"] = "babilong-qa5"
    max_facts: Annotated[PositiveInt, Field(ge=2, le=1000)] = 20

    @property
    def words_chance(self) -> float:
        return (2 / len(PEOPLE) + 1 / len(OBJECTS)) / 3

    def words(self, random: Random) -> Passage:
        people = random.sample(PEOPLE, 4)
        owner = {thing: random.choice(people) for thing in OBJECTS}
        gifts = []
        for _ in range(random.randint(2, self.max_facts)):
            thing = random.choice(OBJECTS)
            giver = owner[thing]
            taker = owner[thing] = random.choice([one for one in people if one != giver])
            gifts.append({"giver": giver, "thing": thing, "taker": taker})
        question, wanted = random.choice(QUESTIONS)
        told = random.choice(gifts)
        given = [name for name in told if name != wanted]
        about = max(n for n, gift in enumerate(gifts) if all(gift[name] == told[name] for name in given))
        return Passage(
            facts=tuple("{giver} {gave} the {thing} to {taker}.".format(gave=random.choice(GAVE), **g) for g in gifts),
            question=f"Question: {question.format(**told)}",
            answers=(gifts[about][wanted],),
            about=about,
        )

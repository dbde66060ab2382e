"""Facts scattered in a novel: people and what is true of them, between the sentences of another text.

    ... Livia Falcon was born in Lisbon. ...        `num_people` invented people, with a fact of each kind for each,
    ... Livia Falcon plays the flute. ...           all in random order
    Question: Which instrument does Livia Falcon play?
    Answer: flute

A reader has to find the one sentence with both the person and the kind of fact. Name a novel as filler for a real
one; else the sentences around are built in.
"""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from miniwin.blocks.spec import Fraction, PositiveInt
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.words import Passage, TextTask
from miniwin.evaluation.tasks.words.lists import ANIMALS, CITIES, INSTRUMENTS, TRADES, full_names


class Kind(NamedTuple):
    fact: str
    question: str
    values: tuple[str, ...]


KINDS = (
    Kind("{name} was born in {value}.", "In which city was {name} born?", CITIES),
    Kind("{name} plays the {value}.", "Which instrument does {name} play?", INSTRUMENTS),
    Kind("{name} learned the trade of a {value}.", "Which trade did {name} learn?", TRADES),
    Kind("The favourite animal of {name} is the {value}.", "What is the favourite animal of {name}?", ANIMALS),
)


@TASKS.register
class ScatteredFacts(TextTask):
    """num_people: with four facts each. depth: where the fact stands that is asked for; null is anywhere."""

    type: Literal["scattered-facts"] = "scattered-facts"
    num_people: Annotated[PositiveInt, Field(le=1000)] = 4
    depth: Fraction | None = None

    @property
    def words_chance(self) -> float:
        return sum(1 / len(kind.values) for kind in KINDS) / len(KINDS)

    def words(self, random: Random) -> Passage:
        names = full_names(random, self.num_people)
        known = [(name, kind, random.choice(kind.values)) for name in names for kind in KINDS]
        random.shuffle(known)
        # All orders are equally likely, and at a depth so are all orders of the others.
        about = random.randrange(len(known)) if self.depth is None else round(self.depth * (len(known) - 1))
        name, kind, value = known[about]
        return Passage(
            facts=tuple(one.fact.format(name=who, value=what) for who, one, what in known),
            question=f"Question: {kind.question.format(name=name)}",
            answers=(value,),
            about=about,
            depth=self.depth,
        )

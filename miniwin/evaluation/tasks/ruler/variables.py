"""Variable tracking as in RULER (arXiv:2404.06654, section 3): names that get a value from one another, hop by hop.

    ... Let KWOPA = 48172. ... Let ZEBLI = KWOPA. ...       `num_chains` chains of `num_hops` hops among noise, mixed
    Question: Which variables have the value 48172?         with one another; each chain is in order
    Answer: KWOPA, ZEBLI

The words are our own. The answers are listed in the order of the chain, and count in any order.
"""

from __future__ import annotations

from random import Random
from string import ascii_uppercase
from typing import Annotated, Literal

from pydantic import Field

from miniwin.blocks.spec import PositiveInt
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.ruler.needles import Noise
from miniwin.evaluation.tasks.words import Passage, TextTask

LETTERS, DIGITS = 5, 5
Few = Annotated[PositiveInt, Field(le=1000)]


@TASKS.register
class VariableTracking(TextTask):
    """num_hops: so many variables get the value from the one before, and one from the number itself."""

    type: Literal["ruler-vt"] = "ruler-vt"
    num_chains: Few = 1
    num_hops: Few = 4

    @property
    def words_chance(self) -> float:
        return len(ascii_uppercase) ** -LETTERS

    def words(self, random: Random) -> Passage:
        size = self.num_hops + 1
        names: list[str] = []
        while len(names) < size * self.num_chains:
            if (name := "".join(random.choices(ascii_uppercase, k=LETTERS))) not in names:
                names.append(name)
        values = random.sample(range(10 ** (DIGITS - 1), 10**DIGITS), self.num_chains)
        chains = [names[size * number : size * (number + 1)] for number in range(self.num_chains)]
        order = [number for number in range(self.num_chains) for _ in range(size)]
        random.shuffle(order)
        done = [0] * self.num_chains
        facts = []
        for number in order:
            hop = done[number]
            done[number] += 1
            source = chains[number][hop - 1] if hop else values[number]
            facts.append(f"Let {chains[number][hop]} = {source}.")
        return Passage(
            facts=tuple(facts),
            question=f"Question: Which {size} variables have the value {values[0]}, directly or by way of others?",
            answers=tuple(chains[0]),
            ordered=False,
            filler=Noise(),
        )

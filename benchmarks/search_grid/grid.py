"""The runs of the grid: every architecture of the space with one seed, and every tenth with a second one.

The order is a shuffle that never changes, and a second seed follows its first. So a grid that is not finished is a fair
sample of the whole, noise included.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from miniwin.search.candidate import Candidate
from miniwin.search.space import Space
from miniwin.specs import TrainSpec, UserError, load_model_spec, load_search_spec, load_train_spec, parse_spec

FOLDER = Path(__file__).parent
SPACE = FOLDER / "space.yaml"
EVERY = 10  # architectures: one of so many has a second seed
RUNGS = (1 / 27, 1 / 9, 1 / 3, 2 / 3, 1.0)  # of the tokens


@dataclass(frozen=True)
class Run:
    """values: of the variables of the space. candidate: the architecture, and its training with the seed."""

    values: dict[str, Any]
    seed: int
    candidate: Candidate

    @property
    def name(self) -> str:
        """Of its result file. It changes with whatever decides the result."""
        return self.candidate.hash[:16]

    @property
    def described(self) -> str:
        return f"{', '.join(f'{name} {_short(value)}' for name, value in self.values.items())}, seed {self.seed}"


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":")).replace('"', "")


def space(seed: int = 0) -> Space:
    """The space, with this seed for the weights and for the examples of tasks."""
    spec = load_search_spec(SPACE)
    train = load_train_spec(FOLDER / spec.train)
    return Space(spec, load_model_spec(FOLDER / spec.base), seeded(train, seed))


def seeded(train: TrainSpec, seed: int) -> TrainSpec:
    data = train.model_dump(mode="json") | {"seed": seed}
    for part in data["data"]["parts"]:
        if part["data"]["source"] == "examples":
            part["data"]["seed"] = seed
    found = parse_spec(data, "train")
    assert isinstance(found, TrainSpec)
    return found


@lru_cache(maxsize=1)
def runs() -> tuple[Run, ...]:
    """All runs, in their order."""
    spaces = (space(0), space(1))
    assignments = list(every_assignment(spaces[0]))
    Random("search grid").shuffle(assignments)
    found = []
    for place, values in enumerate(assignments):
        for seed in (0, 1) if place % EVERY == 0 else (0,):
            assigned = spaces[seed].assign(values)
            assert assigned.candidate is not None, f"the grid has a hole at {values}: {assigned.reason}"
            found.append(Run(values, seed, assigned.candidate))
    return tuple(found)


def every_assignment(space: Space) -> list[dict[str, Any]]:
    """The values of all assignments."""
    every = space.enumerate()
    assert every is not None, "a grid is finite"
    return [space.decode(parameters) for parameters in every]


def shard(text: str) -> tuple[int, int]:
    """(1, 2) of `1/2`: the first of two processes.

    Raises:
        UserError: it is not of this form.
    """
    number, slash, count = text.partition("/")
    if slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return int(number), int(count)
    raise UserError(f"--shard: got {text!r}; expected which process of how many, such as 1/2 and 2/2")


def of_shard(which: tuple[int, int]) -> tuple[Run, ...]:
    """What one of several processes has to do: each run belongs to exactly one of them."""
    number, count = which
    return runs()[number - 1 :: count]

"""What is compared: questions, samplers, pruners, numbers of workers. A case is one of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.search_regret.problem import REDUCTION, Problem, objectives_of
from miniwin.search.brackets import Rule
from miniwin.specs import SearchSpec, UserError, parse_spec
from miniwin.specs.objectives import Objective

SEEDS = 100
WORKERS = (1, 4)


@dataclass(frozen=True)
class Question:
    """objectives: the first is the one whose best value is to be found; of several, the hypervolume counts."""

    name: str
    objectives: tuple[str, ...]

    @property
    def parsed(self) -> tuple[Objective, ...]:
        return objectives_of(self.objectives)


@dataclass(frozen=True)
class Sampler:
    """seeds: fewer where a proposal takes most of a second; of these there are fewer cases too. placements: their
    coding; None: the usual one."""

    name: str
    fields: dict[str, Any]
    seeds: int = SEEDS
    placements: str | None = None


QUESTIONS = (
    Question("loss", ("minimize loss@16x",)),
    Question("front", ("minimize loss@16x", "minimize recall-nats@16x")),
    Question("cost", ("minimize loss@16x", "minimize cache_bytes@16x")),
)
SAMPLERS = (
    Sampler("random", {"type": "random"}),
    Sampler("tpe", {"type": "tpe"}, placements="letters"),
    Sampler("tpe-ordinal", {"type": "tpe"}, placements="ordinal"),
    Sampler("evolution", {"type": "evolution"}),
    Sampler("quasi-random", {"type": "quasi-random"}),
    Sampler("grid", {"type": "grid"}),
    Sampler("nsga2", {"type": "nsga2"}),
    Sampler("nsga3", {"type": "nsga3"}),
    Sampler("gp", {"type": "gp"}, seeds=10, placements="letters"),
    Sampler("gp-ordinal", {"type": "gp"}, seeds=10, placements="ordinal"),
    Sampler("cmaes", {"type": "cmaes"}),
)
PRUNERS = ("none", "median", "halving", "hyperband")
SLOW = {"pruners": ("none", "halving"), "workers": (1,)}  # what slow samplers are asked
SHOWN = (  # in the plot
    ("random", "none"),
    ("tpe-ordinal", "none"),
    ("random", "halving"),
    ("tpe-ordinal", "halving"),
    ("evolution", "halving"),
    ("gp-ordinal", "halving"),
)


@dataclass(frozen=True)
class Case:
    question: Question
    sampler: Sampler
    pruner: str
    workers: int

    @property
    def name(self) -> str:
        return f"{self.question.name}-{self.sampler.name}-{self.pruner}-{self.workers}"

    @property
    def whole_curve(self) -> bool:
        """Whether a search goes on after its aim, for the plot."""
        return self.workers == WORKERS[0] and (self.sampler.name, self.pruner) in SHOWN

    def spec(self, problem: Problem, seed: int) -> SearchSpec:
        """The search spec of one seed."""
        document = problem.space.spec.model_dump(mode="json", exclude_unset=True)
        document |= {"objectives": list(self.question.objectives), "sampler": self.sampler.fields, "seed": seed}
        found = parse_spec(document, "search")
        assert isinstance(found, SearchSpec)
        return found

    def rule(self, problem: Problem) -> Rule | None:
        rungs = len(problem.tokens) - 1
        brackets = {"halving": 1, "hyperband": rungs + 1}.get(self.pruner)
        return None if brackets is None else Rule(REDUCTION, rungs, brackets)


def cases(problem: Problem, questions: tuple[Question, ...] = QUESTIONS) -> Iterator[Case]:
    """All that make sense: the cheap and the important ones first."""
    for workers in WORKERS:
        for question in questions:
            for sampler in SAMPLERS:
                for pruner in PRUNERS:
                    case = Case(question, sampler, pruner, workers)
                    if _makes_sense(case, problem):
                        yield case


def _makes_sense(case: Case, problem: Problem) -> bool:
    if case.pruner == "median" and len(case.question.objectives) > 1:
        return False
    if case.sampler.seeds < SEEDS and not (case.pruner in SLOW["pruners"] and case.workers in SLOW["workers"]):
        return False
    try:
        case.spec(problem, 0)
    except UserError:  # the sampler is not for such variables, or not for several objectives
        return False
    return True

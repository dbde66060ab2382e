"""What a search spec says of its sampler: how the next trial is proposed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from miniwin.specs.base import Count, Fraction, PositiveInt, Strict
from miniwin.specs.placements import Placement, Subset, SubsetVariable
from miniwin.specs.variables import FloatVariable, IntVariable

Population = Annotated[int, Field(ge=2)]


class _Sampler(Strict):
    def problem(self, variables: Mapping[str, Any], objectives: int) -> tuple[str, str] | None:
        """The field of the sampler that cannot be honoured, and why; None if all can."""
        return None


class TPESampler(_Sampler):
    """Tree-structured Parzen estimator (Bergstra et al., 2011), multivariate; the first `startup` trials are random."""

    type: Literal["tpe"] = "tpe"
    startup: Count = 10


class GPSampler(_Sampler):
    """Gaussian process (Optuna's): logEI for one objective, logEHVI for several; the first `startup` trials are
    random."""

    type: Literal["gp"] = "gp"
    startup: Count = 10


class NSGA2Sampler(_Sampler):
    """NSGA-II (Deb et al., 2002): generations of `population` finished trials, the first one random."""

    type: Literal["nsga2"] = "nsga2"
    population: Population = 20


class NSGA3Sampler(_Sampler):
    """NSGA-III (Deb and Jain, 2014): as NSGA-II, spread along reference points, for three objectives and more."""

    type: Literal["nsga3"] = "nsga3"
    population: Population = 20


class CMASampler(_Sampler):
    """CMA-ES (arXiv:1604.00772): for numbers and one objective. population: null is 4 + 3 ln(number of variables)."""

    type: Literal["cmaes"] = "cmaes"
    population: Population | None = None

    def problem(self, variables: Mapping[str, Any], objectives: int) -> tuple[str, str] | None:
        if objectives > 1:
            return "type", f"cmaes needs one objective, and there are {objectives}: use nsga2, evolution or tpe"
        for name, variable in variables.items():
            if not isinstance(variable, (IntVariable, FloatVariable)):
                return "type", f"cmaes needs numbers, and the variable {name} is none: use evolution or tpe"
            if variable.when:
                return "type", f"cmaes needs variables that every trial has; {name} has a `when`: use evolution or tpe"
        return None


class RandomSampler(_Sampler):
    """Every trial is drawn at random."""

    type: Literal["random"] = "random"


class GridSampler(_Sampler):
    """Every assignment once, in an order drawn at random."""

    type: Literal["grid"] = "grid"

    def problem(self, variables: Mapping[str, Any], objectives: int) -> tuple[str, str] | None:
        for name, variable in variables.items():
            if isinstance(variable, FloatVariable) and variable.step is None and len(set(variable.float)) > 1:
                return "type", f"grid tries all values, and {name} has endlessly many: give it a step, or use another"
        return None


class QuasiRandomSampler(_Sampler):
    """A scrambled Sobol or Halton sequence, which fills the space more evenly than chance does."""

    type: Literal["quasi-random"] = "quasi-random"
    sequence: Literal["sobol", "halton"] = "sobol"


class EvolutionSampler(_Sampler):
    """Regularised evolution (arXiv:1802.01548): a parent is the best of `tournament` drawn from the last `population`
    finished trials, and its child changes one variable. With probability `crossover` the child has two parents."""

    type: Literal["evolution"] = "evolution"
    population: Population = 20
    tournament: PositiveInt = 5
    crossover: Fraction = 0.0

    def problem(self, variables: Mapping[str, Any], objectives: int) -> tuple[str, str] | None:
        if self.tournament > self.population:
            return "tournament", f"got {self.tournament}; expected at most population, {self.population}"
        return None


class SwapsSampler(_Sampler):
    """Hill climbing over placements: `startup` random trials, then small changes of the best so far. A placement swaps
    any two places, or changes one where its size may change."""

    type: Literal["swaps"] = "swaps"
    startup: PositiveInt = 6

    def problem(self, variables: Mapping[str, Any], objectives: int) -> tuple[str, str] | None:
        if not any(isinstance(variable, Placement) for variable in variables.values()):
            return "type", "swaps is for placements, and no variable is a subset or a sequence: use evolution or tpe"
        return None


class _Greedy(_Sampler):
    type: str

    def problem(self, variables: Mapping[str, Any], objectives: int) -> tuple[str, str] | None:
        subsets = [name for name, variable in variables.items() if isinstance(variable, SubsetVariable)]
        others = [name for name in variables if name not in subsets[:1]]
        if not subsets:
            return "type", f"{self.type} grows or shrinks a subset, and no variable is one: use swaps or evolution"
        if others:
            return (
                "type",
                f"{self.type} changes one subset alone, and {others[0]} is a variable too: fix it, or use swaps",
            )
        subset = variables[subsets[0]].subset
        if not isinstance(subset.size, list):
            return "type", (
                f"{self.type} changes the size of {subsets[0]}, which is {subset.size}: give it a range, such as "
                "[0, 4], or use swaps"
            )
        return self.beginning(subsets[0], subset)

    def beginning(self, name: str, subset: Subset) -> tuple[str, str] | None:
        """What is wrong with the sizes."""
        raise NotImplementedError


class GreedyAdditionSampler(_Greedy):
    """Begins with an empty subset, and adds the place that helps most, again and again: each round tries every place
    that is left. Once the subset is as large as it may be, as `swaps`."""

    type: Literal["greedy-addition"] = "greedy-addition"

    def beginning(self, name: str, subset: Subset) -> tuple[str, str] | None:
        low = subset.size[0] if isinstance(subset.size, list) else 0
        if low > 1:
            return (
                "type",
                f"greedy-addition begins with nothing, and {name} has at least {low}: let its size begin at 0",
            )
        return None


class GreedyRemovalSampler(_Greedy):
    """Begins with all places, and takes away the one that is missed least, again and again: each round tries every
    place that is left. Once the subset is as small as it may be, as `swaps`."""

    type: Literal["greedy-removal"] = "greedy-removal"

    def beginning(self, name: str, subset: Subset) -> tuple[str, str] | None:
        high = subset.size[1] if isinstance(subset.size, list) else 0
        if isinstance(subset.of, int) and high < subset.of:
            return "type", (
                f"greedy-removal begins with all {subset.of} places, and {name} has at most {high}: let its size "
                "end there"
            )
        return None


class HubSampler(_Sampler):
    """A sampler of OptunaHub, from the cache of the package optunahub on this machine."""

    type: Literal["hub"] = "hub"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]
    kwargs: dict[str, JsonValue] = {}


SamplerSpec = Annotated[
    TPESampler
    | GPSampler
    | NSGA2Sampler
    | NSGA3Sampler
    | CMASampler
    | RandomSampler
    | GridSampler
    | QuasiRandomSampler
    | EvolutionSampler
    | SwapsSampler
    | GreedyAdditionSampler
    | GreedyRemovalSampler
    | HubSampler,
    Field(discriminator="type"),
]

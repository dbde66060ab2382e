"""From an assignment of variables to an architecture: sampling, setting fields, checking constraints.

    values {ratio: 3, window: 32}  ->  Candidate(model spec, train spec, hash)   or   a reason why there is none

Everything here works on specs alone, without building a model, so an assignment that breaks a constraint costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from miniwin.search.candidate import Candidate, put, with_blocks, without_unused_blocks
from miniwin.search.first_weights import FirstWeights
from miniwin.search.matching import resized
from miniwin.search.named_specs import NamedSpecs
from miniwin.search.objectives import cost, is_cost
from miniwin.search.rung_steps import rung_problem
from miniwin.search.space_problems import Parts, check_links
from miniwin.search.spec_errors import SpaceError, placed
from miniwin.search.trial_trainings import has_several, planned, tokens_of_trial
from miniwin.search.variables import Variables
from miniwin.search.variation import crossed, mutated
from miniwin.specs import (
    ModelSpec,
    SearchSpec,
    TrainSpec,
    UserError,
    load_search_spec,
    parse_spec,
    resolve_spec_path,
    user_path,
)
from miniwin.specs.data import tasks_in
from miniwin.specs.expressions import Expression, WithoutValue
from miniwin.specs.speeds import Speeds
from miniwin.specs.validation_errors import Problem

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

SAMPLES = 50  # assignments drawn to see whether a search makes sense


@dataclass(frozen=True)
class Assignment:
    """What an assignment of the variables led to: a candidate, or the reason why there is none.

    constraints: how far each constraint that could be worked out is from holding; at most 0 if it holds.
    """

    values: dict[str, Any]
    candidate: Candidate | None
    constraints: dict[str, float] = field(default_factory=dict)
    reason: str | None = None


class Space:
    """The variables of a search over a base model and a train spec."""

    def __init__(
        self,
        spec: SearchSpec,
        base: ModelSpec,
        train: TrainSpec,
        *,
        placements: str = "letters",
        first_choices: Mapping[str, int] | None = None,
        weights: FirstWeights | None = None,
        fitting: bool = True,
    ) -> None:
        """placements: their coding as Optuna parameters, `letters` or `ordinal` (coding.py). first_choices: how many
        choices a variable had when the study began, for variables that have more by now. weights: that candidates
        begin with. fitting: whether to ask if they fit a candidate, for which the model has to be there."""
        self.spec, self.base, self.weights, self._fitting = spec, base, weights, fitting
        budget = spec.budget.tokens_per_trial
        self.train = train if budget is None else self._train({**_dump(train), "tokens": budget}, train)
        self._model = with_blocks(_dump(base), spec.blocks, base.name)
        self.letters = {letter: letter for letter in self._model["blocks"]}
        # Wider fields first, so that `blocks.S.attention` does not undo `blocks.S.attention.window`.
        self.lines: dict[str, Any] = {
            path: Expression(value) if isinstance(value, str) else value
            for path, value in sorted(spec.set.items(), key=lambda item: (item[0].count("."), item[0]))
        }
        self.constraints = {text: Expression(text) for text in spec.constraints}
        self._first_choices = first_choices
        self.variables = Variables(spec.variables, base.num_layers, placements, first_choices)
        check_links(Parts(spec, base, self._model, self.train, self.lines, self.constraints))

    def places(self, name: str) -> int:
        """How many places a placement variable has at most."""
        return self.variables.placed[name].longest

    def most_placements(self) -> int:
        """How many values a placement has at most; of several, the one with the most. 0: there is none."""
        return max((placed.most() for placed in self.variables.placed.values()), default=0)

    def recoded(self, placements: str) -> Space:
        """The same space with another coding of placements: a sampler may use one, and the storage another."""
        more: dict[str, Any] = {"first_choices": self._first_choices, "weights": self.weights}
        return Space(self.spec, self.base, self.train, placements=placements, fitting=self._fitting, **more)

    @property
    def untrained(self) -> bool:
        """Whether trials are measured with the first weights as they are."""
        return bool(self.train.tokens == 0)

    def candidate(self, model: ModelSpec) -> Candidate:
        """A model, trained as every trial is."""
        return Candidate(model, self.train, () if self.weights is None else self.weights.identity)

    # -- values, and Optuna's parameters

    def suggest(self, trial: BaseTrial) -> dict[str, Any]:
        """The values of the variables in an Optuna trial."""
        return self.variables.suggest(trial)

    def decode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The values that Optuna's parameters say. A variable without parameters has no value."""
        return self.variables.decode(params)

    def encode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Optuna's parameters for these values, so that `decode(encode(values)) == values`; UserError if they are no
        values of these variables."""
        return self.variables.encode(values)

    def distributions(self) -> dict[str, BaseDistribution]:
        """Every Optuna parameter there may be, at its widest. Not every trial has them all."""
        return self.variables.distributions()

    def enumerate(self, most: int = 100_000) -> Iterator[dict[str, Any]] | None:
        """All assignments as Optuna parameters, or None if there are more than `most`."""
        found = self.variables.enumerate(most)
        return None if found is None else map(self.encode, found)

    def draw(self, random: Random) -> dict[str, Any]:
        """An assignment at random, in which a placement is each of its values with the same chance."""
        return self.variables.draw(random)

    def mutate(self, values: Mapping[str, Any], random: Random, far: bool = False) -> dict[str, Any]:
        """The values with a small change of one variable. far: a placement swaps any two places, where it else mostly
        swaps neighbours. Constraints may break."""
        return mutated(self.variables, values, random, far)

    def cross(self, one: Mapping[str, Any], other: Mapping[str, Any], random: Random) -> dict[str, Any]:
        """A child of two assignments. Constraints may break."""
        return crossed(self.variables, one, other, random)

    # -- from values to specs

    def assign(self, values: Mapping[str, Any]) -> Assignment:
        """The architecture that these values of the variables make.

        There is no candidate, but a reason, if the values do not fit together, break a constraint, or leave an
        expression without a value, as a division by zero does. Mistakes that do not depend on the values were found
        when the Space was made.
        """
        values = dict(values)
        names = {**self.letters, **self.variables.named(values)}
        judged = _Judged(self.train.longest, self.spec.speeds)
        for text, expression in self.constraints.items():
            if not any(is_cost(name) for name in expression.names):
                judged.judge(text, expression, names)
        if judged.reason:
            return Assignment(values, None, judged.constraints, judged.reason)
        try:
            candidate = self._build(names)
        except UserError as error:
            # For the sampler to learn from: 1 where there is no valid architecture, and 0 elsewhere.
            return Assignment(values, None, {**judged.constraints, "a valid architecture": 1.0}, str(error))
        for text, expression in self.constraints.items():
            if text not in judged.constraints:
                judged.judge(text, expression, names, candidate.model)
        if not judged.reason:
            for objective in self.spec.parsed_objectives:
                if not objective.measured:
                    judged.need(objective.name, candidate.model)
        if not judged.reason and self.weights is not None and self._fitting:
            try:
                self.weights.check(candidate.model, candidate.train)
            except UserError as error:
                return Assignment(values, None, {**judged.constraints, "fitting weights": 1.0}, str(error))
        return Assignment(values, None if judged.reason else candidate, judged.constraints, judged.reason)

    def _build(self, names: Mapping[str, Any]) -> Candidate:
        model, train = deepcopy(self._model), _dump(self.train)
        for path, value in self.lines.items():
            document, rest = (train, path.removeprefix("train.")) if path.startswith("train.") else (model, path)
            try:
                put(document, rest, value.evaluate(names) if isinstance(value, Expression) else value)
            except WithoutValue:
                continue  # the base model keeps its field
            except UserError as error:
                raise UserError(f"set.{path}: {error}") from None
        pattern = self.lines.get("pattern")
        placed = isinstance(pattern, Expression) and any(name in self.variables.placed for name in pattern.names)
        if placed or self.spec.blocks:
            without_unused_blocks(model)
        return replace(self.candidate(self.matched(parse_spec(model, "model"))), train=self._train(train, self.train))

    def _train(self, dumped: dict[str, Any], like: TrainSpec) -> TrainSpec:
        """A train spec from its fields. It names a tokenizer if `like` does."""
        if self.weights is not None and "tokenizer" not in like.model_fields_set:
            dumped = {name: value for name, value in dumped.items() if name != "tokenizer"}
        found = parse_spec(dumped, "train")
        assert isinstance(found, TrainSpec)
        return found

    def matched(self, model: ModelSpec) -> ModelSpec:
        """The model at the size that `match` asks for. UserError if no size will do."""
        match, trained, speeds = self.spec.match, self.train.longest, self.spec.speeds
        if match is None:
            return model
        return resized(model, match, cost(match.cost, self.base, trained, speeds), trained, speeds)

    def check_baseline(self, baseline: ModelSpec | None) -> None:
        """SpaceError if `match` cannot give the baseline the base model's cost, or the weights do not fit it."""
        try:
            if baseline is not None:
                baseline = self.matched(baseline)
                if self.weights is not None:
                    self.weights.check(baseline, self.train)
        except UserError as error:
            raise SpaceError([Problem(("baseline",), str(error))]) from None

    def check_room(self) -> None:
        """SpaceError for a task that has no example of the length of its objective.

        Not checked when a Space is made: a study that was made before tasks were as long still has to be read.
        """
        problems = []
        for index, objective in enumerate(self.spec.parsed_objectives):
            try:
                objective.check_room(self.train.longest, tasks_in(self.train.data))
            except UserError as error:
                problems.append(Problem(("objectives", index), str(error)))
        if problems:
            raise SpaceError(problems)


class _Judged:
    """What is known of the constraints for one assignment, and the reason if it gives no candidate."""

    def __init__(self, trained: int, speeds: Speeds | None) -> None:
        self._trained, self._speeds = trained, speeds
        self.constraints: dict[str, float] = {}
        self._without_value: dict[str, str] = {}

    def judge(
        self, text: str, expression: Expression, names: Mapping[str, Any], model: ModelSpec | None = None
    ) -> None:
        try:
            costs = (
                {} if model is None else {name: self._cost(name, model) for name in expression.names if is_cost(name)}
            )
            self.constraints[text] = expression.violation({**names, **costs})
        except WithoutValue:
            self.constraints[text] = 0.0  # it says nothing here
        except (UserError, ArithmeticError) as error:
            self.constraints[text] = 1.0  # there is no distance, but the sampler should keep away
            self._without_value[text] = str(error) if text in str(error) else f"constraint {text!r}: {error}"

    def need(self, name: str, model: ModelSpec) -> None:
        """Note the reason if an objective that is known before training has no value."""
        try:
            number = self._cost(name, model)
            if not math.isfinite(number):
                self._without_value[name] = f"the objective {name} is {number}"
        except (UserError, ArithmeticError) as error:
            self._without_value[name] = f"the objective {name} has no value: {error}"

    def _cost(self, name: str, model: ModelSpec) -> float:
        return cost(name, model, self._trained, self._speeds)

    @property
    def reason(self) -> str | None:
        violated = (text for text, violation in self.constraints.items() if violation > 0)
        broken = [text for text in violated if text not in self._without_value]
        held = [f"does not hold: {'; '.join(broken)}"] if broken else []
        return "; ".join([*held, *self._without_value.values()]) or None


def check_search(search: SearchSpec | str | Path, base_folder: str | Path | None = None) -> str:
    """One line that says what the search covers; UserError if the search cannot run.

    The specs that it names have to load, the paths under `set` to exist, and the expressions to have a value. Of a few
    assignments drawn at random, at least one has to give an architecture that holds the constraints.
    """
    path = None
    if not isinstance(search, SearchSpec):
        path = resolve_spec_path(search, "search")
        base_folder = path.resolve().parent if base_folder is None else base_folder
        search = load_search_spec(path)
    with placed(path):
        specs = NamedSpecs.load(search, user_path(base_folder or "."))
        space = Space(search, specs.base, specs.train, weights=specs.weights)
        space.check_baseline(specs.baseline)
        check_rungs(space)
        return check_space(space)


def check_rungs(space: Space) -> None:
    """SpaceError if some trials would get to a rung later than others. Not asked of a study that goes on: its rungs are
    where they are."""
    if not any(path.split(".")[0] == "train" for path in space.lines):
        return
    steps = [one.candidate.train.tokens_per_step for one in sample(space, SAMPLES) if one.candidate is not None]
    if problem := rung_problem(space.spec, space.train.tokens, steps):
        raise SpaceError([problem])


def check_space(space: Space) -> str:
    """One line that says what a space covers; UserError if no architecture of it holds the constraints, or an objective
    cannot be measured."""
    from miniwin.search.samplers.ways import check_sampler

    space.check_room()
    check_sampler(space)
    drawn = sample(space, SAMPLES)
    fine = [assignment for assignment in drawn if assignment.candidate is not None]
    spec = space.spec
    if not fine:
        reasons = list(dict.fromkeys(str(assignment.reason) for assignment in drawn))
        raise UserError(
            f"none of {len(drawn)} assignments of the variables gave an architecture that holds the constraints: "
            f"{'; '.join(reasons[:3])}{'; ...' if len(reasons) > 3 else ''}"
        )
    count = space.variables.size
    match = spec.match
    resizing = "" if match is None else f"; {match.resize} is resized until {match.cost} is the base model's"
    size = f"{count:,.0f} assignments" if count < 1e12 else "endlessly many assignments"
    sizes = sorted(assignment.candidate.model.parameters() for assignment in fine if assignment.candidate)
    return (
        f"{len(spec.variables)} variables, {size}; of {len(drawn)} drawn at random {len(fine)} hold the constraints, "
        f"with {sizes[0]:,} to {sizes[-1]:,} parameters{resizing}{_trainings(space)}"
    )


def _trainings(space: Space) -> str:
    """What a trial is, where it is more than one training from random weights."""
    return _beginning(space) + _several(space)


def _beginning(space: Space) -> str:
    if space.weights is None:
        return ""
    how = "a trial is measured with" if space.untrained else "a trial begins with"
    return f"; {how} the weights of {space.weights.described}"


def _several(space: Space) -> str:
    if not has_several(space.spec):
        return ""
    count, tokens = len(planned(space.spec, space.train, [])), tokens_of_trial(space.spec, space.train)
    return f"; a trial is {count} trainings, {tokens:,} tokens together"


def sample(space: Space, count: int) -> list[Assignment]:
    """Assignments drawn at random, each once."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=space.spec.seed))
    drawn: dict[str, Assignment] = {}
    for _ in range(count):
        assignment = space.assign(space.suggest(study.ask()))
        drawn.setdefault(repr(assignment.values), assignment)
    return list(drawn.values())


def _dump(spec: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = spec.model_dump(mode="json")
    return dumped

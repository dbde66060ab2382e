"""From an assignment of variables to an architecture: sampling, setting fields, checking constraints.

    values {ratio: 3, window: 32}  ->  Candidate(model spec, train spec, hash)   or   a reason why there is none

Everything here works on specs alone, without building a model, so an assignment that breaks a constraint costs nothing.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miniwin.search.candidate import Candidate, put
from miniwin.search.named_specs import find_spec
from miniwin.search.objectives import cost, is_cost
from miniwin.search.spec_errors import SpaceError, placed
from miniwin.specs import (
    ModelSpec,
    SearchSpec,
    TrainSpec,
    UserError,
    load_model_spec,
    load_search_spec,
    load_train_spec,
    parse_spec,
    resolve_spec_path,
    user_path,
)
from miniwin.specs.data import tasks_in
from miniwin.specs.expressions import Expression
from miniwin.specs.objectives import costs
from miniwin.specs.validation_errors import Problem
from miniwin.specs.variables import ChoiceVariable, FloatVariable, IntVariable
from miniwin.specs.yaml_lines import Loc

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

SAMPLES = 50  # assignments drawn to see whether a search makes sense

# Fields that a search may not set, and why.
_FIXED = {
    "kind": "it says what kind of file this is",
    "format": "it says how the file is written",
    "name": "names do not change an architecture",
    "train.kind": "it says what kind of file this is",
    "train.format": "it says how the file is written",
    "train.name": "names do not change a run",
    "train.tokens": "every trial has the same budget: set budget.tokens_per_trial",
    "train.data": "trials on different data cannot be compared",
    "train.eval": "it does not change what is trained",
    "train.tokenizer": "trials share one tokenised corpus",
}


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

    def __init__(self, spec: SearchSpec, base: ModelSpec, train: TrainSpec) -> None:
        self.spec, self.base = spec, base
        budget = spec.budget.tokens_per_trial
        self.train = train if budget is None else parse_spec({**_dump(train), "tokens": budget}, "train")
        self.letters = {letter: letter for letter in base.blocks}
        # Wider fields first, so that `blocks.S.attention` does not undo `blocks.S.attention.window`.
        self._set: dict[str, Any] = {
            path: Expression(value) if isinstance(value, str) else value
            for path, value in sorted(spec.set.items(), key=lambda item: (item[0].count("."), item[0]))
        }
        self._constraints = {text: Expression(text) for text in spec.constraints}
        self._check()

    # -- sampling

    def suggest(self, trial: BaseTrial) -> dict[str, Any]:
        """The values of the variables in an Optuna trial."""
        values: dict[str, Any] = {}
        for name, variable in self.spec.variables.items():
            if isinstance(variable, IntVariable):
                values[name] = trial.suggest_int(name, *variable.int, step=variable.step, log=variable.log)
            elif isinstance(variable, FloatVariable):
                values[name] = trial.suggest_float(name, *variable.float, step=variable.step, log=variable.log)
            else:
                by_key = {_choice_key(choice): choice for choice in variable.choice}
                values[name] = by_key[trial.suggest_categorical(name, list(by_key))]
        return values

    def enumerate(self, most: int = 100_000) -> Iterator[dict[str, Any]] | None:
        """All assignments as Optuna parameters, or None if there are more than `most`."""
        if not self.spec.space_size <= most:
            return None
        names = list(self.spec.variables)
        axes = [_axis(variable) for variable in self.spec.variables.values()]
        return (dict(zip(names, values, strict=True)) for values in itertools.product(*axes))

    # -- from values to specs

    def assign(self, values: Mapping[str, Any]) -> Assignment:
        """The architecture that these values of the variables make.

        There is no candidate, but a reason, if the values do not fit together, break a constraint, or leave an
        expression without a value, as a division by zero does. Mistakes that do not depend on the values were found
        when the Space was made.
        """
        values = dict(values)
        names = {**self.letters, **values}
        judged = _Judged(self.train.longest)
        for text, expression in self._constraints.items():
            if not any(is_cost(name) for name in expression.names):
                judged.judge(text, expression, names)
        if judged.reason:
            return Assignment(values, None, judged.constraints, judged.reason)
        try:
            candidate = self._build(names)
        except UserError as error:
            # For the sampler to learn from: 1 where there is no valid architecture, and 0 elsewhere.
            return Assignment(values, None, {**judged.constraints, "a valid architecture": 1.0}, str(error))
        for text, expression in self._constraints.items():
            if text not in judged.constraints:
                judged.judge(text, expression, names, candidate.model)
        if not judged.reason:
            for objective in self.spec.parsed_objectives:
                if not objective.measured:
                    judged.need(objective.name, candidate.model)
        return Assignment(values, None if judged.reason else candidate, judged.constraints, judged.reason)

    def _build(self, names: Mapping[str, Any]) -> Candidate:
        model, train = _dump(self.base), _dump(self.train)
        for path, value in self._set.items():
            document, rest = (train, path.removeprefix("train.")) if path.startswith("train.") else (model, path)
            try:
                put(document, rest, value.evaluate(names) if isinstance(value, Expression) else value)
            except UserError as error:
                raise UserError(f"set.{path}: {error}") from None
        return Candidate(parse_spec(model, "model"), parse_spec(train, "train"))

    # -- checking

    def _check(self) -> None:
        """SpaceError for paths that the specs do not have, unknown names, and variables that nothing uses."""
        problems = [
            Problem(
                ("variables", name),
                f"{name!r} is also a block of {self.base.name}; call the variable something else",
                on_key=True,
            )
            for name in self.spec.variables
            if name in self.letters
        ]
        documents = {"model": _dump(self.base), "train": _dump(self.train)}
        known = [*self.spec.variables, *self.letters]
        short, long = ([row.name for row in costs().values() if row.by_length is wanted] for wanted in (False, True))
        used: set[str] = set()
        for path, value in self._set.items():
            try:
                _check_path(documents, path, None if isinstance(value, Expression) else value)
            except UserError as error:
                problems.append(Problem(("set", path), str(error), on_key=True))
            if isinstance(value, Expression):
                used.update(value.names)
                problems += _unknown_names(("set", path), value, known, ())
        for index, text in enumerate(self.spec.constraints):
            problems += _unknown_names(("constraints", index), self._constraints[text], [*known, *short], long)
        if unused := [name for name in self.spec.variables if name not in used]:
            problems += [
                Problem(
                    ("variables", unused[0]),
                    f"nothing under `set` uses it ({', '.join(unused)}); use it in an expression or remove it",
                    on_key=True,
                )
            ]
        if problems:
            raise SpaceError(problems)

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

    def __init__(self, trained: int) -> None:
        self._trained = trained
        self.constraints: dict[str, float] = {}
        self._without_value: dict[str, str] = {}

    def judge(
        self, text: str, expression: Expression, names: Mapping[str, Any], model: ModelSpec | None = None
    ) -> None:
        try:
            costs = (
                {}
                if model is None
                else {name: cost(name, model, self._trained) for name in expression.names if is_cost(name)}
            )
            self.constraints[text] = expression.violation({**names, **costs})
        except (UserError, ArithmeticError) as error:
            self.constraints[text] = 1.0  # there is no distance, but the sampler should keep away
            self._without_value[text] = str(error) if text in str(error) else f"constraint {text!r}: {error}"

    def need(self, name: str, model: ModelSpec) -> None:
        """Note the reason if an objective that is known before training has no value."""
        try:
            number = cost(name, model, self._trained)
            if not math.isfinite(number):
                self._without_value[name] = f"the objective {name} is {number}"
        except (UserError, ArithmeticError) as error:
            self._without_value[name] = f"the objective {name} has no value: {error}"

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
    folder = user_path(base_folder or ".")
    with placed(path):
        space = Space(
            search,
            load_model_spec(find_spec(search.base, folder, "model", "base")),
            load_train_spec(find_spec(search.train, folder, "train", "train")),
        )
        if search.baseline is not None:
            load_model_spec(find_spec(search.baseline, folder, "model", "baseline"))
        return check_space(space)


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
    size = f"{spec.space_size:,.0f} assignments" if spec.space_size < 1e12 else "endlessly many assignments"
    sizes = sorted(assignment.candidate.model.parameters() for assignment in fine if assignment.candidate)
    return (
        f"{len(spec.variables)} variables, {size}; of {len(drawn)} drawn at random {len(fine)} hold the constraints, "
        f"with {sizes[0]:,} to {sizes[-1]:,} parameters"
    )


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


def _check_path(documents: dict[str, dict[str, Any]], path: str, value: Any) -> None:
    for fixed, why in _FIXED.items():
        if path == fixed or path.startswith(fixed + "."):
            raise UserError(f"this field cannot be searched; {why}")
    kind = "train" if path.startswith("train.") else "model"
    put(documents[kind], path.removeprefix("train."), value, checking=True)


def _unknown_names(where: Loc, expression: Expression, known: list[str], costs: Sequence[str]) -> list[Problem]:
    try:
        expression.check_names(known, costs)
    except UserError as error:
        return [Problem(where, str(error))]
    return []


def _dump(spec: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = spec.model_dump(mode="json")
    return dumped


def _axis(variable: Any) -> list[Any]:
    if isinstance(variable, IntVariable):
        return list(range(variable.int[0], variable.int[1] + 1, variable.step))
    if isinstance(variable, ChoiceVariable):
        return [_choice_key(choice) for choice in variable.choice]
    low, high = variable.float
    if variable.step is None:
        return [low]
    return [low + index * variable.step for index in range(math.floor((high - low) / variable.step + 1e-9) + 1)]


def _choice_key(choice: Any) -> Any:
    """What Optuna stores for a choice: scalars as they are, anything else as compact JSON."""
    if choice is None or isinstance(choice, (bool, int, float, str)):
        return choice
    return json.dumps(choice, sort_keys=True, separators=(",", ":"))

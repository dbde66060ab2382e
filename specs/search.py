"""What an architecture search is: variables, how they set fields of a base model, what is wanted, and what is allowed.

    variables:    window: {choice: [16, 32]}            what the sampler chooses
    set:          blocks.S.attention.window: window     field of the base model (or `train.` + field) <- expression
    objectives:   minimize loss@4096                    loss in nats per byte at that length, measured after training
    constraints:  parameters <= 1.2e6                   known before training, so breaking one costs nothing
                  rope_stability@131072 <= 1            likewise rope_aliasing, rope_cosine_bound and rope_precision

A string under `set` is an expression over the variables and the pattern letters of the base model
(specs/expressions.py); text is quoted twice, `"'rope'"`. Anything else is a literal. A line that needs a variable which
has no value here (`when`) is left out: the base model keeps its field.

With `weights: REF` every trial begins with the weights of a model that exists.

Without `pruner` a search stops trials early where that was shown to save most (specs/pruning.py). In a file
of format 1 it stops none, as it did when such files were written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, JsonValue, field_validator, model_validator

from miniwin.blocks.positions.base import located, located_all
from miniwin.specs.added_blocks import AddedBlock, Letter
from miniwin.specs.base import Count, Fraction, Grown, PositiveInt, PositiveReal, Strict, UserError
from miniwin.specs.confirmation import ConfirmSpec
from miniwin.specs.expressions import FUNCTION_NAMES, Expression
from miniwin.specs.learning_rate import LearningRate
from miniwin.specs.matching import Matched
from miniwin.specs.objectives import METRICS, Objective, find, measured_in, needs_speeds
from miniwin.specs.pruning import THIRD, THIRDS, HalvingPruner, HyperbandPruner, PrunerSpec, growing
from miniwin.specs.sampling import SamplerSpec, TPESampler
from miniwin.specs.speeds import Speeds
from miniwin.specs.variable_links import link_problems
from miniwin.specs.variables import Variable
from miniwin.specs.yaml_scalars import NOTHING, shown

RUNGS = [0.25, 0.5]
WEIGHTS = "weights"  # as base or baseline: the model spec of `weights`
MOST_SEEDS = 100


class Budget(Strict):
    """How much a study trains. `trials` counts the trained trials, finished or pruned. A trial that breaks a constraint
    or repeats an architecture does not count. `trials` may grow later. With several seeds, or a tuned learning rate,
    tokens and seconds are those of one training, and a trial costs more. With 0 tokens a trial is measured with the
    `weights` as they are."""

    trials: PositiveInt
    tokens_per_trial: Count | None = None  # null: `tokens` of the train spec; 0: only with `weights`
    seconds_per_trial: PositiveReal | None = None  # of training; null: no limit


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class SearchSpec(Grown):
    """One architecture search. Paths are relative to the YAML file; a shipped spec may be named by its stem."""

    LATER: ClassVar[frozenset[str]] = frozenset(
        {"match", "speeds", "warm_start", "confirm", "seeds", "learning_rate", "base", "weights", "map", "blocks"}
    )
    _WRITTEN: ClassVar[frozenset[str]] = frozenset({"match", "warm_start", "confirm"})  # also where they say nothing

    kind: Literal["search"] = "search"
    format: Literal[1, 2] = 2
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
    base: str | None = None  # the model spec that every trial starts from; null: that of `weights`
    weights: str | None = None  # a run, a zoo entry or an imported folder, whose weights every trial begins with
    map: Annotated[list[str], BeforeValidator(_listed)] = []  # of tensors that do not fit: texts of `train --map`
    blocks: dict[Letter, AddedBlock] = {}  # beside those of the base model: copies with changes
    train: str  # the train spec that every trial and the baseline are trained with
    baseline: str | None = None  # a model spec that is trained with the same budget, to compare with
    variables: Annotated[dict[str, Variable], Field(min_length=1)]
    set: Annotated[dict[str, JsonValue], Field(min_length=1)]
    objectives: Annotated[list[str], Field(min_length=1, max_length=4)]
    constraints: list[str] = []
    match: Matched | None = None  # candidates are resized to the base model's cost
    speeds: Speeds | None = None  # how fast a machine trains, as `miniwin calibrate` prints it: for predicted times
    warm_start: Annotated[list[str], BeforeValidator(_listed)] = []  # studies, zoo entries, shipped models to try first
    budget: Budget
    seeds: Annotated[PositiveInt, Field(le=MOST_SEEDS)] = 1  # each trial, and the baseline, is trained so many times
    learning_rate: LearningRate = None  # how each of them gets a learning rate of its own
    sampler: SamplerSpec = TPESampler()
    pruner: PrunerSpec | None = None  # left out: halving, where all that is measured is loss
    rungs: list[Fraction] = RUNGS  # where a pruner judges a trial, as fractions of its tokens
    report_lengths: list[PositiveInt] | None = None  # null: 1, 2, 4, 8 and 16 times the training length
    eval_tokens: Annotated[Count, Field(ge=1)] = 65536  # measured at each length when a trial ends
    rung_eval_tokens: Annotated[Count, Field(ge=1)] = 16384  # measured at a rung
    confirm: ConfirmSpec | None = None  # the best trials and the baseline once more, on text that nothing has seen
    seed: Count = 0  # of the sampler and of the evaluation; a model's seed is the train spec's
    workers: PositiveInt = 2

    @model_validator(mode="before")
    @classmethod
    def _as_format_1_meant(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("format") == 1 and "pruner" not in data:
            return {**data, "pruner": None}
        return data

    @field_validator("base", "baseline", "weights")
    @classmethod
    def _no_word_for_nothing(cls, ref: str | None) -> str | None:
        if ref is not None and ref.strip().lower() in NOTHING:
            raise ValueError(f"got {shown(ref)}; expected a model, or null: write null, without quotes")
        return ref

    @model_validator(mode="after")
    def _beginning(self) -> SearchSpec:
        if self.weights is not None:
            return self
        if self.base is None or self.base == WEIGHTS:
            got = "missing" if self.base is None else f"got {self.base}"
            raise located("base", f"{got}; expected a model spec, or `weights`: a model that trials begin with")
        if self.baseline == WEIGHTS:
            raise located("baseline", "got weights, and there are none: set `weights`, or name a model spec")
        if self.map:
            raise located("map", f"got {self.map[0]} without `weights`; expected the model whose tensors it is about")
        if self.budget.tokens_per_trial == 0:
            raise located(
                "budget.tokens_per_trial",
                "got 0; expected at least 1, or `weights`, a model to begin with, which is then measured as it is",
            )
        return self

    @field_validator("variables")
    @classmethod
    def _names(cls, variables: dict[str, Any]) -> dict[str, Any]:
        for name in variables:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
                raise ValueError(
                    f"variable {name!r} is not a name: expected letters, digits and _, starting with a letter"
                )
            if name in METRICS or (name in FUNCTION_NAMES and name != "place"):  # an older search may have a `place`
                raise ValueError(f"variable {name!r} has the name of a metric or function: call it something else")
            if name in (
                "and",
                "or",
                "not",
                "if",
                "else",
                "True",
                "False",
                "None",
                "in",
                "is",
                "for",
                "lambda",
            ):
                raise ValueError(f"variable {name!r} is a word of the expression language: call it something else")
        if problems := link_problems(variables):
            raise located_all(problems)
        return variables

    @field_validator("set")
    @classmethod
    def _readable(cls, value: dict[str, Any]) -> dict[str, Any]:
        def check(path: str) -> None:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*", path):
                raise UserError(
                    f"{path!r} is not a path into a spec; expected names joined by dots, such as "
                    "blocks.S.attention.window"
                )
            if isinstance(value[path], str):
                Expression(value[path])

        _each({path: path for path in value}, check)
        return value

    @field_validator("objectives")
    @classmethod
    def _objectives(cls, value: list[str]) -> list[str]:
        seen: set[str] = set()

        def check(text: str) -> None:
            name = Objective.parse(text).name
            if name in seen:
                raise UserError(f"the objective {name} is there twice")
            seen.add(name)

        _each(dict(enumerate(value)), check)
        return value

    @field_validator("constraints")
    @classmethod
    def _constraints(cls, value: list[str]) -> list[str]:
        def check(text: str) -> None:
            if measured := measured_in(text):
                raise UserError(f"constraint {text!r}: {measured} is known only after training; make it an objective")
            expression = Expression(text)
            if not expression.is_test():
                raise UserError(
                    f"constraint {text!r} is not a comparison; expected something like 'parameters <= 1.2e6'"
                )

        _each(dict(enumerate(value)), check)
        return value

    @field_validator("rungs")
    @classmethod
    def _rungs(cls, value: list[float]) -> list[float]:
        if any(not 0 < rung < 1 for rung in value) or sorted(set(value)) != value:
            raise ValueError(
                f"rungs are increasing fractions of the budget between 0 and 1, such as [0.25, 0.5]; got {value}"
            )
        return value

    @model_validator(mode="after")
    def _usual_pruner(self) -> SearchSpec:
        """What is left out is chosen here, so that a study says what it does."""
        if "pruner" in self.model_fields_set or not self._learns_by_loss():
            return self
        chosen: dict[str, Any] = {"pruner": HalvingPruner(reduction=THIRD)}
        if "rungs" not in self.model_fields_set:
            chosen["rungs"] = THIRDS
        elif not self.rungs:
            return self
        self.__dict__.update(chosen)  # the instance is frozen, and nobody has it yet
        self.__pydantic_fields_set__.update(chosen)
        return self

    def _learns_by_loss(self) -> bool:
        """Whether early losses foretell the order of trials: all that is measured is loss, at the same tokens."""
        steps = any(f"train.{name}" in self.set for name in ("batch_size", "seq_len", "gradient_accumulation"))
        measured = [one for one in self.parsed_objectives if one.measured]
        trained = self.budget.tokens_per_trial != 0
        return trained and not steps and bool(measured) and all(one.row.how == "text" for one in measured)

    @model_validator(mode="after")
    def _pruning(self) -> SearchSpec:
        pruner = self.pruner
        if pruner is None:
            return self
        if len(self.objectives) > 1 and not isinstance(pruner, HalvingPruner | HyperbandPruner):
            raise located(
                "pruner.type",
                f"got {pruner.type}, which compares one value of each trial, and there are {len(self.objectives)} "
                "objectives: use {type: halving}, which takes several, leave one objective, or set pruner: null",
            )
        if not any(objective.at_rungs for objective in self.parsed_objectives):
            known = "measured only after training" if self.parsed_objectives[0].measured else "known from the spec"
            why = f"{self.objectives[0]!r} is {known}" if len(self.objectives) == 1 else "none is measured on the way"
            raise ValueError(f"a pruner needs an objective that training changes; {why}: set pruner: null")
        if getattr(pruner, "min_tokens", None) is not None:
            if self.rungs != RUNGS:
                raise located("rungs", "pruner.min_tokens says where the rungs are: leave out rungs, or min_tokens")
        elif not self.rungs:
            raise ValueError("a pruner needs rungs at which to judge; expected something like rungs: [0.25, 0.5]")
        return self

    @model_validator(mode="after")
    def _sampling(self) -> SearchSpec:
        if problem := self.sampler.problem(self.variables, len(self.objectives)):
            raise located(f"sampler.{problem[0]}", problem[1])
        return self

    @model_validator(mode="after")
    def _predicting(self) -> SearchSpec:
        if self.speeds is not None:
            return self
        asked = [(f"objectives.{place}", one.name) for place, one in enumerate(self.parsed_objectives)]
        for place, text in enumerate(self.constraints):
            asked += [(f"constraints.{place}", name) for name in Expression(text).names]
        asked += [] if self.match is None else [("match", self.match.cost)]
        for where, name in asked:
            if needs_speeds(name):
                raise located(
                    where,
                    f"{name} is predicted by constants of a machine, and there are none: put what `miniwin calibrate "
                    f"{self.train}` prints into this file, as `speeds`",
                )
        return self

    @model_validator(mode="after")
    def _confirming(self) -> SearchSpec:
        if self.confirm is not None and self.confirm.top > self.budget.trials:
            raise located(
                "confirm.top",
                f"got {self.confirm.top}, more than there are trials; expected at most budget.trials "
                f"({self.budget.trials})",
            )
        return self

    def _unsaid(self, name: str, default: Any) -> bool:
        return name not in self._WRITTEN and super()._unsaid(name, default)

    def rung_tokens(self, tokens: int) -> list[int]:
        """Where a trial with a budget of so many tokens is measured before its end, in tokens."""
        pruner = self.pruner
        if isinstance(pruner, HalvingPruner | HyperbandPruner) and pruner.min_tokens is not None:
            return growing(pruner.min_tokens, pruner.reduction, tokens)
        return sorted({max(1, round(fraction * tokens)) for fraction in self.rungs})

    def misfits(self, tokens: int, step: int) -> list[tuple[tuple[str, ...], str]]:
        """What of the pruner does not fit the budget of a trial, and a step, in tokens: each a path and a message."""
        pruner = self.pruner
        if not isinstance(pruner, HalvingPruner | HyperbandPruner):
            return []
        found: list[tuple[tuple[str, ...], str]] = []
        least, rungs = pruner.min_tokens, len(self.rung_tokens(tokens))
        if least is not None and not step <= least < tokens:
            found.append(
                (
                    ("pruner", "min_tokens"),
                    f"got {least:,}, and no rung fits: a trial has {tokens:,} tokens, and a step of training {step:,}; "
                    "expected at least a step and less than a trial",
                )
            )
        elif isinstance(pruner, HalvingPruner) and pruner.brackets > rungs + 1:
            found.append(
                (
                    ("pruner", "brackets"),
                    f"got {pruner.brackets}, and {rungs} rungs have room for {rungs + 1}: a bracket begins at each "
                    "rung, and one has none; take fewer brackets, or more rungs",
                )
            )
        return found

    @property
    def parsed_objectives(self) -> tuple[Objective, ...]:
        return tuple(Objective.parse(text) for text in self.objectives)

    @property
    def needs_torch(self) -> bool:
        """Whether weights have to fit, or a constraint or an objective asks for frequencies of a rotary encoding."""
        if self.weights is not None:
            return True
        names = [name for text in self.constraints for name in Expression(text).names]
        names += [objective.metric for objective in self.parsed_objectives]
        rows = [find(name.partition("@")[0]) for name in names]
        return any(row is not None and row.how == "rotation" for row in rows)


def _each(items: Mapping[Any, str], check: Callable[[str], None]) -> None:
    """Check every item of a field; what is wrong is said at the item's own place."""
    problems = []
    for key, item in items.items():
        try:
            check(item)
        except UserError as error:
            problems.append((str(key), str(error)))
    if problems:
        raise located_all(problems)

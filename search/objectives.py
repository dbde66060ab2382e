"""How the values of objectives are found, and how they are shown.

The metrics stand in specs/objectives.py, a row each. A row says how its metric is found: from the spec, from
the rotary encodings, from the losses by length, by a task, or by timing. Each of these ways has a function here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from miniwin.display.formats import bits_text, bytes_text, count_text, digits_text, percent_text
from miniwin.specs import ModelSpec, SearchSpec, TrainSpec
from miniwin.specs.objectives import METRICS, Metric, Objective, costs, task_of
from miniwin.specs.speeds import Speeds

if TYPE_CHECKING:
    from miniwin.evaluation.task_scores import TaskScore
    from miniwin.evaluation.tasks import Task
    from miniwin.language_model import LanguageModel

    Losses = Mapping[int, float]  # nats per byte, by length

SPEED_LENGTH = 2048  # of the context that decoding is timed at
TASK_TOKENS = 2**17  # of all examples of a task at one length together, about
FEWEST, MOST = 16, 64  # examples of a task at one length

# By the unit of a metric: how a value is written, and with how many more digits than usual.
TEXTS: dict[str, Callable[..., str]] = {
    "count": count_text,
    "bytes": bytes_text,
    "bits": bits_text,
    "nats": bits_text,
    "share": percent_text,
    "digits": digits_text,
}


@dataclass(frozen=True)
class Asked:
    """What a value is asked of: a metric at a length in tokens (0: none) of a model, which is trained if need be.

    tasks: those that it was trained on. speeds: those that a study predicts times by.
    """

    metric: Metric
    length: int
    spec: ModelSpec
    model: LanguageModel | None
    losses: Losses
    tasks: Sequence[Task]
    speeds: Speeds | None = None


def _computed(asked: Asked) -> float:
    assert asked.metric.compute is not None
    return asked.metric.compute(asked.spec, asked.length)


def _predicted(asked: Asked) -> float:
    assert asked.speeds is not None, "a search that predicts has constants to predict by"
    return asked.speeds.seconds(asked.spec, asked.length)


def _of_rotation(asked: Asked) -> float:
    from miniwin.explain.soundness import worst  # torch: a search is described without it otherwise

    return worst(asked.spec, asked.metric.name, asked.length)


def _loss(asked: Asked) -> float:
    return asked.losses[asked.length] * asked.metric.per_nat


def _scored(asked: Asked, split: str = "valid") -> TaskScore:
    """A task's score. The `test` split stays untouched by what chooses among models."""
    from miniwin.evaluation.task_scores import score_task

    assert asked.model is not None
    examples = max(FEWEST, min(MOST, TASK_TOKENS // asked.length))
    return score_task(asked.model, task_of(asked.metric, asked.tasks), asked.length, examples=examples, split=split)


def _decoding_speed(asked: Asked) -> float:
    from miniwin.evaluation.speed import measure_speed

    assert asked.model is not None
    return measure_speed(asked.model, SPEED_LENGTH).decode_tokens_per_second


FOUND: dict[str, Callable[[Asked], float]] = {
    "spec": _computed,
    "predicted": _predicted,
    "rotation": _of_rotation,
    "text": _loss,
    "task": lambda asked: _scored(asked).accuracy,
    "task nats": lambda asked: _scored(asked).nats_per_answer,
    "decoding": _decoding_speed,
}


def is_cost(name: str) -> bool:
    """Whether a name in an expression is a cost, such as `cache_bytes@4096`, rather than a variable."""
    return name.partition("@")[0] in costs()


def cost(name: str, model: ModelSpec, trained: int, speeds: Speeds | None = None) -> float:
    """A cost by its name in an expression: `parameters`, `cache_bytes@4096`, `cache_bytes@16x`.

    trained: the training length of the study's train spec. speeds: what the study predicts times by.
    """
    metric = METRICS[name.partition("@")[0]]
    return value(Objective("minimize", metric.name, _written(name)), trained, model, speeds=speeds)


def _written(name: str) -> int | str | None:
    """The length in a name, as an objective has it."""
    _, at, length = name.partition("@")
    return None if not at else length if length.endswith("x") else int(length)


def value(
    objective: Objective,
    trained: int,
    spec: ModelSpec,
    model: LanguageModel | None = None,
    losses: Losses | None = None,
    tasks: Sequence[Task] = (),
    speeds: Speeds | None = None,
) -> float:
    """The value of an objective. trained: the training length of the study's train spec. tasks: those in its data.
    speeds: what the study predicts times by.

    model: trained, for what is measured. losses: with the length of the objective, if it is a loss.
    """
    asked = Asked(objective.row, objective.length(trained), spec, model, losses or {}, tasks, speeds)
    return FOUND[asked.metric.how](asked)


def answered(
    objective: Objective, trained: int, spec: ModelSpec, model: LanguageModel, tasks: Sequence[Task], split: str
) -> TaskScore:
    """What a model answers to each example of the objective's task, on a split; the rest as of `value`."""
    return _scored(Asked(objective.row, objective.length(trained), spec, model, {}, tasks), split)


def is_loss(objective: Objective) -> bool:
    """Whether the losses by length give the value of the objective."""
    return objective.row.how == "text"


def loss_lengths(objectives: Sequence[Objective], trained: int) -> list[int]:
    """The lengths at which the loss has to be measured for these objectives."""
    return [objective.length(trained) for objective in objectives if is_loss(objective)]


def report_lengths(spec: SearchSpec, train: TrainSpec) -> list[int]:
    """The lengths at which finished trials are measured: those asked for, and those of the objectives."""
    asked = spec.report_lengths or [train.longest * times for times in (1, 2, 4, 8, 16)]
    return sorted({*asked, *loss_lengths(spec.parsed_objectives, train.longest)})


def eval_tokens(spec: SearchSpec, train: TrainSpec) -> int:
    """Tokens measured at each length. Every length gets the same text, so at least as many as the longest."""
    return max(spec.eval_tokens, *report_lengths(spec, train))


def at_rungs(objectives: Sequence[Objective], trained: int) -> list[Objective]:
    """The objectives that are measured while training; without any, the loss at the training length."""
    changing = [objective for objective in objectives if objective.at_rungs]
    return changing or [Objective("minimize", "loss", trained)]


def chief(objectives: Sequence[Objective]) -> Objective:
    """The objective that chooses the best trial of a front: the first loss, or without a loss the first of all."""
    return next(filter(is_loss, objectives), objectives[0])

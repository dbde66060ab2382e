"""The metrics that a search asks for, a row each: how a metric is known of an architecture, and how it is shown.

A metric is computed from the spec or measured on the trained model. Its name, whether it needs a length and which
direction is better stand in miniwin/specs/objectives.py. No other file asks which metric it has before it: a new metric
is a name there and a row here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from miniwin.display.formats import bits_text, bytes_text, count_text, digits_text, percent_text
from miniwin.specs import ModelSpec
from miniwin.specs.objectives import COSTS, SOUNDNESS, Objective

if TYPE_CHECKING:
    from miniwin.language_model import LanguageModel

    Losses = Mapping[int, float]  # nats per byte, by length

SPEED_LENGTH = 2048  # of the context that decoding is timed at


@dataclass(frozen=True)
class Metric:
    """One row. A metric has either `compute` or `measure`; the last argument of both is the length."""

    name: str
    title: str  # in a report; {at} becomes " at 4,096 tokens"
    text: Callable[..., str]  # how a value is written, and with how many more digits than usual
    compute: Callable[[ModelSpec, int], float] | None = None
    measure: Callable[[LanguageModel, Losses, int], float] | None = None
    factor: float = 1.0  # from the value that is stored to the one that is shown
    binary: bool = False  # shown on an axis of powers of two
    is_loss: bool = False  # taken from the losses by length


def _soundness(name: str, model: ModelSpec, length: int) -> float:
    from miniwin.explain.soundness import worst  # torch: a search is described without it otherwise

    return worst(model, name, length)


def _recall(model: LanguageModel, losses: Losses, length: int) -> float:
    from miniwin.evaluation.recall import recall_at

    return recall_at(model, length)


def _decoding_speed(model: LanguageModel, losses: Losses, length: int) -> float:
    from miniwin.evaluation.speed import measure_speed

    return measure_speed(model, SPEED_LENGTH).decode_tokens_per_second


def _of_rotation(name: str) -> Metric:
    title = name.removeprefix("rope_").replace("_", " ")
    return Metric(name, f"RoPE {title}{{at}} (1 is the bound)", digits_text, partial(_soundness, name))


METRICS = {
    metric.name: metric
    for metric in (
        Metric("parameters", "parameters", count_text, lambda model, _: model.parameters()),
        Metric("num_layers", "num layers", count_text, lambda model, _: model.num_layers),
        Metric("cache_bytes", "cache{at}", bytes_text, lambda model, length: model.cache_bytes(length), binary=True),
        Metric("forward_flops", "forward FLOPs per token{at}", count_text, lambda model, n: model.forward_flops(n)),
        Metric("training_flops", "training FLOPs per token{at}", count_text, lambda model, n: model.training_flops(n)),
        *map(_of_rotation, SOUNDNESS),
        Metric(
            "loss",
            "bits per byte{at}",
            bits_text,
            measure=lambda model, losses, length: losses[length],
            factor=1 / math.log(2),
            is_loss=True,
        ),
        Metric(
            "bits_per_byte",
            "bits per byte{at}",
            bits_text,
            measure=lambda model, losses, length: losses[length] / math.log(2),
            is_loss=True,
        ),
        Metric("recall", "recall{at}", percent_text, measure=_recall),
        Metric("decode_tokens_per_second", "tokens decoded per second", count_text, measure=_decoding_speed),
    )
}


def is_cost(name: str) -> bool:
    """Whether a name in an expression is a cost, such as `cache_bytes@4096`, rather than a variable."""
    return name.partition("@")[0] in COSTS


def cost(name: str, model: ModelSpec) -> float:
    """A cost by its name in an expression: `parameters`, `cache_bytes@4096`, ..."""
    metric, _, length = name.partition("@")
    compute = METRICS[metric].compute
    assert compute is not None
    return compute(model, int(length) if COSTS[metric] else 0)


def value(objective: Objective, spec: ModelSpec, model: LanguageModel, losses: Losses) -> float:
    """The value of an objective for a trained model. losses: with the length of the objective, if it is a loss."""
    measure = METRICS[objective.metric].measure
    if measure is None:
        return cost(objective.name, spec)
    return measure(model, losses, objective.length or 0)


def is_loss(objective: Objective) -> bool:
    """Whether the losses by length give the value of the objective."""
    return METRICS[objective.metric].is_loss


def loss_lengths(objectives: Sequence[Objective]) -> list[int]:
    """The lengths at which the loss has to be measured for these objectives."""
    return [objective.length for objective in objectives if is_loss(objective) and objective.length]


def at_rungs(objectives: Sequence[Objective], seq_len: int) -> list[Objective]:
    """The objectives that are measured while training; without any, the loss at the training length."""
    changing = [objective for objective in objectives if objective.at_rungs]
    return changing or [Objective("minimize", "loss", seq_len)]


def chief(objectives: Sequence[Objective]) -> Objective:
    """The objective that chooses the best trial of a front: the first loss, or without a loss the first of all."""
    return next(filter(is_loss, objectives), objectives[0])

"""Every metric that an objective may name, a row each; and objectives.

    minimize loss@4096          Objective("minimize", "loss", 4096)
    maximize last-write@16x     at 16 times the training length, that of the study's train spec
    minimize cache_bytes@131072

Each task of miniwin/evaluation/tasks has two rows without being named here: `last-write`, the share of its answers that
are right, and `last-write-nats`, the nats of an answer. So a plugin's task is an objective too.

`how` says how a metric is found. What each way does stands in miniwin/search/objectives.py. No other file asks which
metric it has before it: a new metric is a row here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from miniwin.blocks.messages.nearest import nearest
from miniwin.evaluation.tasks import TASKS, Task
from miniwin.specs.base import UserError
from miniwin.specs.expressions import is_length
from miniwin.specs.lengths import in_tokens, times
from miniwin.specs.model import ModelSpec

NATS = "-nats"  # after the name of a task: the nats of its right answers, in place of their share

How = Literal["spec", "predicted", "rotation", "text", "task", "task nats", "decoding"]
MEASURED: tuple[How, ...] = ("text", "task", "task nats", "decoding")  # on the trained model; the others need no model
WHILE_TRAINING: tuple[How, ...] = ("text", "task", "task nats")  # also at each rung: a pruner can judge by them


@dataclass(frozen=True)
class Metric:
    """One row. by_length: it needs a length (`name@length`). better: None where either direction may be wanted.

    title: in a report; {at} becomes " at 4,096 tokens". unit: how values are written. factor: from the value that is
    stored to the one that is shown. compute: of a metric that the spec alone gives. per_nat: of a loss, the value of
    one nat per byte.
    """

    name: str
    how: How
    title: str
    unit: Literal["count", "bytes", "bits", "share", "nats", "digits"]
    by_length: bool = True
    better: Literal["lower", "higher"] | None = None
    factor: float = 1.0
    compute: Callable[[ModelSpec, int], float] | None = None
    per_nat: float = 1.0

    @property
    def measured(self) -> bool:
        """Whether a model has to be trained to know it."""
        return self.how in MEASURED


def _of_spec(
    name: str, title: str, compute: Callable[[ModelSpec, int], float], unit: Literal["count", "bytes"]
) -> Metric:
    return Metric(name, "spec", title, unit, "{at}" in title, compute=compute)


def _of_rotation(name: str) -> Metric:
    """At most 1 if every rotary layer is sound, 0 if no layer is rotary (miniwin/explain/soundness.py)."""
    return Metric(
        name, "rotation", f"RoPE {name.removeprefix('rope_').replace('_', ' ')}{{at}} (1 is the bound)", "digits"
    )


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("loss", "text", "bits per byte{at}", "bits", better="lower", factor=1 / math.log(2)),
        Metric("bits_per_byte", "text", "bits per byte{at}", "bits", better="lower", per_nat=1 / math.log(2)),
        Metric("decode_tokens_per_second", "decoding", "tokens decoded per second", "count", False, "higher"),
        _of_spec("parameters", "parameters", lambda model, _: model.parameters(), "count"),
        _of_spec("num_layers", "num layers", lambda model, _: model.num_layers, "count"),
        _of_spec("cache_bytes", "cache{at}", lambda model, n: model.cache_bytes(n), "bytes"),
        _of_spec("forward_flops", "forward FLOPs per token{at}", lambda model, n: model.forward_flops(n), "count"),
        _of_spec("training_flops", "training FLOPs per token{at}", lambda model, n: model.training_flops(n), "count"),
        Metric("train_time", "predicted", "predicted seconds of training a token{at}", "digits", better="lower"),
        *map(_of_rotation, ("rope_aliasing", "rope_stability", "rope_cosine_bound", "rope_precision")),
    )
}


def find(name: str) -> Metric | None:
    """The row of a metric, by its name without a length; None if there is no such metric."""
    if name in METRICS:
        return METRICS[name]
    if name in TASKS.names():
        return Metric(name, "task", f"{name}{{at}}", "share", better="higher")
    if name.removesuffix(NATS) in TASKS.names():
        return Metric(name, "task nats", f"nats of an answer, {name.removesuffix(NATS)}{{at}}", "nats", better="lower")
    return None


def task_of(metric: Metric, trained_on: Sequence[Task] = ()) -> Task:
    """The task that a metric is about: as it is trained on, if there is one such; else with its default fields.

    Raises:
        UserError: the training data have several tasks of this type.
    """
    name = metric.name.removesuffix(NATS) if metric.how == "task nats" else metric.name
    same = [task for task in trained_on if task.type == name]
    if len(same) > 1:
        raise UserError(f"{metric.name}: the training data have {len(same)} tasks {name}; expected at most one")
    task = same[0] if same else TASKS[name]()
    assert isinstance(task, Task)
    return task


def costs() -> dict[str, Metric]:
    """The rows of what is known without training: what constraints may name."""
    return {name: metric for name, metric in METRICS.items() if not metric.measured}


def needs_speeds(name: str) -> bool:
    """Whether a name in an expression, or of an objective, is predicted by the constants of a machine."""
    row = METRICS.get(name.partition("@")[0])
    return row is not None and row.how == "predicted"


def measured_in(text: str) -> str | None:
    """The first name in an expression that is known only after training, such as `loss@4096`; None if there is none."""
    for name in re.findall(r"[A-Za-z_](?:[\w-]*\w)?@\w+", text):
        metric = find(name.partition("@")[0])
        if metric is not None and metric.measured:
            return str(name)
    return None


@dataclass(frozen=True)
class Objective:
    """`minimize loss@4096`: a direction, and what is measured or computed at which length.

    at: the length as it was written, a number of tokens or a multiple such as `16x`; None where the metric has none.
    """

    direction: Literal["minimize", "maximize"]
    metric: str
    at: int | str | None

    @property
    def row(self) -> Metric:
        found = find(self.metric)
        assert found is not None, "an objective names a metric that there is"
        return found

    @property
    def name(self) -> str:
        """The key of its value in trial records: `loss@4096`, `recall@16x`."""
        return self.metric if self.at is None else f"{self.metric}@{self.at}"

    def length(self, trained: int) -> int:
        """The length in tokens; 0 where the metric has none. trained: the training length of the study's train spec."""
        return 0 if self.at is None else in_tokens(self.at, trained)

    @property
    def measured(self) -> bool:
        """Whether a model has to be trained to know it."""
        return self.row.measured

    @property
    def at_rungs(self) -> bool:
        """Whether it is also measured while a model is trained."""
        return self.row.how in WHILE_TRAINING

    def check_room(self, trained: int, trained_on: Sequence[Task] = ()) -> None:
        """Raise UserError if the length has no room for an example of the task, or no meaning."""
        length = self.length(trained)
        if self.row.how in ("task", "task nats"):
            task_of(self.row, trained_on).check_length(length)

    @classmethod
    def parse(cls, text: str) -> Objective:
        words = text.split()
        if len(words) != 2 or words[0] not in ("minimize", "maximize"):
            raise UserError(
                f"objective {text!r} cannot be read; expected 'minimize' or 'maximize' and a metric, "
                "such as 'minimize loss@4096'"
            )
        name, at, length = words[1].partition("@")
        metric = find(name)
        if metric is None:
            names = [*METRICS, *TASKS.names(), *(task + NATS for task in TASKS.names())]
            near = nearest(name, names)
            hint = f"did you mean {near!r}? " if near else ""
            raise UserError(
                f"objective {text!r}: unknown metric {name!r}; {hint}there are: "
                + ", ".join(row.name + ("@N" if row.by_length else "") for row in METRICS.values())
                + f"; the tasks ({', '.join(TASKS.names())}), as TASK@N and TASK{NATS}@N"
            )
        if metric.by_length and not is_length(length):
            raise UserError(
                f"objective {text!r}: {name} needs a length; expected {name}@N, such as {name}@4096, or a multiple of "
                f"the training length, such as {name}@16x"
            )
        if at and not metric.by_length:
            raise UserError(f"objective {text!r}: {name} does not depend on a length; write {words[0]} {name}")
        if metric.better == ("lower" if words[0] == "maximize" else "higher"):
            other = "minimize" if words[0] == "maximize" else "maximize"
            raise UserError(f"objective {text!r}: {name} is better when {metric.better}; write {other} {words[1]}")
        written = None if not metric.by_length else length if times(length) is not None else int(length)
        return cls(words[0], name, written)  # type: ignore[arg-type]

"""The metrics that an objective may name: whether a metric needs a length, and which direction is better.

    minimize loss@4096    Objective("minimize", "loss", 4096)

How a metric is computed, measured and shown stands in miniwin/search/objectives.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from miniwin.blocks.messages.nearest import nearest
from miniwin.specs.base import UserError
from miniwin.specs.expressions import is_length

NATS = "_nats"  # after the name of a task: the nats of its right answers, in place of their share
# Of rotary encodings (miniwin/explain/soundness.py): at most 1 if every layer is sound, 0 if no layer is rotary.
SOUNDNESS = ("rope_aliasing", "rope_stability", "rope_cosine_bound", "rope_precision")
# Name -> whether the metric needs a length (`name@length`).
COSTS: dict[str, bool] = {  # computed from the spec alone
    "parameters": False,
    "num_layers": False,
    "cache_bytes": True,
    "forward_flops": True,
    "training_flops": True,
    **dict.fromkeys(SOUNDNESS, True),
}
MEASURES: dict[str, bool] = {  # measured on the trained model
    "loss": True,
    "bits_per_byte": True,
    "recall": True,
    "decode_tokens_per_second": False,
}
_WHILE_TRAINING = {"loss", "bits_per_byte", "recall"}  # at each rung: a pruner can judge by them
_HIGHER_IS_BETTER = {"recall", "decode_tokens_per_second"}
_LOWER_IS_BETTER = {"loss", "bits_per_byte"}


@dataclass(frozen=True)
class Objective:
    """`minimize loss@4096`: a direction, and what is measured or computed at which length."""

    direction: Literal["minimize", "maximize"]
    metric: str
    length: int | None

    @property
    def name(self) -> str:
        """The key of its value in trial records: `loss@4096`."""
        return self.metric if self.length is None else f"{self.metric}@{self.length}"

    @property
    def measured(self) -> bool:
        """Whether a model has to be trained to know it."""
        return self.metric in MEASURES

    @property
    def at_rungs(self) -> bool:
        """Whether it is also measured while a model is trained."""
        return self.metric in _WHILE_TRAINING

    @classmethod
    def parse(cls, text: str) -> Objective:
        words = text.split()
        if len(words) != 2 or words[0] not in ("minimize", "maximize"):
            raise UserError(
                f"objective {text!r} cannot be read; expected 'minimize' or 'maximize' and a metric, "
                "such as 'minimize loss@4096'"
            )
        name, at, length = words[1].partition("@")
        known = {**MEASURES, **COSTS}
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near!r}? " if near else ""
            raise UserError(
                f"objective {text!r}: unknown metric {name!r}; {hint}there are: "
                + ", ".join(metric + ("@N" if long else "") for metric, long in known.items())
            )
        if known[name] and not is_length(length):
            raise UserError(f"objective {text!r}: {name} needs a length; expected {name}@N, such as {name}@4096")
        if at and not known[name]:
            raise UserError(f"objective {text!r}: {name} does not depend on a length; write {words[0]} {name}")
        if name in (_LOWER_IS_BETTER if words[0] == "maximize" else _HIGHER_IS_BETTER):
            better, other = ("lower", "minimize") if words[0] == "maximize" else ("higher", "maximize")
            raise UserError(f"objective {text!r}: {name} is better when {better}; write {other} {words[1]}")
        return cls(words[0], name, int(length) if known[name] else None)  # type: ignore[arg-type]

"""What a training run is: data, budget in tokens, optimizer, schedule, precision, and when to give up.

The budget is counted in tokens, not in steps or epochs, so that runs with different batch sizes stay
comparable. Every fraction of the schedule is a fraction of all optimizer steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from miniwin.specs.base import Count, Fraction, PositiveInt, PositiveReal, Real, Strict
from miniwin.specs.data import DataSpec
from miniwin.specs.model import Name


class OptimizerSpec(Strict):
    """AdamW (arXiv:1711.05101). Weight decay reaches matrices only: not embeddings, gains or scales."""

    lr: PositiveReal = 3e-3
    beta1: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[Real, Field(ge=0, lt=1)] = 0.95
    eps: PositiveReal = 1e-8
    weight_decay: Annotated[Real, Field(ge=0)] = 0.1


class CosineSchedule(Strict):
    """Linear warm-up, then half a cosine from the peak down to `final` of it (arXiv:1608.03983)."""

    type: Literal["cosine"] = "cosine"
    warmup: Fraction = 0.05
    final: Fraction = 0.1


class WSDSchedule(Strict):
    """Warm-up, stable, decay (arXiv:2404.06395): the peak is held, then falls linearly in the last steps."""

    type: Literal["wsd"] = "wsd"
    warmup: Fraction = 0.05
    decay: Fraction = 0.2
    final: Fraction = 0.0

    @model_validator(mode="after")
    def _fits(self) -> WSDSchedule:
        if self.warmup + self.decay > 1:
            raise ValueError(
                f"warmup ({self.warmup:g}) and decay ({self.decay:g}) are fractions of all steps, and add up "
                f"to {self.warmup + self.decay:g}; expected at most 1: make one of them smaller"
            )
        return self


ScheduleSpec = Annotated[CosineSchedule | WSDSchedule, Field(discriminator="type")]


class StopSpec(Strict):
    """When a run is hopeless: `patience` steps in a row with a loss more than `loss_spike` nats above the
    median of the losses before them. A loss or gradient that is not a number ends any run at once."""

    loss_spike: PositiveReal | None = 3.0
    patience: PositiveInt = 50


class TrainSpec(Strict):
    """One training run, without the model."""

    kind: Literal["train"] = "train"
    format: Literal[1] = 1
    name: Name
    data: DataSpec
    tokenizer: str = "byte"  # or the path of a Hugging Face tokenizer.json, relative to the YAML file
    seq_len: PositiveInt = 512
    batch_size: PositiveInt = 8  # sequences in one forward and backward pass
    gradient_accumulation: PositiveInt = 1  # passes in one optimizer step
    tokens: PositiveInt
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: ScheduleSpec = CosineSchedule()
    clip_grad_norm: PositiveReal | None = 1.0
    dtype: Literal["float32", "bfloat16"] = "float32"  # bfloat16: autocast; weights stay float32
    seed: Count = 0
    log_every: PositiveInt = 10  # optimizer steps between lines of metrics.jsonl
    checkpoint_seconds: Annotated[Real, Field(ge=0)] = 60.0  # 0: after every step
    stop: StopSpec = StopSpec()

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimizer step sees."""
        return self.seq_len * self.batch_size * self.gradient_accumulation

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole budget: the last one may go past it."""
        return -(-self.tokens // self.tokens_per_step)

    def resolved(self, base: Path) -> TrainSpec:
        """The same run with paths that no longer depend on where the YAML file was."""
        found: dict[str, Any] = {
            field: tuple(str(base / path) for path in paths)
            for field in ("paths", "valid_paths")
            if (paths := getattr(self.data, field, None)) is not None
        }
        tokenizer = self.tokenizer if self.tokenizer == "byte" else str(base / self.tokenizer)
        return self.model_copy(update={"data": self.data.model_copy(update=found), "tokenizer": tokenizer})

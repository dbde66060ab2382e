"""What a training run is: data, budget in tokens, optimizer, schedule, precision, and when to give up.

Fields that older files do not have (`LATER`) are written only where they differ from their default. So the hashes of
older runs and trials stay what they were.

The budget is counted in tokens, not in steps or epochs, so that runs with different batch sizes stay
comparable. Every fraction of the schedule is a fraction of all optimizer steps.
"""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    WrapValidator,
    model_validator,
)

from miniwin.blocks.positions.base import located
from miniwin.specs.base import (
    MOST_TOKENS,
    Count,
    Fraction,
    Grown,
    PositiveInt,
    PositiveReal,
    Real,
    Seed,
    Strict,
    any_name,
    user_path,
)
from miniwin.specs.data import DataSpec, MixtureData, has_text
from miniwin.specs.model import Name
from miniwin.specs.train_distill import DistillSpec
from miniwin.specs.train_eval import EvalSpec
from miniwin.specs.train_lora import LoraSpec


def _several(lengths: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(lengths)) < max(2, len(lengths)):
        raise ValueError(f"got {list(lengths)}; expected one number, or a list of two or more different lengths")
    return lengths


def _how_many(lengths: Any) -> str:
    return "several" if isinstance(lengths, list | tuple) else "one"


def _no_name_twice(patterns: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(patterns)) < len(patterns):
        raise ValueError(f"got {list(patterns)}; expected each pattern once")
    return patterns


Lengths = Annotated[tuple[PositiveInt, ...], Field(strict=False), AfterValidator(_several)]
Weights = Annotated[tuple[PositiveReal, ...], Field(strict=False)]
Patterns = Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_no_name_twice)]


class OptimizerSpec(Grown):
    """AdamW (arXiv:1711.05101). Weight decay reaches matrices only: not embeddings, gains or scales.

    `type: muon`: Muon for the matrices of the layers, with the same lr and weight decay, and AdamW for the rest.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"type", "momentum"})

    type: Literal["adamw", "muon"] = "adamw"
    lr: PositiveReal = 3e-3
    beta1: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[Real, Field(ge=0, lt=1)] = 0.95
    eps: PositiveReal = 1e-8
    weight_decay: Annotated[Real, Field(ge=0)] = 0.1
    momentum: Annotated[Real, Field(ge=0, lt=1)] | None = None  # of Muon; null is 0.95

    @property
    def muon_momentum(self) -> float:
        return 0.95 if self.momentum is None else self.momentum

    @model_validator(mode="after")
    def _momentum_is_used(self) -> OptimizerSpec:
        if self.momentum is not None and self.type != "muon":
            raise ValueError(
                f"got momentum ({self.momentum:g}) with type: {self.type}; expected it with type: muon only. AdamW has "
                "beta1 instead"
            )
        return self


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


class TrainSpec(Grown):
    """One training run, without the model."""

    LATER: ClassVar[frozenset[str]] = frozenset(
        {"compile", "packing", "seq_len_weights", "eval", "freeze", "distill", "lora"}
    )

    kind: Literal["train"] = "train"
    format: Literal[1] = 1
    name: Name
    data: DataSpec
    # byte, or the path of a Hugging Face tokenizer.json, relative to the YAML file
    tokenizer: Annotated[str, WrapValidator(any_name)] = "byte"
    # several lengths: each pass has one of them, and as many tokens as any other pass (miniwin/data/passes.py)
    seq_len: Annotated[
        Annotated[PositiveInt, Tag("one")] | Annotated[Lengths, Tag("several")], Discriminator(_how_many)
    ] = 512
    seq_len_weights: Weights | None = None  # how often a pass has each length; null: equally often
    # stream: a row is a stretch of text, and a token sees the documents before its own. documents: a token sees its own
    # document only; the separator between two documents is the first token of the second
    packing: Literal["stream", "documents"] = "stream"
    batch_size: PositiveInt = 8  # sequences in one forward and backward pass; of several lengths, of the longest
    gradient_accumulation: PositiveInt = 1  # passes in one optimizer step
    tokens: Annotated[Count, Field(le=MOST_TOKENS)]  # 0: no step; only with `--from`
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: ScheduleSpec = CosineSchedule()
    clip_grad_norm: PositiveReal | None = 1.0
    # bfloat16: autocast; weights stay float32. auto: bfloat16 where the device has units for it, else float32
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    # torch.compile the layers. It costs seconds at the start: not for short runs, nor on a CPU with kernels of our own
    compile: bool = False
    seed: Seed = 0
    log_every: PositiveInt = 10  # optimizer steps between lines of metrics.jsonl
    checkpoint_seconds: Annotated[Real, Field(ge=0)] = 60.0  # 0: after every step
    stop: StopSpec = StopSpec()
    freeze: Patterns = ()  # globs over the names of parameters that stay as they are, such as layers.*.mlp.*
    lora: LoraSpec | None = None  # adapters are trained, and all else stays as it is; only with `--from`
    distill: DistillSpec | None = None  # a teacher; null: none
    eval: EvalSpec | None = None  # null: nothing is measured while training

    @model_validator(mode="after")
    def _can_be_evaluated(self) -> TrainSpec:
        if self.eval is not None:
            self.eval.check(self.lengths, self.tokens_per_step, has_text(self.data))
        return self

    @model_validator(mode="after")
    def _lora_freezes(self) -> TrainSpec:
        if self.lora is not None and self.freeze:
            raise located("freeze", "lora keeps all weights as they are; expected lora or freeze, not both")
        return self

    @model_validator(mode="after")
    def _lengths_fit(self) -> TrainSpec:
        weights, lengths = self.seq_len_weights, self.lengths
        if weights is not None and isinstance(self.seq_len, int):
            raise located(
                "seq_len_weights", f"seq_len is {self.seq_len}, one length; expected weights with several lengths only"
            )
        if weights is not None and len(weights) != len(lengths):
            raise located(
                "seq_len_weights", f"got {len(weights)} weights for {len(lengths)} lengths; expected one for each"
            )
        tokens = self.longest * self.batch_size
        if unequal := [length for length in lengths if tokens % length]:
            fit = [length for length in range(1, self.longest) if tokens % length == 0]
            near = sorted(fit, key=lambda length: abs(length - unequal[0]))[:3]
            raise located(
                "seq_len",
                f"a pass has batch_size * the longest = {tokens} tokens, which {unequal[0]} does not divide; expected "
                f"lengths that divide it, such as {', '.join(map(str, sorted(near)))}, or another batch_size",
            )
        return self

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths of sequences: one, unless seq_len is a list."""
        return (self.seq_len,) if isinstance(self.seq_len, int) else self.seq_len

    @property
    def longest(self) -> int:
        """The training length that lengths of evaluation are compared with."""
        return max(self.lengths)

    @property
    def length_weights(self) -> tuple[float, ...]:
        """How often a pass has each of `lengths`."""
        return self.seq_len_weights or (1.0,) * len(self.lengths)

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimizer step sees, whatever the lengths of its passes."""
        return self.longest * self.batch_size * self.gradient_accumulation

    @property
    def steps(self) -> int:
        """Optimizer steps that spend the whole budget of tokens. The last step may go past the budget."""
        return -(-self.tokens // self.tokens_per_step)

    def resolved(self, base: Path) -> TrainSpec:
        """The same run with every path joined to `base`, the folder of the YAML file."""
        tokenizer = self.tokenizer if self.tokenizer == "byte" else str(base / user_path(self.tokenizer))
        distill = None if self.distill is None else self.distill.resolved(base)
        return self.model_copy(update={"data": _resolved(self.data, base), "tokenizer": tokenizer, "distill": distill})


def _resolved(data: Any, base: Path) -> Any:
    """A data spec with every path joined to `base`."""
    if isinstance(data, MixtureData):
        parts = (part.model_copy(update={"data": _resolved(part.data, base)}) for part in data.parts)
        return data.model_copy(update={"parts": tuple(parts)})
    found: dict[str, Any] = {
        field: tuple(_under(base, path) for path in paths)
        for field in ("paths", "valid_paths", "test_paths")
        if (paths := getattr(data, field, None)) is not None
    }
    if getattr(data, "template", None) is not None:
        found["template"] = str(base / user_path(data.template))
    return data.model_copy(update=found)


def _under(base: Path, path: str) -> str:
    """A path, or a glob pattern, joined to `base`. Special characters of `base` itself match only themselves."""
    given = user_path(path)
    if given.is_absolute() or not glob.has_magic(path) or (base / given).exists():
        return str(base / given)
    return str(Path(glob.escape(str(base))) / given)

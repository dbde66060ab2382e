"""Which linear maps of a model get an adapter (`lora` in a train spec), how large it is, and what is refused.

An adapter stands around a linear map that is called: in the layers, every nn.Linear. Three kinds of matrices are used
without being called, and have no adapter: embeddings, the head, whose weight the loss reads, and routers.
Nothing here needs peft, or weights: the model may be on the meta device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase
from importlib.util import find_spec

import torch
from torch import nn

from miniwin.blocks import Decoder
from miniwin.blocks.matmul_library import Linear
from miniwin.blocks.messages.listing import some
from miniwin.blocks.messages.nearest import nearest
from miniwin.blocks.positions.base import PositionEncoding
from miniwin.specs import ModelSpec, TrainSpec, UserError
from miniwin.specs.train_lora import LoraSpec
from miniwin.training.start import Start
from miniwin.training.weight_rules import pattern_of


def check_lora(model: ModelSpec, train: TrainSpec, start: Start | None) -> None:
    """Raise UserError if `lora` cannot be honoured. start: the weights that the run begins with."""
    lora = train.lora
    if lora is None:
        return
    if start is None:
        raise UserError(
            "lora: adapters are trained around weights that stay as they are, and these are random; expected the "
            "weights of a model to begin with (--from)"
        )
    if find_spec("peft") is None:
        raise UserError("lora needs the package peft, which is not installed: pip install 'miniwin[peft]'")
    drawn = [m for m in start.moves if m.rule == "fresh" or (m.rows is not None and m.rows < m.shape[0])]
    if drawn:
        raise UserError(
            f"lora: {some([move.name for move in drawn], 3)} would be drawn anew, and stay so: adapters alone are "
            f"trained; expected weights that {start.origin.ref} has, or no lora"
        )
    with torch.device("meta"):
        targets(model.build(), lora)


def check_lora_group(train: TrainSpec, processes: int, distributed: str) -> None:
    """Raise UserError if several processes cannot train `lora` as one would."""
    if train.lora is None or processes == 1:
        return
    if distributed == "fsdp":
        raise UserError("distributed: fsdp does not share out adapters (lora); expected ddp")
    if train.lora.lora_dropout:
        raise UserError(
            f"lora.lora_dropout: got {train.lora.lora_dropout:g} with {processes} processes, and each of them would "
            "draw its own; expected 0, or one process"
        )


def check_rows(model: ModelSpec, train: TrainSpec, start: Start) -> None:
    """Raise UserError if DoRA meets a row of zeros: it has no direction. start: has read its weights."""
    if train.lora is None or not train.lora.use_dora:
        return
    with torch.device("meta"):
        found = targets(model.build(), train.lora)
    for name in found:
        zeros = int((start.matrix(f"{name}.weight") == 0).all(1).sum())
        if zeros:
            raise UserError(
                f"lora.use_dora: {name} of {start.origin.ref} has {zeros} rows of zeros, and DoRA divides a row by its "
                "size; expected use_dora: false, or target_modules without it"
            )


def targets(decoder: Decoder, lora: LoraSpec) -> dict[str, nn.Linear]:
    """The linear maps that get an adapter, by name, in the decoder's order.

    Raises:
        UserError: a pattern matches none, or the rank is larger than a map's own.
    """
    linear = {name: m for name, m in decoder.named_modules() if isinstance(m, nn.Linear | nn.Embedding)}
    fit = {name: m for name, m in linear.items() if type(m) in (nn.Linear, Linear) and name.startswith("layers.")}
    if lora.target_modules is None:
        inside = {id(m) for e in decoder.modules() if isinstance(e, PositionEncoding) for m in e.modules()}
        found = {name for name, module in fit.items() if id(module) not in inside}
    else:
        found = set()
        for place, pattern in enumerate(lora.target_modules):
            matched = {name for name in linear if _matches(name, pattern)}
            if not matched & set(fit):
                raise UserError(f"lora.target_modules.{place}: got '{pattern}', {_why(pattern, matched, fit)}")
            found |= matched & set(fit)
    chosen = {name: module for name, module in fit.items() if name in found}
    for name, module in chosen.items():
        if lora.r > min(module.weight.shape):
            size = " x ".join(map(str, module.weight.shape))
            raise UserError(
                f"lora.r: got {lora.r}; {pattern_of(name)} is {size}, and has a rank of {min(module.weight.shape)} at "
                f"most; expected no more, or target_modules without it"
            )
    return chosen  # type: ignore[return-value]


def adapter_table(model: ModelSpec, lora: LoraSpec) -> list[str]:
    """A line for each kind of adapter, and how much is trained."""
    with torch.device("meta"):
        decoder = model.build()
    found = targets(decoder, lora)
    kinds: Counter[tuple[str, str]] = Counter()
    for name, module in found.items():
        outs, ins = module.weight.shape
        kinds[(pattern_of(name), f"({outs}, {ins})")] += 1
    width = max(len(name) for name, _ in kinds)
    kind = "dora" if lora.use_dora else "lora"
    rows = [f"  {kind:<7}  {n:<{width}}  {count} x {shape}, rank {lora.r}" for (n, shape), count in kinds.items()]
    every, trained = sum(p.numel() for p in decoder.parameters()), adapter_parameters(found.values(), lora)
    return [*rows, f"  {trained:,} parameters of adapters are trained; the model's {every:,} stay as they are"]


def adapter_parameters(found: Iterable[nn.Linear], lora: LoraSpec) -> int:
    """How many numbers are trained: r rows and columns of each map, and of DoRA a size for each row."""
    return sum(lora.r * sum(m.weight.shape) + lora.use_dora * m.weight.shape[0] for m in found)


def _matches(name: str, pattern: str) -> bool:
    """Whether a glob fits the name, or its end."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _why(pattern: str, matched: set[str], fit: Iterable[str]) -> str:
    known = sorted({pattern_of(name + ".")[:-1] for name in fit})
    if matched:
        return (
            f"and {some(sorted(matched), 3)} cannot have an adapter: embeddings, heads and routers are not called as "
            f"linear maps; expected names such as {some(known, 4)}"
        )
    ends = sorted({name.rpartition(".")[2] for name in known})
    near = nearest(pattern, [*ends, *known])
    hint = f"did you mean '{near}'?" if near else f"expected a glob over names such as {some(known, 4)}"
    return f"which no linear map is called; {hint}"

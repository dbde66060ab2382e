"""Which attention backend answers for each kind of layer, phase and device, and why the backends before it do not. Also
how generation decodes a token.

The dispatch itself is asked, with calls whose tensors are stand-ins: a shape, a dtype and a device, and no numbers. So
it can be asked about a GPU on a machine without one. Which packages are installed is looked up on this machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from miniwin.blocks.attention.visibility import Visibility
from miniwin.blocks.attention_ops import BACKENDS, AttentionCall, Kept, ill_suited
from miniwin.blocks.decode import graph_step, native_step
from miniwin.explain.layers import head_parts
from miniwin.specs import ModelSpec

LENGTH, CHUNK = 4096, 512
# (new tokens, tokens in the cache before them, whether gradients are wanted) of each phase.
PHASES: dict[str, tuple[int, int, bool]] = {
    "prefill": (LENGTH, 0, False),
    "chunk on a cache": (CHUNK, LENGTH, False),
    "decode": (1, LENGTH, False),
    "training": (LENGTH, 0, True),
}
DTYPES = {"cpu": torch.float32, "cuda": torch.bfloat16}


@dataclass(frozen=True)
class Stand:
    """A stand-in for a tensor, with all that a backend looks at when it decides."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    requires_grad: bool = False
    is_meta: bool = False


def backends(spec: ModelSpec) -> list[dict[str, Any]]:
    """For each kind of layer, device and phase: the layers, the backend, and the reasons of the backends before it.

    Groups of heads with an encoding or a window of their own have a row each.
    """
    rows = []
    for letter in dict.fromkeys(spec.layout):
        layers = [i for i, other in enumerate(spec.layout) if other == letter]
        attention: Any = spec.layer_specs[layers[0]].attention
        groups = head_parts(letter, attention, spec.hidden_size)
        for device in DTYPES:
            for phase, (block, visibility, group) in product(PHASES, groups):
                name, declined = answering(attention, visibility, group, device, phase)
                row = {"block": block, "layers": layers, "device": device, "phase": phase}
                rows.append(row | {"backend": name, "declined": declined})
    return rows


def alike(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows for a reader: phases with the same answer and reasons share a row. `all` stands for all phases."""
    merged: list[dict[str, Any]] = []
    for row in rows:
        same = {name: value for name, value in row.items() if name != "phase"}
        before = next((one for one in merged if {**one, "phase": None} == {**same, "phase": None}), None)
        if before is None:
            merged.append({**same, "phase": [row["phase"]]})
        else:
            before["phase"].append(row["phase"])
    return [{**row, "phase": "all" if row["phase"] == [*PHASES] else ", ".join(row["phase"])} for row in merged]


def generation(spec: ModelSpec) -> dict[str, str | None]:
    """For each device, why generation goes through the layers one by one. None: one call or graph does all of them."""
    with torch.device("meta"):
        decoder = spec.build().eval()
        cache = decoder.new_cache(1)
    return {"cpu": native_step.declines(decoder, cache), "cuda": graph_step.declines(decoder, cache)}


def answering(
    attention: Any, visibility: Visibility, group: Any, device: str, phase: str
) -> tuple[str, dict[str, str]]:
    """(the backend's name, for each backend before it the reason why it declines)."""
    declined: dict[str, str] = {}
    with torch.set_grad_enabled(PHASES[phase][2]):
        call = stand_in(attention, visibility, group, device, phase)
        for backend in BACKENDS:
            reason = backend.declines(call) or ill_suited(backend, call)
            if reason is None:
                return str(backend.NAME), declined
            declined[str(backend.NAME)] = str(reason)
    return "none", declined


def stand_in(attention: Any, visibility: Visibility, group: Any, device: str, phase: str) -> AttentionCall:
    """The call that a layer's heads make in a phase, for one row without padding.

    visibility, group: of the heads, as `head_parts` gives them.
    """
    n, before, training = PHASES[phase]
    heads = group.heads
    reach = visibility.reach
    m = n + (before if reach is None else min(before, reach - 1))  # a ring keeps what the first query still sees
    position = group.position.build(heads)

    def stand(*shape: int, dtype: torch.dtype = DTYPES[device]) -> Any:
        return Stand(shape, dtype, torch.device(device), training)

    key_dim = group.position.key_dim(heads)
    first = visibility.keep_first
    kept = (stand(1, first, heads.num_kv_heads, key_dim), stand(1, first, heads.num_kv_heads, heads.head_dim))
    return AttentionCall(
        stand(1, n, heads.num_heads, key_dim),
        stand(1, m, heads.num_kv_heads, key_dim),
        stand(1, m, heads.num_kv_heads, heads.head_dim),
        scale=1.0,
        window=visibility.window,
        bias=position.score_bias(),
        chunk=visibility.chunk,
        start=stand(1, dtype=torch.int64) if visibility.chunk is not None else None,
        kept=Kept(*kept, stand(1, n, first, dtype=torch.bool)) if first else None,
        sinks=stand(heads.num_heads) if attention.sinks else None,
        softcap=attention.softcap,
        log_gates=stand(1, m, heads.num_heads) if group.position.gates(heads) else None,
        score=position.score(),
        weighting=position.weighting,
    )

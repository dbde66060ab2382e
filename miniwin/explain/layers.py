"""What a model spec amounts to, layer by layer: a plain dictionary, computed without allocating a weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from miniwin.blocks.attention.split import parts
from miniwin.blocks.attention.visibility import Visibility
from miniwin.specs import ModelSpec, UserError
from miniwin.specs.model import BYTES

RUNS = 2  # a table names so many runs of equal layers, such as 0-2, 4-6; the layout shows all layers


def explanation(spec: ModelSpec, lengths: Sequence[int], dtype: str = "float32") -> dict[str, Any]:
    """Per layer: what it sees, its encoding, parameters and cache bytes at each length; and the totals.

    `built_parameters` is counted on the module itself, built on the meta device.

    Raises:
        UserError: an unknown dtype, or a length below 1.
    """
    if dtype not in BYTES:
        raise UserError(f"--dtype: got '{dtype}'; expected one of {', '.join(BYTES)}")
    if min(lengths) < 1:
        raise UserError(f"--length: got {min(lengths)}; expected at least 1")
    with torch.device("meta"):
        built = sum(p.numel() for p in spec.build().parameters())
    tables = spec.vocab_size * (1 if spec.tie_word_embeddings else 2) + (spec.embed_positions or 0)
    return {
        "name": spec.name,
        "hash": spec.hash,
        "layout": spec.layout,
        "hidden_size": spec.hidden_size,
        "vocab_size": spec.vocab_size,
        "parameters": spec.parameters(),
        "active_parameters": spec.active_parameters(),
        "embedding_parameters": tables * spec.hidden_size,
        "embed_positions": spec.embed_positions,
        "built_parameters": built,
        "forward_flops_per_token": {n: spec.forward_flops(n) for n in lengths},
        "training_flops_per_token": {n: spec.training_flops(n) for n in lengths},
        "cache_dtype": dtype,
        "cache_bytes": {n: spec.cache_bytes(n, dtype) for n in lengths},
        "layers": layer_rows(spec, lengths, dtype),
    }


def layer_rows(spec: ModelSpec, lengths: Sequence[int], dtype: str = "float32") -> list[dict[str, Any]]:
    """What each layer sees, its encoding, parameters and cache bytes at each length. Nothing is built for it."""
    rows = []
    for i, (letter, layer) in enumerate(zip(spec.layout, spec.layer_specs, strict=True)):
        attention: Any = layer.attention
        cache = {n: attention.cache_bytes(spec.hidden_size, n, BYTES[dtype]) for n in lengths}
        rows.append(
            {
                "layer": i,
                "block": letter,
                "sees": sees(attention),
                "window": attention.visibility.window,
                "windows": attention.windows,
                "chunk": attention.chunk,
                "heads": f"{attention.num_heads}/{attention.kv_heads} x {attention.head_dim}",
                "encoding": ", ".join(attention.position.words()),
                "period": period(attention.position),
                "periods": attention.position.all_periods(),
                "parameters": layer.parameters(spec.hidden_size),
                "cache_bytes": cache,
            }
        )
    return rows


def groups(rows: Sequence[dict[str, Any]]) -> list[tuple[list[int], dict[str, Any]]]:
    """Layers that differ in nothing but their number, as (their numbers, the row of the first), in the order met."""
    found: list[tuple[list[int], dict[str, Any]]] = []
    for row in rows:
        same = (numbers for numbers, other in found if {**other, "layer": None} == {**row, "layer": None})
        numbers = next(same, None)
        if numbers is None:
            found.append(([row["layer"]], row))
        else:
            numbers.append(row["layer"])
    return found


def layer_numbers(numbers: Sequence[int], most: int | None = None) -> str:
    """`0-2, 4-7, 9` for [0, 1, 2, 4, 5, 6, 7, 9]. most: how many runs to name; the rest is `...`."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    named = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ", ".join(named[:most] + ["..."] * (most is not None and len(named) > most))


def sees(attention: Any) -> str:
    """Which keys a layer's queries see, in a few words: `all`, or `all in 1 of 3 KV heads, 512 keys in 2`."""
    if attention.windows is None:
        return _sees(attention.visibility)
    found = [(_sees(part.visibility), len(part.heads)) for part in parts(attention.windows, attention.keep_first)]
    (first, count), *others = found
    return ", ".join([f"{first} in {count} of {attention.kv_heads} KV heads", *(f"{a} in {n}" for a, n in others)])


def _sees(visibility: Visibility) -> str:
    if visibility.chunk is not None:
        return f"chunks of {visibility.chunk}"
    if visibility.window is None:
        return "all"
    return f"{visibility.window} keys" + (f" + first {visibility.keep_first}" if visibility.keep_first else "")


def head_parts(letter: str, attention: Any, hidden_size: int) -> list[tuple[str, Visibility, Any]]:
    """As `head_groups`, but also by what heads see, with a label such as `G window 512` where they differ."""
    if attention.windows is None:
        return [(label, attention.visibility, group) for label, group in head_groups(letter, attention, hidden_size)]
    found = []
    for visibility, groups in attention.parts(hidden_size):
        label = f"{letter} {'all' if visibility.window is None else f'window {visibility.window}'}"
        for group in groups:
            within = "" if group.path == "position" else f" {group.path.removeprefix('position.')}"
            found.append((label + within, visibility, group))
    return found


def head_groups(letter: str, attention: Any, hidden_size: int) -> list[tuple[str, Any]]:
    """The groups of heads of a block with encodings of their own, each with a label: `G`, or `G of.0` and `G of.1`."""
    groups = attention.position.groups(attention.heads(hidden_size))
    if len(groups) == 1:
        return [(letter, groups[0])]
    return [(f"{letter} {group.path.removeprefix('position.')}", group) for group in groups]


def period(position: Any) -> int | None:
    """The longest period of a position encoding, by which it repeats or tells places apart. None: it has no period."""
    return max(position.all_periods(), default=None)


def periods_text(periods: Sequence[int]) -> str:
    """The periods of a layer for a table: `32`, `16/64/256`, or `-` if there is none."""
    return "/".join(map(str, periods)) or "-"

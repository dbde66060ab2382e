"""How far attention's outputs change when the same content stands s tokens later: zero for a relative encoding.

    change(s) = rms(out(x at t + s) - out(x at t)) / rms(out(x at t)),   s = 1 .. p

Each block gives one attention layer with four heads at most, in float64. Its weights are normal with standard deviation
hidden_size^-0.5, so that scores are of order one. The content is random. Nothing precedes it, so that every query sees
the same keys at both places. For the same reason there is no logit scale, which counts the keys that a query sees, and
there are no sink tokens (`keep_first`).

Usual settings are W = p and W tokens of content. Then published P-RoPE (arXiv 2605.27980) changes by 20 to 31 % rms,
mean over s, for W from 16 to 64. Harmonic P-RoPE and plain RoPE change by rounding only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from miniwin.blocks.attention import Attention
from miniwin.blocks.positions import Positions
from miniwin.specs import ModelSpec, UserError

MOST_TOKENS = 256  # of content, unless asked for more
MOST_SHIFTS = 64  # if there are more, these are spread evenly
ROWS = 2
HIDDEN, HEADS = 128, 4  # the change depends on how a head turns, not on how many heads there are
SHIFTS = 32  # of an encoding without a period


def shift_changes(spec: ModelSpec, tokens: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """For each block: the mean and the largest change over shifts by 1 .. p tokens (1 .. 32 without a period).

    p: the longest period.


    tokens: how many tokens of content; by default the window, at most 256.

    Raises:
        UserError: `tokens` is below 1.
    """
    if tokens is not None and tokens < 1:
        raise UserError(f"tokens: got {tokens}; expected at least 1")
    rows = []
    for letter in dict.fromkeys(spec.layout):
        attention: Any = spec.layer_specs[spec.layout.index(letter)].attention
        seen = attention.heads(spec.hidden_size).window
        count = tokens or min(MOST_TOKENS, seen or MOST_TOKENS)
        position = attention.position
        shifts = spread(max(position.all_periods(), default=SHIFTS))
        changes = layer_changes(_lively(_small(attention).build(HIDDEN), seed), HIDDEN, count, shifts, seed)
        rows.append(
            {
                "block": letter,
                "encoding": ", ".join(position.words()),
                "tokens": count,
                "shifts": [shifts[0], shifts[-1]],
                "mean": sum(changes) / len(changes),
                "max": max(changes),
            }
        )
    return rows


def _small(attention: Any) -> Any:
    """The same attention with at most four heads; `attention` has its defaults filled in."""
    groups = attention.position.groups(attention.heads(HIDDEN))
    if len(attention.position.all_periods()) > 1 or len(groups) > 1 or attention.windows is not None:
        return attention.model_copy(update={"keep_first": 0})  # heads differ
    heads = min(HEADS, attention.num_heads)
    shared = 1 if heads % 2 else 2
    return attention.model_copy(
        update={
            "keep_first": 0,  # moved content is no longer the row's first
            "num_heads": heads,
            "num_kv_heads": heads if attention.num_kv_heads == attention.num_heads else heads // shared,
        }
    )


def spread(most: int) -> list[int]:
    """1 .. most, or MOST_SHIFTS of them, evenly spread from end to end."""
    if most <= MOST_SHIFTS:
        return list(range(1, most + 1))
    return sorted({1 + round(i * (most - 1) / (MOST_SHIFTS - 1)) for i in range(MOST_SHIFTS)})


@torch.no_grad()
def layer_changes(attention: Attention, hidden_size: int, tokens: int, shifts: list[int], seed: int = 0) -> list[float]:
    """The relative change of an attention layer's output at each shift, in float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, tokens, hidden_size, generator=generator, dtype=torch.float64)  # (B, N, C)
    here = torch.arange(tokens).unsqueeze(0)  # (1, N)
    for group in attention.groups:
        group.encoding.query_scale = lambda visible, total: None  # type: ignore[method-assign]
    first: Tensor = attention(x, Positions(here))
    size = first.square().mean().sqrt()
    return [float((attention(x, Positions(here + s)) - first).square().mean().sqrt() / size) for s in shifts]


@torch.no_grad()
def _lively(attention: Attention, seed: int) -> Attention:
    """The layer in float64 with weights large enough that attention chooses, as after training."""
    generator = torch.Generator().manual_seed(seed + 1)
    attention = attention.double().eval()
    for module in attention.modules():
        if isinstance(module, nn.Linear):
            noise = torch.randn(module.weight.shape, generator=generator, dtype=torch.float64)
            module.weight.copy_(noise * module.weight.shape[1] ** -0.5)
            if module.bias is not None:
                module.bias.zero_()
    return attention

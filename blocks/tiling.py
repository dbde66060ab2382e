"""Rows in pieces that stay in a processor's cache while several operations pass over them.

On a CPU an elementwise operation on a large tensor takes as long as memory does, and fresh memory several times as
long. A few rows at a time, the operations after the first find their numbers in the cache, and what lies between them
takes the same small memory again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

CACHED = 1 << 18  # numbers of a piece that elementwise operations pass over: 1 MiB of float32
WIDE = 1 << 20  # numbers in the widest tensor of a piece that goes through matrix products, which want many rows


def pieces(rows: int, width: int, numbers: int = CACHED) -> Iterator[slice]:
    """Cut `rows` rows of `width` numbers each."""
    size = max(1, numbers // width)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def in_pieces(function: Callable[[Tensor], Tensor], x: Tensor, width: int) -> Tensor:
    """function(x) for one that treats each row of x (..., C) by itself, and makes tensors of `width` numbers a row.

    Only where no gradient is recorded: else what lies between is kept anyway.
    """
    count = x.shape[:-1].numel()
    if count * width <= WIDE or torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling():
        return function(x)
    rows = x.reshape(count, -1)
    out = torch.cat([function(rows[part]) for part in pieces(count, width, WIDE)])
    return out.view(*x.shape[:-1], -1)

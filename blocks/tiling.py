"""Cut rows into pieces that stay in a processor's cache while several operations pass over them.

On a CPU the speed of memory bounds an elementwise operation on a large tensor, and fresh memory is several times
slower. With a few rows at a time, each operation after the first finds its input in the cache, and intermediate results
use the same small memory again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

CACHED = 1 << 18  # numbers of a piece for elementwise operations: 1 MiB of float32
WIDE = 1 << 20  # numbers in the widest tensor of a piece for matrix products, which need many rows


def pieces(rows: int, width: int, numbers: int = CACHED) -> Iterator[slice]:
    """Cut `rows` rows of `width` numbers into slices of about `numbers` numbers each."""
    size = max(1, numbers // width)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def in_pieces(function: Callable[[Tensor], Tensor], x: Tensor, width: int) -> Tensor:
    """function(x), computed piece by piece. The function must treat each row of x (..., C) by itself.

    width: numbers per row of its widest intermediate tensor. When gradients are recorded, x is not cut: autograd keeps
    all intermediate tensors anyway.
    """
    count = x.shape[:-1].numel()
    if count * width <= WIDE or torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling():
        return function(x)
    rows = x.reshape(count, -1)  # (..., C) -> (count, C)
    out = torch.cat([function(rows[part]) for part in pieces(count, width, WIDE)])
    return out.view(*x.shape[:-1], -1)

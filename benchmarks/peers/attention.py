"""Attention as other libraries compute it. Each function makes a peer ready; what it gives back takes no arguments.

q (B, H, N, D); k, v (B, Hkv, N, D), in the layout that the peers like best. Masks are made and kernels compiled outside
of it, so that the peers are at their best. All but `causal` see the W keys up to and including the query's own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

Attend = Callable[[], Tensor]  # -> (B, H, N, D)


def banded(length: int, window: int) -> Tensor:
    """(N, N) bool: key j is seen by query i iff 0 <= i - j < W."""
    index = torch.arange(length)
    distance = index.unsqueeze(1) - index
    return (distance >= 0) & (distance < window)


def masked(q: Tensor, k: Tensor, v: Tensor, window: int) -> Attend:
    """torch's SDPA with the window as a mask that is made beforehand."""
    mask = banded(q.shape[2], window)
    return lambda: scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=q.shape[1] != k.shape[1])


def as_authors(q: Tensor, k: Tensor, v: Tensor, window: int) -> Attend:
    """The same as MiniWin's authors call it: keys repeated for each query head, and the mask made anew, every time."""
    groups = q.shape[1] // k.shape[1]

    def repeated(x: Tensor) -> Tensor:
        return x.unsqueeze(2).expand(-1, -1, groups, -1, -1).flatten(1, 2)

    return lambda: scaled_dot_product_attention(q, repeated(k), repeated(v), attn_mask=banded(q.shape[2], window))


def causal(q: Tensor, k: Tensor, v: Tensor) -> Attend:
    """Full causal attention: another function, and what one has without windows."""
    return lambda: scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])


def flex(q: Tensor, k: Tensor, v: Tensor, window: int) -> Attend:
    """Compiled FlexAttention with a block mask. On a CPU it has no backward."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query - key < window)

    torch._dynamo.reset()  # each length is compiled for itself
    compiled = torch.compile(flex_attention, dynamic=False)
    mask = create_block_mask(seen, None, None, q.shape[2], k.shape[2], device=str(q.device))

    @torch.no_grad()
    def run() -> Tensor:
        out: Tensor = compiled(q, k, v, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1])
        return out

    return run


def local_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Attend:
    """The PyPI package local-attention (lucidrains). Its window does not count the query's own key."""
    try:
        from local_attention import LocalAttention
    except ImportError:
        raise LookupError("not installed: pip install local-attention") from None
    module = LocalAttention(
        window - 1, causal=True, look_backward=1, exact_windowsize=True, autopad=True, use_rotary_pos_emb=False
    )
    groups = q.shape[1] // k.shape[1]

    def run() -> Tensor:
        out: Tensor = module(q, *(x.repeat_interleave(groups, dim=1) for x in (k, v)))
        return out

    return run

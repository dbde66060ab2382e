"""Attention as other libraries compute it. Each function prepares a peer, and returns a function without arguments.

q (B, H, N, D); k, v (B, Hkv, N, D), the layout that suits the peers best. Masks are made and kernels compiled while a
peer is prepared, so that neither is timed. All but `causal` see the W keys up to and including the query's own.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

Attend = Callable[[], Tensor]  # -> (B, H, N, D)


def banded(length: int, window: int) -> Tensor:
    """(N, N) bool: key j is seen by query i iff 0 <= i - j < W."""
    query, key = torch.arange(length).unsqueeze(1), torch.arange(length).unsqueeze(0)
    return (key <= query) & (query - key < window)


def masked(q: Tensor, k: Tensor, v: Tensor, window: int) -> Attend:
    """torch's SDPA with the window as a mask that is made beforehand, in the form that its kernel adds to the scores:
    of a boolean one it would make that in every call."""
    seen = banded(q.shape[2], window)
    mask = torch.zeros(seen.shape, dtype=q.dtype).masked_fill_(~seen, float("-inf"))
    return lambda: scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=q.shape[1] != k.shape[1])


def as_authors(q: Tensor, k: Tensor, v: Tensor, window: int) -> Attend:
    """The same as MiniWin's authors call it: every call repeats keys for each query head and makes the mask anew."""
    groups = q.shape[1] // k.shape[1]

    def repeated(x: Tensor) -> Tensor:
        """Copied in (B, N, H, D), the layout of their projections."""
        wide = x.transpose(1, 2).unsqueeze(3)
        return wide.expand(-1, -1, -1, groups, -1).flatten(2, 3).transpose(1, 2)

    return lambda: scaled_dot_product_attention(q, repeated(k), repeated(v), attn_mask=banded(q.shape[2], window))


def causal(q: Tensor, k: Tensor, v: Tensor) -> Attend:
    """Full causal attention: another function, and what one has without windows."""
    return lambda: scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])


BLOCKS = (32, 64, 128)  # tokens of a block of FlexAttention's mask; 128 is its default


def flex_fastest(q: Tensor, k: Tensor, v: Tensor, window: int) -> Attend:
    """FlexAttention with the blocks that suit this window and machine best."""
    torch._dynamo.reset()  # each length is compiled for itself
    made = [_flex(q, k, v, window, block) for block in BLOCKS]
    return min(made, key=lambda run: min(timeit.repeat(run, number=1, repeat=4)[1:]))


def flex(q: Tensor, k: Tensor, v: Tensor, window: int) -> Attend:
    """Compiled FlexAttention with a block mask. On a CPU it has no backward."""
    torch._dynamo.reset()
    return _flex(q, k, v, window, BLOCKS[-1])


def _flex(q: Tensor, k: Tensor, v: Tensor, window: int, block: int) -> Attend:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query - key < window)

    compiled = torch.compile(flex_attention, dynamic=False)
    mask = create_block_mask(seen, None, None, q.shape[2], k.shape[2], device=str(q.device), BLOCK_SIZE=block)

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

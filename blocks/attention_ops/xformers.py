"""xformers' memory_efficient_attention, on CUDA.

The bias for each kind of call (the tests materialise and check them):

    a prefill; queries fewer than keys      LowerTriangularMask; LowerTriangularFromBottomRightMask
    a window of W keys, with self           LowerTriangularFromBottomRightLocalAttentionMask(W)
    one query that sees every key           none, so that split-k kernels may take it
    rows of several documents               BlockDiagonalCausalMask, or BlockDiagonalCausalLocalAttentionMask(W), over
                                            all rows as one
    left padding                            the same over the real tokens: padding is packed away; for fewer queries
                                            than keys, the FromBottomRight forms
    left padding, in inference, no window   BlockDiagonalCausalWithOffsetGappyKeysMask: queries are packed, keys stay
                                            where the cache has them; not in float32, whose kernel does not take it

In inference grouped-query heads use the five-dimensional layout (B, N, Hkv, H/Hkv, D), with keys and values expanded
without a copy. In training keys and values are repeated, since no backward takes expanded ones.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from miniwin.blocks.attention_ops.call import AttentionCall, capability

NAME = "xformers"
HONOURS = frozenset({"window", "pad", "documents"})
FLASH = (torch.float16, torch.bfloat16)  # the dtypes of its flash kernels; float32 is left to cutlass
FLASH_FROM, CUTLASS_TO = (8, 0), (9, 0)  # compute capabilities: from where flash is built, and up to where cutlass is


@cache
def missing() -> str | None:
    """Why no kernel of xformers can be called here; None if they can."""
    if importlib.util.find_spec("xformers") is None:
        return "xformers is not installed"
    log = logging.getLogger("xformers")
    level = log.level
    try:
        log.setLevel(logging.ERROR)  # its warnings say the same as the reasons given here
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from xformers import _cpp_lib
            from xformers.ops import fmha
        if not _cpp_lib._built_with_cuda:  # every call would fail; xformers itself says so in its log only
            return "xformers' library of CUDA kernels does not load: it is built for another torch, CUDA or Python"
        absent = [op.NAME for op in (fmha.flash.FwOp, fmha.cutlass.FwOp) if not op.is_available()]
        return f"xformers is built without its kernels {', '.join(absent)}" if absent else None
    except Exception as error:  # its checks of flash_attn, triton and torch raise errors of many classes
        return f"xformers cannot be imported ({type(error).__name__}: {str(error).strip()[:200]})"
    finally:
        log.setLevel(level)


def declines(call: AttentionCall) -> str | None:
    if call.q.device.type != "cuda":
        return f"its kernels need CUDA, not {call.q.device.type}"
    reason = missing() or call.beyond(HONOURS)
    if reason is not None:
        return reason
    if call.q.shape[-1] % 8 or call.q.shape[-1] > 256:
        return f"its kernels take head dims that are a multiple of 8 and at most 256, not {call.q.shape[-1]}"
    if call.q.dtype == torch.float64:
        return "its kernels do not take float64"
    training = _trains(call)
    if call.q.dtype not in FLASH and training:
        return f"its fast kernels take float16 or bfloat16, not {call.q.dtype}"
    if training and torch.are_deterministic_algorithms_enabled():
        return "the backward of its fast kernels is not deterministic, and deterministic algorithms are asked for"
    return _unbuilt(call.q.dtype, capability(call.q.device))


def ill_suited(call: AttentionCall) -> str | None:
    if call.q.shape[1] == 1 and call.pad is not None and call.q.dtype not in FLASH:
        return "its float32 kernel has padding packed away: a copy of the cache for one query"
    if call.k.dtype != call.q.dtype:  # keys in the dtype that a cache stores
        return f"it would have a cache in {call.k.dtype} widened whole; sdpa reads it as it is, or a part at a time"
    return None


def _trains(call: AttentionCall) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in (call.q, call.k, call.v))


def _unbuilt(dtype: torch.dtype, gpu: tuple[int, int] | None) -> str | None:
    if gpu is None:
        return None
    had = ".".join(map(str, gpu))
    if dtype in FLASH and gpu < FLASH_FROM:
        return f"its kernels for {dtype} need compute capability 8.0 or more, not {had}"
    if dtype not in FLASH and gpu > CUTLASS_TO:
        return f"its kernel for {dtype} is built for compute capability 9.0 or less, not {had}"
    return None


def bias_class(num_queries: int, num_keys: int, window: int | None) -> Any:
    """The xformers bias with which a query sees the keys 0 <= i - j < window; None if no bias is needed."""
    from xformers.ops import fmha

    if window is not None and window < num_keys:
        return fmha.attn_bias.LowerTriangularFromBottomRightLocalAttentionMask(window)
    if num_queries == 1:
        return None
    if num_queries == num_keys:
        return fmha.attn_bias.LowerTriangularMask()
    return fmha.attn_bias.LowerTriangularFromBottomRightMask()


@dataclass(frozen=True)
class Packing:
    """How to pack rows of tokens (B, N, ...) into one row (1, total, ...), and the bias that keeps the rows apart.

    queries, keys: indices of the tokens to take, from all rows one after the other; None: all tokens.
    """

    bias: Any
    queries: Tensor | None
    keys: Tensor | None


def packing(call: AttentionCall, training: bool) -> Packing:
    """The packing of documents or of padded rows. Their lengths are read from the device, which waits for it."""
    from xformers.ops.fmha import attn_bias

    device, m = call.q.device, call.k.shape[1]
    if call.documents is not None:
        return Packing(_block_diagonal(call, call.documents.lengths, call.documents.lengths), None, None)
    assert call.pad is not None
    pads = call.pad.tolist()
    tokens = [m - pad for pad in pads if pad < m]  # keys of each row; rows that are only padding so far are left out
    asking = [min(count, call.q.shape[1]) for count in tokens]
    key = torch.arange(m, device=device)
    real = key >= call.pad.unsqueeze(1)  # (B, M)
    queries = None if max(pads) <= call.offset else real[:, call.offset :].flatten().nonzero().flatten()
    if training or call.q.dtype not in FLASH or (call.window is not None and call.window < m):
        return Packing(_block_diagonal(call, asking, tokens), queries, real.flatten().nonzero().flatten())
    starts = [row * m + pad for row, pad in enumerate(pads) if pad < m]
    gappy = attn_bias.BlockDiagonalCausalWithOffsetGappyKeysMask.from_seqlens(
        asking, [*starts, len(pads) * m], tokens, device=device
    )
    return Packing(gappy, queries, None)


def _block_diagonal(call: AttentionCall, queries: list[int], keys: list[int]) -> Any:
    from xformers.ops.fmha import attn_bias

    whole = attn_bias.BlockDiagonalMask.from_seqlens(queries, keys, device=call.q.device)
    window = call.window if call.window is not None and call.window < max(keys) else None
    if queries == keys:
        return whole.make_causal() if window is None else whole.make_local_attention(window)
    if window is None:
        return whole.make_causal_from_bottomright()
    return whole.make_local_attention_from_bottomright(window)


def run(call: AttentionCall) -> Tensor:
    q, k, v = call.q, call.k, call.v
    training = _trains(call)
    if call.pad is None and call.documents is None:
        bias = bias_class(q.shape[1], k.shape[1], call.window)
        return _attend(q, k, v, bias, call.scale, training)
    if call.pad is not None and int(call.pad.min()) >= k.shape[1]:
        return q * 0  # all rows are only padding so far
    pack = packing(call, training)
    # (B, N or M, heads, D) -> (1, total, heads, D)
    queries, keys, values = (_taken(rows, at) for rows, at in ((q, pack.queries), (k, pack.keys), (v, pack.keys)))
    out = _attend(queries, keys, values, pack.bias, call.scale, training).squeeze(0)
    if pack.queries is not None:
        empty = out.new_zeros(q.shape[0] * q.shape[1], *out.shape[1:])
        out = empty.index_copy(0, pack.queries, out)
    return out.view(q.shape)


def _taken(rows: Tensor, at: Tensor | None) -> Tensor:
    """Take tokens by index: (B, N, ...) -> (1, total, ...)."""
    flat = rows.flatten(0, 1)
    return (flat if at is None else flat.index_select(0, at)).unsqueeze(0)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Any, scale: float, training: bool) -> Tensor:
    from xformers.ops import memory_efficient_attention

    shape, heads, kv_heads = q.shape, q.shape[2], k.shape[2]
    if heads != kv_heads and training:  # no operator has a backward for expanded keys
        k, v = (t.repeat_interleave(heads // kv_heads, dim=2) for t in (k, v))
    elif heads != kv_heads:
        group = heads // kv_heads
        q = q.unflatten(2, (kv_heads, group))  # (B, N, Hkv, H/Hkv, D)
        k = k.unsqueeze(3).expand(-1, -1, -1, group, -1)
        v = v.unsqueeze(3).expand(-1, -1, -1, group, -1)
    out = memory_efficient_attention(q, k, v, attn_bias=bias, scale=scale)
    return out.reshape(shape)  # type: ignore[no-any-return]

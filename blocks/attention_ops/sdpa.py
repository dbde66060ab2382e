"""torch's scaled_dot_product_attention: the default for global layers and for single-token decoding.

A mask is made only if torch cannot infer it: never for a plain causal prefill, nor for one query that sees every key.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from miniwin.blocks.attention_ops.call import AttentionCall, capability
from miniwin.blocks.attention_ops.mask import full_mask

NAME = "sdpa"
NARROW = (torch.float16, torch.bfloat16)
WIDEST, FLASH_FROM = 256, (8, 0)  # head_dim of torch's flash kernel at most, and the compute capability that it needs
SUMMED = 8  # from so many query heads per key/value head on, torch's half-precision sums of gradients are 2 % off
LARGE_MASK = 1 << 26  # numbers of a mask that is too large: 256 MiB in float32
HONOURS = frozenset({"window", "bias", "pad", "chunk", "value_dim", "documents"})


def declines(call: AttentionCall) -> str | None:
    if call.bias is not None and call.q.dtype in NARROW:
        return f"it would round the score bias to {call.q.dtype}"
    return call.beyond(HONOURS)


def ill_suited(call: AttentionCall) -> str | None:
    size = mask_size(call)
    return f"its mask would have {size:,} numbers" if size > LARGE_MASK else None


def mask_size(call: AttentionCall) -> int:
    """The size of the mask that this call needs, in numbers; 0 if torch infers the mask."""
    n, m = call.q.shape[1], call.k.shape[1]
    free = call.features.isdisjoint({"bias", "pad", "chunk", "documents"})
    free = free and (call.window is None or call.window >= m)
    if free and (n == m or n == 1):
        return 0
    rows = 1 if call.pad is None and call.start is None and call.documents is None else call.q.shape[0]
    return rows * (1 if call.bias is None else call.q.shape[2]) * n * m


def _shares_keys(call: AttentionCall) -> bool:
    """Whether torch has a kernel for query heads that share keys. On CUDA only its flash kernel can.

    Without flash torch would take plain products, with a matrix of all scores. If keys are repeated for every query
    head, it takes its memory-efficient kernel.
    """
    if call.q.device.type != "cuda":
        return True
    keys, values, gpu = call.k.shape[-1], call.v.shape[-1], capability(call.q.device)
    takes = call.q.dtype in NARROW and keys == values <= WIDEST and mask_size(call) == 0
    return takes and (gpu is None or gpu >= FLASH_FROM)


def run(call: AttentionCall) -> Tensor:
    mask = full_mask(call).to(call.q.dtype) if mask_size(call) else None
    k, v, groups = call.k, call.v, call.q.shape[2] // call.k.shape[2]
    poor = groups >= SUMMED and call.q.dtype in NARROW and torch.is_grad_enabled()
    if groups > 1 and (poor or not _shares_keys(call)):
        k, v, groups = k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2), 1
    out = scaled_dot_product_attention(
        call.q.transpose(1, 2),  # (B, H, N, D)
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask,
        is_causal=mask is None and call.q.shape[1] > 1,
        scale=call.scale,
        enable_gqa=groups > 1,
    )
    return out.transpose(1, 2)

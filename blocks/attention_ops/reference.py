"""The naive reference: every score, one softmax, in float32. The yardstick for all other backends."""

from __future__ import annotations

import torch
from torch import Tensor

from miniwin.blocks.attention_ops.call import AttentionCall, full_mask

NAME = "reference"


def declines(call: AttentionCall) -> str | None:
    return None


def run(call: AttentionCall) -> Tensor:
    group = call.q.shape[2] // call.k.shape[2]
    q = call.q.float().transpose(1, 2)  # (B, H, N, D)
    k = call.k.float().transpose(1, 2).repeat_interleave(group, dim=1)  # (B, H, M, D)
    v = call.v.float().transpose(1, 2).repeat_interleave(group, dim=1)
    scores = q @ k.transpose(-1, -2) * call.scale + full_mask(call)  # (B, H, N, M)
    return (torch.softmax(scores, dim=-1) @ v).transpose(1, 2).to(call.q.dtype)

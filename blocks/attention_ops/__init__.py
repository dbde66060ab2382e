"""Attention as one function: many backends answer the same call, and dispatch.py chooses among them."""

from miniwin.blocks.attention_ops.call import AttentionCall, Kept
from miniwin.blocks.attention_ops.dispatch import (
    BACKENDS,
    attend,
    choose,
    ill_suited,
    may_use,
    steps_by_sdpa,
    use_backend,
)

__all__ = [
    "BACKENDS",
    "AttentionCall",
    "Kept",
    "attend",
    "choose",
    "ill_suited",
    "may_use",
    "steps_by_sdpa",
    "use_backend",
]

"""The attention of a layer: its spec, its module, which keys a query sees, and reading a cache."""

from miniwin.blocks.attention.module import Attention, QKNorm

__all__ = ["Attention", "QKNorm"]

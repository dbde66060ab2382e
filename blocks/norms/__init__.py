"""Norms, one file each. A new one is a new file here and one line below."""

from miniwin.blocks.norms.layernorm import LayerNorm, LayerNormSpec
from miniwin.blocks.norms.rmsnorm import RMSNorm, RMSNormSpec

__all__ = ["LayerNorm", "LayerNormSpec", "RMSNorm", "RMSNormSpec"]

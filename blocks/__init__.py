"""Torch modules, one idea per file: each block's spec, module, cost and paper.

A new block is one new file and one registration; its module is imported here.
"""

if __name__ == "blocks":
    raise ImportError("this folder is the package miniwin.blocks: write 'from miniwin.blocks import Attention'")

from miniwin.blocks.attention import Attention, AttentionSpec
from miniwin.blocks.attention_ops import AttentionCall, attend, use_backend
from miniwin.blocks.cache import Cache, LayerCache
from miniwin.blocks.decoder import Decoder
from miniwin.blocks.init import InitSpec
from miniwin.blocks.layer import Layer, LayerSpec
from miniwin.blocks.positions import PositionEncoding
from miniwin.blocks.registry import ATTENTIONS, LOGIT_SCALES, MLPS, NORMS, POSITIONS, Registry
from miniwin.blocks.rmsnorm import RMSNorm, RMSNormSpec
from miniwin.blocks.swiglu import SwiGLU, SwiGLUSpec

__all__ = [
    "ATTENTIONS",
    "LOGIT_SCALES",
    "MLPS",
    "NORMS",
    "POSITIONS",
    "Attention",
    "AttentionCall",
    "AttentionSpec",
    "Cache",
    "Decoder",
    "InitSpec",
    "Layer",
    "LayerCache",
    "LayerSpec",
    "PositionEncoding",
    "RMSNorm",
    "RMSNormSpec",
    "Registry",
    "SwiGLU",
    "SwiGLUSpec",
    "attend",
    "use_backend",
]

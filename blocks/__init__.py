"""Torch modules, one idea per file: each block's spec, module, cost and paper.

A new block is one new file and one registration. Its module is imported here or in its folder's `__init__.py`.
"""

if __name__ == "blocks":
    raise ImportError("this folder is the package miniwin.blocks: write 'from miniwin.blocks import Attention'")

from miniwin.blocks.attention import Attention
from miniwin.blocks.attention.spec import AttentionSpec
from miniwin.blocks.attention_ops import AttentionCall, attend, use_backend
from miniwin.blocks.cache import Cache, LayerCache
from miniwin.blocks.decoder import Decoder
from miniwin.blocks.init import InitSpec
from miniwin.blocks.layer import Layer, LayerSpec, ParallelLayer
from miniwin.blocks.mlps.base import DenseSpec, MLPSpec
from miniwin.blocks.mlps.clamped_swiglu import ClampedSwiGLU, ClampedSwiGLUSpec
from miniwin.blocks.mlps.geglu import GeGLU, GeGLUSpec
from miniwin.blocks.mlps.gelu import GELU, GELUSpec
from miniwin.blocks.mlps.moe import MixtureOfExperts, MixtureOfExpertsSpec
from miniwin.blocks.mlps.relu2 import SquaredReLU, SquaredReLUSpec
from miniwin.blocks.mlps.routers import Router, RouterSpec, Routes
from miniwin.blocks.mlps.swiglu import SwiGLU, SwiGLUSpec
from miniwin.blocks.norms.layernorm import LayerNorm, LayerNormSpec
from miniwin.blocks.norms.rmsnorm import RMSNorm, RMSNormSpec
from miniwin.blocks.plugins import load_plugin
from miniwin.blocks.positions.base import Heads, PositionEncoding, Positions, PositionSpec
from miniwin.blocks.registry import ATTENTIONS, LOGIT_SCALES, MLPS, NORMS, POSITIONS, ROUTERS, SCALINGS, Registry

__all__ = [
    "ATTENTIONS",
    "Attention",
    "AttentionCall",
    "AttentionSpec",
    "Cache",
    "ClampedSwiGLU",
    "ClampedSwiGLUSpec",
    "Decoder",
    "DenseSpec",
    "GELU",
    "GELUSpec",
    "GeGLU",
    "GeGLUSpec",
    "Heads",
    "InitSpec",
    "LOGIT_SCALES",
    "Layer",
    "LayerCache",
    "LayerNorm",
    "LayerNormSpec",
    "LayerSpec",
    "MLPSpec",
    "MixtureOfExperts",
    "MixtureOfExpertsSpec",
    "MLPS",
    "NORMS",
    "POSITIONS",
    "ParallelLayer",
    "PositionEncoding",
    "PositionSpec",
    "Positions",
    "RMSNorm",
    "RMSNormSpec",
    "ROUTERS",
    "Registry",
    "Router",
    "RouterSpec",
    "Routes",
    "SCALINGS",
    "SquaredReLU",
    "SquaredReLUSpec",
    "SwiGLU",
    "SwiGLUSpec",
    "attend",
    "load_plugin",
    "use_backend",
]

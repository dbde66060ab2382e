"""MLPs, one file each, and the routers of experts. A new one is a new file here and one line below."""

from miniwin.blocks.mlps.base import DenseSpec, MLPSpec
from miniwin.blocks.mlps.clamped_swiglu import ClampedSwiGLU, ClampedSwiGLUSpec
from miniwin.blocks.mlps.geglu import GeGLU, GeGLUSpec
from miniwin.blocks.mlps.gelu import GELU, GELUSpec
from miniwin.blocks.mlps.moe import MixtureOfExperts, MixtureOfExpertsSpec
from miniwin.blocks.mlps.relu2 import SquaredReLU, SquaredReLUSpec
from miniwin.blocks.mlps.routers import Router, RouterSpec, Routes
from miniwin.blocks.mlps.swiglu import SwiGLU, SwiGLUSpec

__all__ = [
    "ClampedSwiGLU",
    "ClampedSwiGLUSpec",
    "DenseSpec",
    "GELU",
    "GELUSpec",
    "GeGLU",
    "GeGLUSpec",
    "MLPSpec",
    "MixtureOfExperts",
    "MixtureOfExpertsSpec",
    "Router",
    "RouterSpec",
    "Routes",
    "SquaredReLU",
    "SquaredReLUSpec",
    "SwiGLU",
    "SwiGLUSpec",
]

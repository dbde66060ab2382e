"""Ways of changing RoPE's frequencies for contexts beyond the trained one, one file each."""

from miniwin.blocks.positions.scaling.base import ScalingSpec
from miniwin.blocks.positions.scaling.dynamic_ntk import DynamicNtkSpec
from miniwin.blocks.positions.scaling.linear import LinearSpec
from miniwin.blocks.positions.scaling.llama3 import Llama3Spec
from miniwin.blocks.positions.scaling.longrope import LongRopeSpec
from miniwin.blocks.positions.scaling.ntk import NtkSpec
from miniwin.blocks.positions.scaling.yarn import YarnSpec

__all__ = ["DynamicNtkSpec", "LinearSpec", "Llama3Spec", "LongRopeSpec", "NtkSpec", "ScalingSpec", "YarnSpec"]

"""Position encodings, one file each. A new one is a new file here and one line below."""

from miniwin.blocks.positions.alibi import Alibi, AlibiSpec
from miniwin.blocks.positions.base import PositionEncoding, ScoreBias, located
from miniwin.blocks.positions.nope import Nope, NopeSpec
from miniwin.blocks.positions.p_rope import PeriodicRope, PeriodicRopeSpec
from miniwin.blocks.positions.rope import Rope, RopeSpec

__all__ = [
    "Alibi",
    "AlibiSpec",
    "Nope",
    "NopeSpec",
    "PeriodicRope",
    "PeriodicRopeSpec",
    "PositionEncoding",
    "Rope",
    "RopeSpec",
    "ScoreBias",
    "located",
]

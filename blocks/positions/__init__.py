"""Position encodings, one file each. A new one is a new file here and one line below."""

from miniwin.blocks.positions.alibi import Alibi, AlibiSpec
from miniwin.blocks.positions.base import (
    Heads,
    PositionEncoding,
    Positions,
    PositionSpec,
    ScoreBias,
    ScoreFunction,
    located,
    located_all,
)
from miniwin.blocks.positions.forgetting import Forgetting, ForgettingSpec
from miniwin.blocks.positions.hope import Hyperbolic, HyperbolicSpec
from miniwin.blocks.positions.learned import Learned, LearnedSpec
from miniwin.blocks.positions.nope import Nope, NopeSpec
from miniwin.blocks.positions.p_rope import PeriodicRope, PeriodicRopeSpec
from miniwin.blocks.positions.per_head import PerHead, PerHeadSpec
from miniwin.blocks.positions.resonance import Resonance, ResonanceSpec
from miniwin.blocks.positions.rope import Rope, RopeSpec
from miniwin.blocks.positions.stick_breaking import StickBreaking, StickBreakingSpec
from miniwin.blocks.positions.t5 import RelativeBuckets, RelativeBucketsSpec
from miniwin.blocks.positions.token_aware_phase import TokenAwarePhase, TokenAwarePhaseSpec
from miniwin.blocks.positions.transformer_xl import TransformerXL, TransformerXLSpec

__all__ = [
    "Alibi",
    "AlibiSpec",
    "Forgetting",
    "ForgettingSpec",
    "Heads",
    "Hyperbolic",
    "HyperbolicSpec",
    "Learned",
    "LearnedSpec",
    "Nope",
    "NopeSpec",
    "PerHead",
    "PerHeadSpec",
    "PeriodicRope",
    "PeriodicRopeSpec",
    "PositionEncoding",
    "PositionSpec",
    "Positions",
    "RelativeBuckets",
    "RelativeBucketsSpec",
    "Resonance",
    "ResonanceSpec",
    "Rope",
    "RopeSpec",
    "ScoreBias",
    "ScoreFunction",
    "StickBreaking",
    "StickBreakingSpec",
    "TokenAwarePhase",
    "TokenAwarePhaseSpec",
    "TransformerXL",
    "TransformerXLSpec",
    "located",
    "located_all",
]

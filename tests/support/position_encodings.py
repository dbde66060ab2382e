"""Position encodings built alone, tokens at given positions, and the refusals of specs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import attention, tiny_spec
from torch import Tensor

from miniwin.blocks import POSITIONS, PositionEncoding
from miniwin.blocks.positions import Heads, Positions
from miniwin.specs import UserError

HEADS = Heads(hidden_size=24, num_heads=4, num_kv_heads=2, head_dim=6, window=None)


def build(heads: Heads = HEADS, **fields: Any) -> PositionEncoding:
    spec: Any = POSITIONS[fields["type"]](**fields)
    spec.check(heads)
    built: PositionEncoding = spec.build(heads)
    assert sum(p.numel() for p in built.parameters()) == spec.parameters(heads)
    return built


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def at(*places: int) -> Positions:
    return Positions(torch.tensor([places]))


def refusal(position: dict[str, Any], window: int | None = 7, **fields: Any) -> str:
    with pytest.raises(UserError) as error:
        tiny_spec({"X": attention(window, position, **fields)})
    return str(error.value)

"""The registries: one name, one block; near names for misspelt ones."""

from __future__ import annotations

from typing import Literal

import pytest

from miniwin.blocks.registry import POSITIONS, Registry
from miniwin.blocks.spec import Strict, UserError


class First(Strict):
    type: Literal["first"] = "first"


class Again(Strict):
    type: Literal["first"] = "first"


def test_a_second_block_of_the_same_name_is_refused() -> None:
    registry = Registry("position")
    registry.register(First)
    with pytest.raises(ValueError, match="position 'first' is registered twice"):
        registry.register(Again)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown position 'p-ropee': did you mean 'p-rope'\?"):
        POSITIONS["p-ropee"]
    with pytest.raises(UserError, match="unknown position 'zzz': known: alibi, forgetting, "):
        POSITIONS["zzz"]

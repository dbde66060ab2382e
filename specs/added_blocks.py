"""What a search spec says of blocks that its base model lacks: each is a copy of one that the base has, with changes.

    blocks: {W: {like: G, set: {attention.window: 512, attention.keep_first: 4}}}

A model spec has a block for every letter of its layout and no other. A layout that is searched may need more.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import JsonValue, StringConstraints, field_validator

from miniwin.specs.base import Strict
from miniwin.specs.yaml_scalars import shown

Letter = Annotated[str, StringConstraints(pattern=r"^[A-Z]$")]


class AddedBlock(Strict):
    """like: the block of the base model that it is a copy of. set: fields of it, and their values."""

    like: Letter
    set: dict[str, JsonValue] = {}

    @field_validator("set")
    @classmethod
    def _paths(cls, fields: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for path in fields:
            if not re.fullmatch(r"[a-z_0-9]+(\.[a-z_0-9]+)*", path):
                raise ValueError(f"got {shown(path)}; expected a field of the block, such as attention.window")
        return fields

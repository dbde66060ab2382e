"""Heads of one layer with different encodings: `{type: per-head, of: [{share: 0.5, type: nope}, {share: 0.5, ...}]}`.

The key/value heads are cut into groups, in the order of the list, and the query heads go with the key/value heads that
they share. Each group is a layer of its own between the projections: it has its own encoding, keys in the cache,
logits and attention backend. So two heads may read a text by content and two by recency, at the cost of neither more
parameters nor a larger cache than its groups have.

A share is a part of the key/value heads, and must come to a whole number of them. An encoding that counts heads, such
as the slopes of alibi, counts those of its group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError
from torch import Tensor, nn

from miniwin.blocks.positions.base import (
    Group,
    HeadGroup,
    Heads,
    PositionEncoding,
    Positions,
    PositionSpec,
    located,
    moved,
)
from miniwin.blocks.registry import POSITIONS
from miniwin.blocks.spec import Fraction, Strict

NEAR = 0.01  # of a head: 0.3333 is a third
_BESIDE = "the fields of an encoding stand beside its share: write {share: 0.5, type: rope}, without `position:`"


class PerHead(PositionEncoding):
    """The encodings of the groups. The attention asks each of them, and never this one as a whole.

    kv_heads: the number of key/value heads of each group.
    """

    def __init__(self, encodings: Sequence[PositionEncoding], kv_heads: Sequence[int]) -> None:
        super().__init__()
        self.encodings = nn.ModuleList(encodings)
        self.kv_heads = list(kv_heads)

    def groups(self, num_heads: int, num_kv_heads: int) -> list[HeadGroup]:
        sharing = num_heads // num_kv_heads
        pairs: Any = zip(self.encodings, self.kv_heads, strict=True)
        return [HeadGroup(encoding, sharing * count, count) for encoding, count in pairs]

    def encode(self, q: Tensor, k: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("each group of heads encodes by itself")


class ShareSpec(Strict):
    """An encoding and its share of the heads, in one mapping: `{share: 0.5, type: p-rope, period: 128}`."""

    model_config = ConfigDict(defer_build=True)

    share: Annotated[Fraction, Field(gt=0, lt=1)]
    position: POSITIONS.field()  # type: ignore[valid-type]

    @model_validator(mode="before")
    @classmethod
    def _apart(cls, data: Any) -> Any:
        """`share` and the fields of the encoding, which YAML has side by side."""
        if not isinstance(data, dict) or isinstance(data.get("position"), Strict):
            return data
        if "position" in data:
            raise located("position", _BESIDE)
        own = {name: value for name, value in data.items() if name == "share"}
        return own | {"position": {name: value for name, value in data.items() if name != "share"}}

    @model_serializer(mode="wrap")
    def _together(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data = handler(self)
        return {"share": data["share"], **data["position"]}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        kinds = [name for name in POSITIONS.names() if name != "per-head"]
        share = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
        fields = {"share": share, "type": {"type": "string", "enum": kinds}}
        about = "The other fields are those of the encoding."
        return {"type": "object", "description": about, "properties": fields, "required": [*fields]}


@POSITIONS.register
class PerHeadSpec(PositionSpec):
    """`position: {type: per-head, of: [{share: 0.5, type: nope}, {share: 0.5, type: stick-breaking}]}`"""

    # `of` holds any encoding: pydantic can build the schema only once all are registered.
    model_config = ConfigDict(defer_build=True)

    type: Literal["per-head"] = "per-head"
    of: Annotated[list[ShareSpec], Field(min_length=2, max_length=1024)]

    @property
    def _of(self) -> list[Any]:
        return [one.position for one in self.of]

    @property
    def by_distance(self) -> bool:
        return any(position.by_distance for position in self._of)

    def check(self, heads: Heads) -> None:
        for i, position in enumerate(self._of):
            if isinstance(position, PerHeadSpec):
                raise located(f"position.of.{i}.type", "got per-head within per-head; name the encoding itself")
        self._check_shares(heads.num_kv_heads)
        for group in self.groups(heads):
            try:
                group.position.check(group.heads)
            except PydanticCustomError as error:
                raise moved(error, group.path) from None

    def _check_shares(self, kv_heads: int) -> None:
        for i, one in enumerate(self.of):
            count = one.share * kv_heads
            if not (round(count) and abs(count - round(count)) < NEAR):
                low = max(int(count), 1)
                near = " or ".join(f"{n / kv_heads:.4g}" for n in (low, low + 1) if n < kv_heads) or "more num_kv_heads"
                raise located(
                    f"position.of.{i}.share",
                    f"got {one.share:g}, which is {count:.4g} of {kv_heads} key/value heads; a share is a whole number "
                    f"of them: {near} would do",
                )
        if sum(self._counts(kv_heads)) != kv_heads:
            raise located("position.of", f"got shares of {sum(one.share for one in self.of):.4g} together; expected 1")

    def _counts(self, kv_heads: int) -> list[int]:
        """The number of key/value heads of each group."""
        return [round(one.share * kv_heads) for one in self.of]

    def groups(self, heads: Heads) -> list[Group]:
        sharing, counts = heads.num_heads // heads.num_kv_heads, self._counts(heads.num_kv_heads)
        return [
            Group(position, replace(heads, num_heads=sharing * n, num_kv_heads=n), f"position.of.{i}")
            for i, (position, n) in enumerate(zip(self._of, counts, strict=True))
        ]

    def build(self, heads: Heads) -> PerHead:
        groups = self.groups(heads)
        return PerHead([g.position.build(g.heads) for g in groups], [g.heads.num_kv_heads for g in groups])

    def parameters(self, heads: Heads) -> int:
        return sum(group.position.parameters(group.heads) for group in self.groups(heads))

    def gates(self, heads: Heads) -> int:
        return sum(group.position.gates(group.heads) for group in self.groups(heads))

    def flops(self, heads: Heads) -> float:
        return sum(group.position.flops(group.heads) for group in self.groups(heads))

    def key_dim(self, heads: Heads) -> int:
        raise NotImplementedError("keys may differ from group to group")

    def canonical(self, heads: Heads) -> dict[str, Any]:
        of = [
            {"num_kv_heads": group.heads.num_kv_heads, "position": group.position.canonical(group.heads)}
            for group in self.groups(heads)
        ]
        return {"type": self.type, "of": of}

    def all_periods(self) -> list[int]:
        return sorted({period for position in self._of for period in position.all_periods()})

    def words(self) -> list[str]:
        parts = zip(self.of, self._of, strict=True)
        return ["; ".join(f"{100 * one.share:.3g}% {', '.join(position.words())}" for one, position in parts)]

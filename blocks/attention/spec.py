"""The spec of attention: its fields in YAML, their checks, and its cost."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from miniwin.blocks.attention.module import Attention, QKNorm
from miniwin.blocks.attention.split import Part, SplitAttention, parts, widest
from miniwin.blocks.attention.visibility import Visibility
from miniwin.blocks.norms.rmsnorm import NORMS
from miniwin.blocks.positions.base import Group, Heads, located
from miniwin.blocks.registry import ATTENTIONS, POSITIONS
from miniwin.blocks.spec import Count, PositiveInt, PositiveReal, Strict, facts


@ATTENTIONS.register
class AttentionSpec(Strict):
    """`attention: {num_heads: 4, num_kv_heads: 2, window: 64, position: {...}}`

    num_kv_heads: default num_heads.
    head_dim: default hidden_size / num_heads.
    window: the number of keys that a query sees, its own included; null: all so far.
    windows: in its place, a window or null for each key/value head, [null, 512]; the query heads go with them.
    chunk: tokens of a chunk; chunks do not see each other; null: no chunks.
    keep_first: the number of sink tokens, which a window never loses.
    qk_norm: a norm of queries and keys, or null.
    qk_norm_scope: whether the norm is of each head or of the whole projection.
    qk_norm_order: whether the norm comes before or after the rotation.
    score_scale: default head_dim^-0.5.
    softcap: the bound of the scores, or null.
    sinks: whether each head has a learned logit in its softmax, which takes weight away from keys.
    """

    LATER: ClassVar[frozenset[str]] = frozenset(
        (
            "windows",
            "chunk",
            "keep_first",
            "qk_norm_scope",
            "qk_norm_order",
            "qkv_bias",
            "o_bias",
            "score_scale",
            "softcap",
            "sinks",
        )
    )

    type: Literal["softmax"] = "softmax"
    num_heads: PositiveInt
    num_kv_heads: PositiveInt | None = None
    head_dim: Annotated[PositiveInt, Field(le=65_536)] | None = None
    window: PositiveInt | None = None
    windows: Annotated[list[PositiveInt | None], Field(min_length=1, max_length=4096)] | None = None
    chunk: PositiveInt | None = None
    keep_first: Annotated[Count, Field(le=65_536)] = 0
    position: POSITIONS.field()  # type: ignore[valid-type]
    qk_norm: NORMS.field() | None = None  # type: ignore[valid-type]
    qk_norm_scope: Literal["head", "all"] = "head"
    qk_norm_order: Literal["before", "after"] = "before"
    qkv_bias: bool = False
    o_bias: bool = False
    score_scale: PositiveReal | None = None
    softcap: PositiveReal | None = None
    sinks: bool = False

    @model_validator(mode="after")
    def _fits(self) -> AttentionSpec:
        if self.num_heads % self.kv_heads:
            raise located(
                "num_kv_heads", f"got {self.kv_heads}; it must divide num_heads {self.num_heads}, which share them"
            )
        if self.window is not None and self.chunk is not None:
            raise located("chunk", f"got {self.chunk} beside window {self.window}; a layer has one of them: remove one")
        if self.windows is not None:
            self._windows_fit(self.windows)
        if self.keep_first and not any(self._each):
            raise located("keep_first", f"got {self.keep_first} without a window; only a window loses its first tokens")
        if self.qk_norm is None:
            for field in ("qk_norm_scope", "qk_norm_order"):
                if getattr(self, field) != type(self).model_fields[field].default:
                    raise located(field, f"got '{getattr(self, field)}' without a qk_norm; set one, or remove this")
        return self

    def _windows_fit(self, windows: list[int | None]) -> None:
        for field in ("window", "chunk"):
            if (value := getattr(self, field)) is not None:
                raise located(
                    "windows", f"got {shown(windows)} beside {field} {value}; a layer has one of them: remove one"
                )
        if len(windows) != self.kv_heads:
            raise located(
                "windows",
                f"got {shown(windows)}, {len(windows)} of them; expected one for each key/value head, and there are "
                f"{self.kv_heads} (num_kv_heads)",
            )

    @property
    def _each(self) -> list[int | None]:
        """The windows of all key/value heads; or of the layer, if its heads do not differ."""
        return [self.window] if self.windows is None else self.windows

    @property
    def bounded(self) -> list[int]:
        """The windows of its heads, each once, the narrowest first. Empty: none has one."""
        return sorted({window for window in self._each if window is not None})

    @property
    def kv_heads(self) -> int:
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def visibility(self) -> Visibility:
        """Which keys the heads see; of several windows, those that see most."""
        window = widest(self._each)
        return Visibility(window, self.chunk, 0 if window is None else self.keep_first)

    def parts(self, hidden_size: int) -> list[tuple[Visibility, list[Group]]]:
        """The heads that see alike, by encoding, for each visibility. Usually one: all heads."""
        groups = self._position.groups(self.heads(hidden_size))
        if self.windows is None:
            return [(self.visibility, groups)]
        return [
            (part.visibility, _groups_of(part, groups, self.num_heads // self.kv_heads))
            for part in parts(self.windows, self.keep_first)
        ]

    @property
    def _position(self) -> Any:
        return self.position

    def heads(self, hidden_size: int) -> Heads:
        """The sizes that the position encoding is built for."""
        head_dim = self.head_dim or hidden_size // self.num_heads
        return Heads(hidden_size, self.num_heads, self.kv_heads, head_dim, self.visibility.reach)

    def resolve(self, hidden_size: int) -> AttentionSpec:
        """The spec with every default that depends on hidden_size filled in. Raises `located` if it does not fit."""
        if self.head_dim is None and hidden_size % self.num_heads:
            raise located(
                "num_heads",
                f"got {self.num_heads}; it must divide hidden_size {hidden_size}, or give head_dim explicitly",
            )
        heads = self.heads(hidden_size)
        for window in sorted(set(self._each), key=lambda one: math.inf if one is None else one, reverse=True):
            try:
                self._position.check(heads if self.windows is None else replace(heads, window=window))
            except PydanticCustomError as error:
                raise self._of_windows(error, window) from None
        groups = self._position.groups(heads)
        for group in groups:
            name = group.position.type if len(groups) == 1 else f"{group.position.type} ({group.path})"
            self._check_group(group, name)
        filled: dict[str, Any] = {"head_dim": heads.head_dim, "num_kv_heads": self.kv_heads}
        if self.windows is not None and len(set(self.windows)) == 1:  # the same as one window for all
            filled |= {"window": self.windows[0], "windows": None}
        return self.model_copy(update=filled)

    def _of_windows(self, error: PydanticCustomError, window: int | None) -> PydanticCustomError:
        """The error of an encoding that minds a window, which stands in `windows`."""
        context: dict[str, Any] = dict(error.context or {})
        if self.windows is None:
            return error
        where = f"windows.{self.windows.index(window)}"
        if context["at"] == "window":
            return located(where, context["message"])
        return located(context["at"], f"{context['message']} (it is {where} that does not fit)")

    def _check_group(self, group: Group, name: str) -> None:
        """Raise `located` if these heads' encoding does not go together with the rest of the spec."""
        if self.qk_norm_order == "after" and group.position.key_dim(group.heads) != group.heads.head_dim:
            raise located("qk_norm_order", f"got 'after', and {name} widens the keys; use 'before'")
        if group.position.weighting != "softmax" and self.sinks:
            raise located("sinks", f"{name} attention has no softmax for a sink to draw on; remove it")
        if self.keep_first and group.position.by_distance:
            raise located(
                "keep_first",
                f"got {self.keep_first} with {name}, whose scores depend on the number of tokens from key to query; a "
                "first token behind the window has no such number: remove keep_first, or use a rotary encoding or nope",
            )

    def build(self, hidden_size: int) -> Attention:
        heads = self.heads(hidden_size)
        fields: dict[str, Any] = {
            "hidden_size": hidden_size,
            "num_heads": self.num_heads,
            "num_kv_heads": self.kv_heads,
            "head_dim": heads.head_dim,
            "position": self._position.build(heads),
            "qk_norm": self._build_qk_norm(heads),
            "qkv_bias": self.qkv_bias,
            "o_bias": self.o_bias,
            "score_scale": self.score_scale,
            "softcap": self.softcap,
            "sinks": self.sinks,
        }
        if self.windows is None:
            return Attention(visibility=self.visibility, **fields)
        return SplitAttention(windows=self.windows, keep_first=self.keep_first, **fields)

    def _build_qk_norm(self, heads: Heads) -> QKNorm | None:
        norm: Any = self.qk_norm
        if norm is None:
            return None
        q, k = (norm.build(size) for size in self._norm_sizes(heads))
        return QKNorm(q, k, self.qk_norm_scope == "all", self.qk_norm_order == "after")

    def _norm_sizes(self, heads: Heads) -> tuple[int, int]:
        if self.qk_norm_scope == "head":
            return heads.head_dim, heads.head_dim
        return self.num_heads * heads.head_dim, self.kv_heads * heads.head_dim

    def canonical(self, hidden_size: int) -> dict[str, Any]:
        """The facts that decide the computed function. Specs of the same function have equal ones."""
        resolved = self.resolve(hidden_size)
        heads = self.heads(hidden_size)
        data = {**facts(resolved), "position": self._position.canonical(heads)}
        if self.score_scale == heads.head_dim**-0.5:
            del data["score_scale"]
        return data

    def parameters(self, hidden_size: int) -> int:
        heads = self.heads(hidden_size)
        norm: Any = self.qk_norm
        norms = 0 if norm is None else sum(norm.parameters(size) for size in self._norm_sizes(heads))
        biases = (self.num_heads + 2 * self.kv_heads) * heads.head_dim if self.qkv_bias else 0
        biases += hidden_size if self.o_bias else 0
        sinks = self.num_heads if self.sinks else 0
        return self._projections(heads) + biases + norms + sinks + int(self._position.parameters(heads))

    def _projections(self, heads: Heads) -> int:
        return 2 * heads.hidden_size * heads.head_dim * (self.num_heads + self.kv_heads)

    def flops(self, hidden_size: int, length: int) -> float:
        """Forward floating-point operations per token: the mean over a prefill of `length` tokens.

        Two for each weight of a projection. For each visible key, two for each channel of key and of value. Softmax,
        norms and rotations do not count.
        """
        heads = self.heads(hidden_size)
        own = 2.0 * self._projections(heads) + float(self._position.flops(heads))
        for visibility, groups in self.parts(hidden_size):
            per_key = sum(
                2.0 * group.heads.num_heads * (group.position.key_dim(group.heads) + heads.head_dim) for group in groups
            )
            own += per_key * visibility.mean_visible(length)
        return own

    def cache_bytes(self, hidden_size: int, length: int, itemsize: int) -> int:
        """Bytes of the cache for one sequence of `length` tokens: keys and values of `itemsize` bytes, and gates.

        itemsize 1 is int8: each head then has two float32 scales, and heads with a window store bfloat16 instead.
        """
        head_dim = self.heads(hidden_size).head_dim
        total = 0
        for visibility, groups in self.parts(hidden_size):
            int8 = itemsize == 1 and visibility.reach is None
            size = 2 if itemsize == 1 and not int8 else itemsize
            entry = sum(
                group.heads.num_kv_heads
                * ((group.position.key_dim(group.heads) + head_dim) * size + (8 if int8 else 0))
                + group.position.gates(group.heads) * max(itemsize, 4)
                for group in groups
            )
            total += int(visibility.entries(length) * entry)
        return total


def _groups_of(part: Part, groups: list[Group], sharing: int) -> list[Group]:
    """The heads of a part in each group of heads, where there are some. sharing: query heads of a key/value head."""
    found, before = [], 0
    for group in groups:
        own = sum(end - first for first, end in part.within(before, before + group.heads.num_kv_heads))
        before += group.heads.num_kv_heads
        if own:
            reach = part.visibility.reach
            found.append(
                replace(group, heads=replace(group.heads, num_heads=own * sharing, num_kv_heads=own, window=reach))
            )
    return found


def shown(windows: list[int | None]) -> str:
    """Windows as YAML writes them, the first few: `[null, 512, ...]`."""
    some = ["null" if window is None else str(window) for window in windows[:6]]
    return f"[{', '.join(some)}{', ...' if len(windows) > 6 else ''}]"

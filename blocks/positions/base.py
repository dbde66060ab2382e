"""The contract of a position encoding: its spec, its module, and where tokens stand.

An encoding may act in five places, and a subclass overrides only those it uses:

    encode      queries and keys, before the scores            (rotary encodings, learned vectors)
    score_bias  added to the scaled scores, by distance        (ALiBi, T5)
    query_scale multiplies each query by a function of how many keys it can see (logit scaling)
    log_gates   a gate per token and head, by which older keys fade (forgetting attention)
    score       replaces the dot product of query and key      (token-aware phase)

Shapes: B batch, N tokens, H heads, Hkv key/value heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from miniwin.blocks.documents import Documents
from miniwin.blocks.spec import Strict, facts

# Distances i - j, (n, m) int64 -> bias (H, n, m) float32, added to the scaled scores.
ScoreBias = Callable[[Tensor], Tensor]
# q (B, n, H, Dk), k (B, m, Hkv, Dk), distances (n, m) int64 -> scores (B, H, n, m) float32, not yet scaled.
ScoreFunction = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Heads:
    """The sizes that a position encoding is built for. window: the most keys that a query sees; None: all so far."""

    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    window: int | None


@dataclass(frozen=True)
class Positions:
    """Where the tokens of one call stand.

    index (1 or B, N) int64: the number of tokens before each token in its row; 0 at the first real token.
    mean (1 or B, N) float64: positions that the caller gives, in place of the index. They are real numbers, such as the
        centre of a span.
    variance (1 or B, N) float64: the variance of each given position; None: the positions are exact.
    documents: set if rows hold several documents. The index then counts from the first token of each document.
    shared: results that layers share. The first layer that needs one computes it from these positions.
    """

    index: Tensor
    mean: Tensor | None = None
    variance: Tensor | None = None
    documents: Documents | None = None
    shared: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def part(self, tokens: slice) -> Positions:
        """The positions of a slice of the tokens. Positions with documents cannot be cut."""
        assert self.documents is None
        index, mean, variance = (None if t is None else t[:, tokens] for t in (self.index, self.mean, self.variance))
        assert index is not None
        return Positions(index, mean, variance)


@dataclass(frozen=True)
class HeadGroup:
    """Some of a layer's heads, and how positions act on them."""

    encoding: PositionEncoding
    num_heads: int
    num_kv_heads: int


class PositionEncoding(nn.Module):
    """No encoding at all: every hook does nothing."""

    # Why the encoding cannot use positions that the caller gives; None if it can.
    counts_tokens: str | None = None
    # Why it cannot use the variance of given positions; None if it can.
    needs_exact: str | None = None
    weighting: Literal["softmax", "stick-breaking"] = "softmax"
    # Names of its own parameters that get no weight decay: tables and vectors.
    undecayed: tuple[str, ...] = ()
    # Names of its tables with a row for each position, from the first on. A longer table begins with a shorter one.
    rows_of_positions: tuple[str, ...] = ()

    def groups(self, num_heads: int, num_kv_heads: int) -> list[HeadGroup]:
        """The groups of heads with an encoding of their own, in the order of the heads. Usually one: all heads."""
        return [HeadGroup(self, num_heads, num_kv_heads)]

    @property
    def scales_queries(self) -> bool:
        """Whether it has a `query_scale`."""
        return type(self).query_scale is not PositionEncoding.query_scale

    def encode(self, q: Tensor, k: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
        """Put positions into queries (B, N, H, D) and keys (B, N, Hkv, D). The last dimension may widen."""
        return q, k

    def score_bias(self) -> ScoreBias | None:
        """The bias that this encoding adds to scores, or None."""
        return None

    def query_scale(self, visible: Tensor, total: int) -> Tensor | None:
        """Per-query multiplier, broadcastable to (B, N, H, 1), or None.

        visible (1 or B, N): how many keys each query sees, itself included. total: keys in this call.
        """
        return None

    def log_gates(self, x: Tensor) -> Tensor | None:
        """Logarithms of forget gates (B, N, H), at most 0, from the layer's input x (B, N, hidden_size); or None."""
        return None

    def score(self) -> ScoreFunction | None:
        """The function that replaces the dot product of query and key, or None."""
        return None


class PositionSpec(Strict):
    """Base of every position encoding's spec."""

    type: str

    def groups(self, heads: Heads) -> list[Group]:
        """The groups of heads with an encoding of their own, in the order of the heads. Usually one: all heads."""
        return [Group(self, heads, "position")]

    def check(self, heads: Heads) -> None:
        """Raise `located` if the spec does not fit these heads."""

    def build(self, heads: Heads) -> PositionEncoding:
        raise NotImplementedError

    def parameters(self, heads: Heads) -> int:
        return 0

    @property
    def by_distance(self) -> bool:
        """Whether a weight depends on how many keys lie between: by bias, gates, score function or stick-breaking."""
        return False

    @property
    def weighting(self) -> str:
        """How scores become weights: softmax, or stick-breaking."""
        return "softmax"

    def key_dim(self, heads: Heads) -> int:
        """The last dimension of queries and keys after `encode`."""
        return heads.head_dim

    def gates(self, heads: Heads) -> int:
        """Float32 numbers that the cache holds for each token besides its key and value."""
        return 0

    def flops(self, heads: Heads) -> float:
        """Forward floating-point operations per token of its own matrix products."""
        return 0.0

    def canonical(self, heads: Heads) -> dict[str, Any]:
        """The facts that decide the computed function. Specs of the same function have equal ones."""
        return facts(self)

    def frequencies(self, heads: Heads) -> Tensor | None:
        """(K,) float64: radians per token of each rotated pair of channels, scaling included; None if none rotates."""
        return None

    def all_periods(self) -> list[int]:
        """The periods of its angles in tokens, each once, the shortest first. Empty: it is not periodic."""
        return []

    def words(self) -> list[str]:
        """The encoding in a few words, for people."""
        return [self.type]


@dataclass(frozen=True)
class Group:
    """Some heads of a layer and their encoding. path: where the encoding stands in the attention's spec."""

    position: PositionSpec
    heads: Heads
    path: str


def located(path: str, message: str) -> PydanticCustomError:
    """A validation error of a field that lies deeper than the spec that raises it. path: relative to that spec."""
    return PydanticCustomError("located", "{message}", {"message": message, "at": path})


def located_all(problems: list[tuple[str, str]]) -> PydanticCustomError:
    """One error for several problems, each a path and a message as for `located`."""
    path, message = problems[0]
    return PydanticCustomError("located", "{message}", {"message": message, "at": path, "all": problems})


def moved(error: PydanticCustomError, path: str) -> PydanticCustomError:
    """The error of an encoding that stands at `path`: `position.then.period` where it says `position.period`.

    Where it names another field, such as `window`, the message says which encoding minds.
    """
    context: dict[str, Any] = dict(error.context or {})
    problems = context.get("all", [(context["at"], context["message"])])
    return located_all([_below(path, at, message) for at, message in problems])


def _below(path: str, at: str, message: str) -> tuple[str, str]:
    if at.startswith("position."):
        return at.replace("position", path, 1), message
    return at, f"{message} (it is {path} that minds)"

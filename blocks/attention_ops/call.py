"""What every attention backend is asked: one call, and what in it is beyond a plain kernel.

Shapes: q (B, N, H, Dk); k (B, M, Hkv, Dk); v (B, M, Hkv, Dv); M >= N, Hkv divides H. The queries are the last N of the
M keys' tokens: query i stands at key index M - N + i. Query head h reads key/value head h // (H / Hkv).

    s_ij = scale * <q_i, k_j>  (or scale * score(q_i, k_j, i - j));   s <- cap * tanh(s / cap);
    s_ij += bias(i - j) + sum of log_gates over t = j+1 .. i;   out_i = sum_j softmax(s_i)_j v_j over the visible j
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import MISSING, dataclass, fields
from functools import cache, cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from miniwin.blocks.documents import Documents
from miniwin.blocks.positions.base import ScoreBias, ScoreFunction

# What a field is called in a backend's reason for declining it; one that is not here goes by its name.
WORDS = {
    "bias": "score bias",
    "pad": "left padding",
    "kept": "kept first tokens",
    "sinks": "attention sinks",
    "softcap": "score soft-cap",
    "log_gates": "forget gates",
    "score": "score function in place of the dot product",
    "weighting": "weighting other than softmax",
    "value_dim": "values of another head_dim than the keys'",
    "documents": "rows of several documents",
}
NO_STICK = frozenset({"sinks", "kept", "log_gates"})  # features without a meaning for stick-breaking weights


def dense(t: Tensor) -> Tensor:
    """The same tensor, its last dimension contiguous, as the CPU kernels need it."""
    return t if t.stride(-1) == 1 else t.contiguous()


@cache
def capability(device: torch.device) -> tuple[int, int] | None:
    """A GPU's compute capability; None where there is none, and a call is only asked about."""
    return torch.cuda.get_device_capability(device) if torch.cuda.is_available() else None


@dataclass(frozen=True)
class Kept:
    """First tokens of each row, kept in sight of a windowed layer (StreamingLLM, arXiv 2309.17453).

    k (B, S, Hkv, Dk), v (B, S, Hkv, Dv): scored like other keys, but with no bias and no gates.
    seen (1 or B, N, S) bool: which of them each query sees; not those that it already sees in its window.
    """

    k: Tensor
    v: Tensor
    seen: Tensor


@dataclass(frozen=True)
class AttentionCall:
    """q, k, v as above.

    scale: multiplies the scores. window: keys a query sees at most, itself included; None is all.
    bias: added to the scaled scores, a function of distance. pad (B,): how many leading keys of each row are padding,
    seen by nobody but themselves; None is none.
    chunk: a query sees only keys of its own chunk of the row, position // chunk. start (1 or B,): position of key 0 in
    its row, negative where padding leads; None is 0; only `chunk` looks at it.
    kept: further keys. sinks (H,): logit of one more key, of zero value. softcap: bound of the scaled scores.
    log_gates (B, M, H): logarithms of forget gates, at most 0. score: replaces the dot product.
    weighting: how scores become weights. "stick-breaking" (arXiv 2410.17980): from the nearest on, each earlier key
    breaks its share off what is left, A_ij = sigmoid(s_ij) * prod_{j < k < i} (1 - sigmoid(s_ik)); i itself has none.
    documents: of rows that hold several; a query sees only keys of its own, and `chunk` counts from its first token.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    window: int | None = None
    bias: ScoreBias | None = None
    pad: Tensor | None = None
    chunk: int | None = None
    start: Tensor | None = None
    kept: Kept | None = None
    sinks: Tensor | None = None
    softcap: float | None = None
    log_gates: Tensor | None = None
    score: ScoreFunction | None = None
    weighting: Literal["softmax", "stick-breaking"] = "softmax"
    documents: Documents | None = None

    @property
    def offset(self) -> int:
        """Keys that came before the first query."""
        return self.k.shape[1] - self.q.shape[1]

    @cached_property
    def features(self) -> frozenset[str]:
        """What makes this call more than causal attention: the fields set, and `value_dim` where Dv is not Dk.

        Whatever field is added to this class is here too, so that no backend can fail to notice it.
        """
        optional = {f.name: f.default for f in fields(self) if f.default is not MISSING and f.name != "start"}
        values = ((name, getattr(self, name), default) for name, default in optional.items())
        # A tensor has no single answer to `!=`, so None is asked for first.
        found = {name for name, value, default in values if value is not None and (default is None or value != default)}
        return frozenset(found | ({"value_dim"} if self.v.shape[-1] != self.k.shape[-1] else set()))

    def beyond(self, honoured: Collection[str]) -> str | None:
        """A reason to decline: features of this call that are not honoured, or that nobody can honour together."""
        rest = sorted(self.features.difference(honoured))
        if rest:
            return "it takes no " + ", no ".join(WORDS.get(name, name) for name in rest)
        if self.window is not None and self.chunk is not None:
            return "a window and a chunk both say which keys are seen"
        if self.weighting == "stick-breaking" and not self.features.isdisjoint(NO_STICK):
            return "stick-breaking weights have no denominator, and go by one order: no sinks, kept tokens or gates"
        if self.documents is not None and (self.offset or not self.features.isdisjoint({"pad", "kept"})):
            return "rows of several documents are whole ones: no cache, no padding, no kept first tokens"
        if self.kept is not None and self.score is not None:
            return "a score function goes by distance, and kept first tokens have none"
        return None

    def row_index(self) -> Tensor:
        """(1 or B, M) int64: the position of each key in its row, or in its document."""
        if self.documents is not None:
            return self.documents.index
        key = torch.arange(self.k.shape[1], device=self.k.device)
        return key.unsqueeze(0) if self.start is None else key + self.start.view(-1, 1)

    @property
    def wide(self) -> torch.dtype:
        """What scores are computed in where a backend is free to choose."""
        return torch.float64 if self.q.dtype == torch.float64 else torch.float32


def one_query(call: AttentionCall) -> str | None:
    """Why a backend that cuts rows into blocks is ill suited to a call of one query; None for a call of several."""
    if call.q.shape[1] == 1:
        return "one query needs no cutting up: its window is already cut out of the keys"
    return None


def unnarrowed(device: torch.device) -> AbstractContextManager[Any]:
    """No autocast: it would narrow products that a backend has widened on purpose."""
    known = torch.amp.is_autocast_available(device.type)  # not on meta
    return torch.autocast(device.type if known else "cpu", enabled=False)

"""The call that every attention backend answers, and the features of a call beyond plain causal attention.

Shapes: q (B, N, H, Dk); k (B, M, Hkv, Dk); v (B, M, Hkv, Dv); M >= N, Hkv divides H. The queries belong to the last N
of the M tokens: query i stands at key index M - N + i. Query head h reads key/value head h // (H / Hkv).

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

# Names of fields in a backend's reason to decline. A field that is not here goes by its own name.
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
NO_STICK = frozenset({"sinks", "kept", "log_gates"})  # features that make no sense with stick-breaking weights


def dense(t: Tensor) -> Tensor:
    """The tensor with its last dimension contiguous, which the CPU kernels need. Copies only if it has to."""
    return t if t.stride(-1) == 1 else t.contiguous()


@cache
def capability(device: torch.device) -> tuple[int, int] | None:
    """A GPU's compute capability. None without a GPU: `miniwin explain` asks about calls that do not run here."""
    return torch.cuda.get_device_capability(device) if torch.cuda.is_available() else None


@dataclass(frozen=True)
class Kept:
    """Sink tokens: the first tokens of each row, visible beyond the window (StreamingLLM, arXiv 2309.17453).

    k (B, S, Hkv, Dk), v (B, S, Hkv, Dv): scored like other keys, but without bias and gates.
    seen (1 or B, N, S) bool: whether a query sees a sink token. False for sink tokens that are in the query's window.
    """

    k: Tensor
    v: Tensor
    seen: Tensor


@dataclass(frozen=True)
class AttentionCall:
    """q, k, v as above.

    scale: multiplies the scores.
    window: the most keys that a query sees, its own included; None: all so far.
    bias: a function of distance, added to the scaled scores.
    pad (B,): the number of leading keys of each row that are padding. Only a padding token itself sees its key.
    chunk: a query sees only keys of its own chunk of the row, position // chunk.
    start (1 or B,): the position of key 0 in its row, negative if padding leads; None: 0. Only `chunk` reads it.
    kept: sink tokens, as further keys.
    sinks (H,): the logit of one more key, whose value is zero.
    softcap: the bound of the scaled scores.
    log_gates (B, M, H): logarithms of forget gates, at most 0.
    score: replaces the dot product.
    weighting: how scores become weights. "stick-breaking" (arXiv 2410.17980): starting at the nearest, each earlier key
        takes its share of the rest, A_ij = sigmoid(s_ij) * prod_{j < k < i} (1 - sigmoid(s_ik)); A_ii = 0.
    documents: the documents of rows that hold several. A query sees only keys of its own document, and `chunk` counts
        from the document's first token.
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
        """The number of keys before the first query's own: M - N."""
        return self.k.shape[1] - self.q.shape[1]

    @cached_property
    def features(self) -> frozenset[str]:
        """The features beyond causal attention: the names of the fields that are set, and `value_dim` if Dv is not Dk.

        A field that is added to this class becomes a feature by itself, so no backend can overlook it.
        """
        optional = {f.name: f.default for f in fields(self) if f.default is not MISSING and f.name != "start"}
        values = ((name, getattr(self, name), default) for name, default in optional.items())
        # None is tested first, since `!=` on a tensor gives a tensor.
        found = {name for name, value, default in values if value is not None and (default is None or value != default)}
        return frozenset(found | ({"value_dim"} if self.v.shape[-1] != self.k.shape[-1] else set()))

    def beyond(self, honoured: Collection[str]) -> str | None:
        """A reason to decline, or None: a feature is not among `honoured`, or no backend could honour two together."""
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
        """The position of each key in its row, or in its document: (1 or B, M) int64."""
        if self.documents is not None:
            return self.documents.index
        key = torch.arange(self.k.shape[1], device=self.k.device)
        return key.unsqueeze(0) if self.start is None else key + self.start.view(-1, 1)

    @property
    def wide(self) -> torch.dtype:
        """The dtype for scores, in backends that can choose it: float64 for float64 queries, else float32."""
        return torch.float64 if self.q.dtype == torch.float64 else torch.float32


def one_query(call: AttentionCall) -> str | None:
    """Why a backend that cuts rows into blocks is ill suited to a call of one query; None if there are several."""
    if call.q.shape[1] == 1:
        return "one query needs no cutting up: its window is already cut out of the keys"
    return None


def unnarrowed(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast switched off. It would narrow products that a backend has widened on purpose."""
    known = torch.amp.is_autocast_available(device.type)  # not on meta
    return torch.autocast(device.type if known else "cpu", enabled=False)

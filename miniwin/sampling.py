"""Turning one row of logits into the next token: temperature, top-k, top-p (nucleus) and min-p.

    p = softmax(logits / temperature), then in this order, each on what the one before it left over,
    renormalised: top-k   keep the k most probable tokens                                     (0: all) top-p
    keep the smallest set whose probabilities add up to at least top_p  (1: all)   arXiv:1904.09751 min-p
    keep tokens with probability >= min_p * the largest one             (0: all)   arXiv:2407.01082

The order is that of Hugging Face transformers. Exactly k tokens survive top-k: between equal logits the lower
id wins, so that a result never depends on how a sort breaks ties. Temperature 0 is greedy: the first largest
logit.

Shapes: V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from miniwin.specs import UserError


@dataclass(frozen=True)
class Sampling:
    """Checked sampling settings; the values are refused at construction, before anything is computed."""

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "min_p"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise UserError(f"{name}: expected a finite number, got {value!r}")
        if self.temperature < 0:
            raise UserError(f"temperature: expected 0 (greedy) or more, got {self.temperature}")
        if isinstance(self.top_k, bool) or not isinstance(self.top_k, int) or self.top_k < 0:
            raise UserError(f"top_k: expected a whole number, 0 (off) or more, got {self.top_k!r}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p: expected more than 0 and at most 1 (off), got {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise UserError(f"min_p: expected 0 (off) to 1, got {self.min_p}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """What the next token is drawn from: logits (V,) -> float64 probabilities (V,), summing to 1."""
    logits = logits.to(torch.float64)
    if sampling.greedy:
        return torch.nn.functional.one_hot(logits.argmax(), logits.numel()).to(torch.float64)
    # Subtracting the maximum first keeps the smallest temperatures finite.
    ranked, order = torch.sort((logits - logits.max()) / sampling.temperature, descending=True, stable=True)
    if 0 < sampling.top_k < ranked.numel():
        ranked = ranked[: sampling.top_k]
    kept = torch.softmax(ranked, dim=0)  # (K,) most probable first
    if sampling.top_p < 1:
        before = kept.cumsum(0) - kept  # probability of everything ranked above this token
        kept = _renormalise(kept * (before < sampling.top_p))
    if sampling.min_p > 0:
        kept = _renormalise(kept * (kept >= sampling.min_p * kept[0]))
    result = torch.zeros_like(logits)
    result[order[: kept.numel()]] = kept
    return result


def _renormalise(weights: Tensor) -> Tensor:
    return weights / weights.sum()


def sample(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """Draw the next id from logits (V,), on the CPU: a seed gives the same draws on every device."""
    logits = logits.detach().to("cpu", torch.float64)
    if bool(torch.isnan(logits).any()) or not bool(torch.isfinite(logits.max())):
        raise UserError(
            "the model's logits are not finite: its weights have diverged, so no token can be drawn from it"
        )
    if sampling.greedy:
        return int(logits.argmax())
    return int(torch.multinomial(probabilities(logits, sampling), 1, generator=generator))

"""Turning logits into the next token: temperature, top-k, top-p (nucleus) and min-p.

    p = softmax(logits / temperature)

    top-k   keep the k most probable tokens                                      (0: all)
    top-p   keep the smallest set whose probabilities add up to at least top_p   (1: all)   arXiv:1904.09751
    min-p   keep tokens with probability >= min_p * the largest one              (0: all)   arXiv:2407.01082

The three apply in this order, each to what the one before left, renormalised. The order is that of Hugging Face
transformers. Exactly k tokens survive top-k: between equal logits the lower id wins, so that a result never depends on
how a sort breaks ties. Temperature 0 is greedy: the first of the largest logits.

A token is drawn with one uniform number u: it is the first id up to which the probabilities add up to more than u.

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import torch
from torch import Tensor

from miniwin.specs import UserError


def is_number(value: object, kind: type) -> bool:
    """Whether `value` is a number of this kind (Integral, Real), Python's or numpy's. True and False are not."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _finite(name: str, value: float) -> float:
    try:
        number = float(value) if is_number(value, Real) else math.nan
    except OverflowError:  # a whole number such as 10**400
        number = math.inf
    if not math.isfinite(number):
        raise UserError(f"{name}: expected a finite number, got {value!r}")
    return number


@dataclass(frozen=True)
class Sampling:
    """Sampling settings. A wrong value raises UserError here, before anything is computed."""

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "min_p"):
            object.__setattr__(self, name, _finite(name, getattr(self, name)))
        if self.temperature < 0:
            raise UserError(f"temperature: expected 0 (greedy) or more, got {self.temperature}")
        if not is_number(self.top_k, Integral) or self.top_k < 0:
            raise UserError(f"top_k: expected a whole number, 0 (off) or more, got {self.top_k!r}")
        object.__setattr__(self, "top_k", int(self.top_k))
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p: expected more than 0 and at most 1 (off), got {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise UserError(f"min_p: expected 0 (off) to 1, got {self.min_p}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def ranks(self, tokens: int) -> bool:
        """Whether the tokens have to be ranked, of so many."""
        return 0 < self.top_k < tokens or self.top_p < 1


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """What the next token is drawn from: logits (V,) -> float64 probabilities (V,), summing to 1."""
    logits = logits.to(torch.float64)
    if sampling.greedy:
        return torch.nn.functional.one_hot(logits.argmax(), logits.numel()).to(torch.float64)
    if not sampling.ranks(logits.numel()):
        return _unranked(logits.unsqueeze(0), [sampling])[0]
    # Subtracting the maximum first keeps the smallest temperatures finite.
    ranked, order = torch.sort((logits - logits.max()) / sampling.temperature, descending=True, stable=True)
    if 0 < sampling.top_k < ranked.numel():
        ranked = ranked[: sampling.top_k]
    kept = torch.softmax(ranked, dim=0)  # (K,) most probable first
    if sampling.top_p < 1:
        before = kept.cumsum(0) - kept  # (K,) probability of everything ranked above each token
        kept = _renormalise(kept * (before < sampling.top_p))
    if sampling.min_p > 0:
        kept = _renormalise(kept * (kept >= sampling.min_p * kept[0]))
    result = torch.zeros_like(logits)
    result[order[: kept.numel()]] = kept
    return result


def _unranked(logits: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """`probabilities` of rows (R, V) float64 whose tokens need not be ranked, without sorting them."""
    pairs = [(one.temperature, one.min_p) for one in samplings]
    temperature, least = torch.tensor(pairs, dtype=torch.float64, device="cpu").t()
    kept = torch.softmax((logits - logits.amax(1, keepdim=True)) / temperature.unsqueeze(1), 1)
    if any(one.min_p > 0 for one in samplings):
        kept = kept * (kept >= least.unsqueeze(1) * kept.amax(1, keepdim=True))
        kept /= kept.sum(1, keepdim=True)
    return kept


def _renormalise(weights: Tensor) -> Tensor:
    return weights / weights.sum()


def sample(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """Draw the next id from logits (V,), on the CPU: a seed gives the same draws on every device.

    Raises:
        UserError: the logits are not finite.
    """
    logits = _checked(logits)
    if sampling.greedy:
        return int(logits.argmax())
    return draw(probabilities(logits, sampling), generator)


def distribution(logits: Tensor, sampling: Sampling) -> Tensor:
    """What `sample` draws from, on the CPU: logits (V,) -> float64 probabilities (V,).

    Raises:
        UserError: the logits are not finite.
    """
    return probabilities(_checked(logits), sampling)


def sample_rows(logits: Tensor, samplings: Sequence[Sampling], generators: Sequence[torch.Generator]) -> list[int]:
    """`sample` of each row of finite logits (R, V), in less time."""
    ids: list[int] = logits.argmax(1).tolist()
    drawn = [row for row, one in enumerate(samplings) if not one.greedy]
    if not drawn:
        return ids
    some = logits.detach().to("cpu", torch.float64)[drawn]
    weights = _unranked(some, [samplings[row] for row in drawn])
    for i, row in enumerate(drawn):
        if samplings[row].ranks(some.shape[1]):
            weights[i] = probabilities(some[i], samplings[row])
    for row, token in zip(drawn, _drawn(weights, [generators[row] for row in drawn]), strict=True):
        ids[row] = token
    return ids


def draw(weights: Tensor, generator: torch.Generator) -> int:
    """Draw an id with probabilities in proportion to weights (V,)."""
    return _drawn(weights.unsqueeze(0), [generator])[0]


def _drawn(weights: Tensor, generators: Sequence[torch.Generator]) -> list[int]:
    """An id for each row of weights (R, V) float64, not negative and not all 0."""
    sums = weights.cumsum(1)
    # (R, 1) each. Rounding may give the sum itself.
    numbers = torch.stack([torch.rand(1, dtype=torch.float64, device="cpu", generator=one) for one in generators])
    most = torch.nextafter(sums[:, -1:], torch.zeros_like(sums[:, -1:]))
    found: list[int] = torch.searchsorted(sums, torch.minimum(numbers * sums[:, -1:], most), right=True)[:, 0].tolist()
    return found


def _checked(logits: Tensor) -> Tensor:
    logits = logits.detach().to("cpu", torch.float64)
    if bool(torch.isnan(logits).any()) or not bool(torch.isfinite(logits.max())):
        raise UserError(
            "the model's logits are not finite: its weights have diverged, so no token can be drawn from it"
        )
    return logits

"""Learning the gates: those stay open that the model misses most, and ever fewer may.

A row a step. The loss compares what the gated model says with what the original says, in nats per token:

    loss = text_weight * KL(original || gated) over text + the same over the tokens of answers

After a step in the direction of Adam (Kingma and Ba, arXiv 1412.6980) the gates are projected onto {0 <= gate <= 1,
sum <= open}: all lose the same amount, and stay within 0 and 1. `open` falls from all units to the number that is
wanted, by the same factor each step. In the last steps, when it falls no more, each gate is also pushed to the nearer
end, since a unit that is half open is no placement. Units that retrieve together are judged together, as long as not
too few are left: so with few gates open this finds no group any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from miniwin.search.adapt.gates import GatedLayers
from miniwin.search.adapt.plan import Placement
from miniwin.search.adapt.rows import Row
from miniwin.search.adapt.scoring import text_places

RATE, BETAS, SMALL = 0.15, (0.8, 0.9), 1e-4
FALLING = 0.8  # of the steps
PUSH = 0.5  # at the end, of a step


@dataclass(frozen=True)
class GateStep:
    """After a step. values: of the gates. first, second: averages of gradients and of their squares. text, answers:
    KL in nats a token, with the gates before the step."""

    values: tuple[float, ...]
    first: tuple[float, ...]
    second: tuple[float, ...]
    text: float
    answers: float
    seconds: float


def learn(
    gated: GatedLayers,
    rows: Sequence[Row],
    size: int,
    text_weight: float,
    text_every: int,
    done: Sequence[GateStep] = (),
    keep: Callable[[int, GateStep], object] = lambda number, step: None,
) -> list[GateStep]:
    """A step for each row. size: gates that stay open. done: the first steps, if they were made before. keep: is told
    each new one."""
    weights = [p for p in gated.shared.decoder.parameters() if p.requires_grad]
    units, steps = len(gated.shared.plan.units), list(done)
    for weight in weights:
        weight.requires_grad_(False)
    try:
        for number in range(len(steps), len(rows)):
            began = time.monotonic()
            values = steps[-1].values if steps else (1.0,) * units
            gradient, text, answers = _gradient(gated, values, rows[number], text_weight, text_every)
            first, second, moved = _moved(values, steps[-1] if steps else None, gradient, number, len(rows), size)
            steps.append(GateStep(moved, first, second, text, answers, time.monotonic() - began))
            keep(number, steps[-1])
    finally:
        for weight in weights:
            weight.requires_grad_(True)
    return steps


def _gradient(
    gated: GatedLayers, values: Sequence[float], row: Row, text_weight: float, every: int
) -> tuple[Tensor, float, float]:
    """Of the loss on a row, for each gate (float64), and its two parts."""
    shared = gated.shared
    ids = torch.tensor([row.ids], device=shared.decoder.embed_tokens.weight.device)
    text = text_places(row, every)
    answers = [place for one in row.answers if one.judged for place in range(one.start, one.stop)]
    before = torch.tensor([*text, *answers], device=ids.device) - 1
    with torch.no_grad():
        original = shared.decoder.logits(shared.hidden(shared.plan.original, ids)[0, before]).log_softmax(-1)
    gates = torch.tensor(values, device=ids.device, dtype=torch.float32, requires_grad=True)
    with torch.enable_grad():
        said = shared.decoder.logits(gated.hidden(gates, ids)[0, before]).log_softmax(-1)
        apart = (original.exp() * (original - said)).sum(-1)
        parts = [some.mean() if len(some) else apart.new_zeros(()) for some in apart.split([len(text), len(answers)])]
        (found,) = torch.autograd.grad(text_weight * parts[0] + parts[1], gates)
    return found.double().cpu(), float(parts[0].detach()), float(parts[1].detach())


def _moved(
    values: Sequence[float], last: GateStep | None, gradient: Tensor, number: int, steps: int, size: int
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """The averages after a step, and the gates."""
    gates = torch.tensor(values, dtype=torch.float64)
    zeros = torch.zeros_like(gates)
    first = torch.tensor(last.first, dtype=torch.float64) if last else zeros
    second = torch.tensor(last.second, dtype=torch.float64) if last else zeros
    first = BETAS[0] * first + (1 - BETAS[0]) * gradient
    second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
    mean = first / (1 - BETAS[0] ** (number + 1))
    spread = (second / (1 - BETAS[1] ** (number + 1))).sqrt()
    push = PUSH * max(0.0, (number / steps - FALLING) / (1 - FALLING))
    moved = gates - RATE * (mean / (spread + SMALL) + push * (1 - 2 * gates))
    left = len(values) * (size / len(values)) ** min(1.0, (number + 1) / (FALLING * steps))
    return tuple(first.tolist()), tuple(second.tolist()), tuple(_projected(moved, left).tolist())


def _projected(values: Tensor, most: float) -> Tensor:
    """The nearest point with all values within 0 and 1, and a sum of at most `most`."""
    if float(values.clamp(0, 1).sum()) <= most:
        return values.clamp(0, 1)
    low, high = float(values.min()) - 1, float(values.max())
    for _ in range(60):
        middle = (low + high) / 2
        if float((values - middle).clamp(0, 1).sum()) > most:
            low = middle
        else:
            high = middle
    return (values - high).clamp(0, 1)


def worth(steps: Sequence[GateStep]) -> tuple[float, ...]:
    """Of each unit: how far open its gate was, on average over the steps. So also units that lost have an order."""
    return tuple(sum(step.values[i] for step in steps) / len(steps) for i in range(len(steps[0].values)))


def placement_of(values: Sequence[float], units: Placement, size: int, ties: Sequence[float]) -> Placement:
    """The `size` units whose gates are most open."""
    order = sorted(range(len(units)), key=lambda i: (-values[i], -ties[i], i))
    return tuple(sorted(units[i] for i in order[:size]))


def placements_of(steps: Sequence[GateStep], units: Placement, sizes: Sequence[int]) -> list[Placement]:
    """For each size what was most open when as many units were left."""
    ties = worth(steps)
    found = []
    for size in sizes:
        at = next((step for step in steps if sum(step.values) <= size + 0.5), steps[-1])
        found.append(placement_of(at.values, units, size, ties))
    return found

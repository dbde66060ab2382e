"""Learning rate as a pure function of the step: resuming needs no state.

With S steps in all, w = round(warmup * S) of them warm-up, and s counted from 0:

    warm-up   s < w         peak * (s + 1) / w
    cosine    s >= w        peak * (final + (1 - final) * (1 + cos(pi * x)) / 2),   x = (s - w) / (S - w)
    wsd       last d steps  peak * (1 - (1 - final) * x),                            x = (s - (S - d)) / d

x stays below 1: the step after the last would have `final`. So no step is spent at a rate of zero. Cosine:
arXiv:1608.03983; warm-up-stable-decay: arXiv:2404.06395.
"""

from __future__ import annotations

import math

from miniwin.specs.train import CosineSchedule, WSDSchedule


def learning_rate(schedule: CosineSchedule | WSDSchedule, step: int, steps: int, peak: float) -> float:
    """The rate of optimizer step `step` (0-based) of `steps`."""
    warmup = min(round(schedule.warmup * steps), steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if isinstance(schedule, WSDSchedule):
        decay = min(round(schedule.decay * steps), steps - warmup)
        into = step - (steps - decay)
        return peak * (1 - (1 - schedule.final) * into / decay) if into > 0 else peak
    x = (step - warmup) / (steps - warmup)
    return peak * (schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * x)) / 2)

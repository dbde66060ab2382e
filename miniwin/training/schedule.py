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


def learning_rate(
    schedule: CosineSchedule | WSDSchedule, step: int, steps: int, peak: float, warmup: int | None = None
) -> float:
    """The rate of optimizer step `step` (0-based) of `steps`. warmup: steps of it, in place of the schedule's share."""
    warmup = warmup_steps(schedule, steps) if warmup is None else min(warmup, steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if isinstance(schedule, WSDSchedule):
        decay = _decay(schedule, steps, warmup)
        into = step - (steps - decay)
        return peak * (1 - (1 - schedule.final) * into / decay) if into > 0 else peak
    x = (step - warmup) / (steps - warmup)
    return peak * (schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * x)) / 2)


def warmup_steps(schedule: CosineSchedule | WSDSchedule, steps: int) -> int:
    return min(round(schedule.warmup * steps), steps)


def before_decay(schedule: CosineSchedule | WSDSchedule, steps: int, warmup: int | None = None) -> int | None:
    """How many steps are done when the decay of a `wsd` schedule begins; None if no checkpoint is needed from there."""
    if not isinstance(schedule, WSDSchedule):
        return None
    warmup = warmup_steps(schedule, steps) if warmup is None else min(warmup, steps)
    found = steps - _decay(schedule, steps, warmup) + 1  # the first step of the decay still has the peak
    return found if 0 < found < steps else None


def fixed_by(schedule: CosineSchedule | WSDSchedule) -> str | None:
    """Why no step of a schedule is one of a larger budget; None for one that has such steps."""
    if isinstance(schedule, WSDSchedule):
        return None
    return (
        "its learning rate falls as a cosine over the whole budget, so none of its steps is one of the larger budget; "
        "a run with schedule: {type: wsd} can grow"
    )


def _decay(schedule: WSDSchedule, steps: int, warmup: int) -> int:
    return min(round(schedule.decay * steps), steps - warmup)

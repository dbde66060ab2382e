"""Whether all trials are measured at a rung after the same tokens.

A training is measured after whole steps. Where `set` changes train.batch_size, seq_len or gradient_accumulation, a
trial with larger steps would get to a rung later than its rivals, and with more training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from miniwin.specs import SearchSpec
from miniwin.specs.validation_errors import Problem

FINEST = 1000  # the largest denominator that a rung is taken to have, as a share


def rung_problem(spec: SearchSpec, tokens: int, steps: Sequence[int]) -> Problem | None:
    """What is wrong with the rungs of a search whose trials have these tokens a step; None if nothing is. tokens: of a
    training."""
    if spec.pruner is None or len(set(steps)) < 2:
        return None
    whole = math.lcm(*steps)
    off = next((rung for rung in spec.rung_tokens(tokens) if rung % whole), None)
    if off is None:
        return None
    least = getattr(spec.pruner, "min_tokens", None)
    if least is None:
        where: tuple[str, ...] = ("rungs",)
        unit = whole * math.lcm(*(Fraction(share).limit_denominator(FINEST).denominator for share in spec.rungs))
        mend = f"budget.tokens_per_trial: {-(-tokens // unit) * unit}"
    else:
        where, mend = ("pruner", "min_tokens"), f"min_tokens: {-(-least // whole) * whole}"
    return Problem(
        where,
        f"trials have {min(steps):,} to {max(steps):,} tokens a step, so some would get to the rung at {off:,} tokens "
        f"later than others; expected rungs at multiples of {whole:,} tokens, such as by {mend}",
    )

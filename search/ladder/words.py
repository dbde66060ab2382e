"""A ladder in plain words."""

from __future__ import annotations

import math

from miniwin.display.formats import bits_text, count_text, plural
from miniwin.search import trainings
from miniwin.search.ladder.plan import Plan, size_text
from miniwin.search.ladder.prediction import Prediction, Told
from miniwin.search.ladder.result import Compared, Held, LadderResult
from miniwin.search.ladder.standing import Ladder

LN2 = math.log(2)

WITHIN = {True: "within", False: "outside", None: "nothing to hold it against"}

GROWN = {
    "stack": "the pattern of layers is repeated over more layers",
    "stretch": "each layer is of the kind that stands at the same relative depth",
}
RATES = {
    "constant": "the learning rate is the same at all sizes",
    "width": "the learning rate falls as 1 / width",
}


def lines(ladder: Ladder) -> list[str]:
    """How it stands, for a terminal."""
    if ladder.problem:
        return [f"note: ladder: {ladder.problem}"]
    assert ladder.plan is not None
    found = [now] if (now := progress(ladder)) else []
    found += stuck(ladder)
    if ladder.result is not None and ladder.current:
        return [*found, *(f"ladder: {one}" for one in sentences(ladder.result))]
    if ladder.prediction is not None:
        found += [f"  {line}" for line in predicted(ladder.prediction)]
    return found


def about(plan: Plan) -> str:
    """`0.1M, 0.3M, 1M parameters, 20 tokens a parameter; ...`"""
    sizes = ", ".join(size_text(target) for target in plan.targets)
    each = ", ".join(str(len(size.seeds)) for size in plan.sizes)
    return (
        f"{sizes} parameters with {each} seeds, {_tokens(plan.tokens_per_parameter)} a parameter; {GROWN[plan.grow]}; "
        f"{RATES[plan.learning_rate]}"
    )


def progress(ladder: Ladder) -> str | None:
    """`ladder: 5 of 14 trainings, 2 running`; None if there is nothing to train, or no more."""
    return None if stuck(ladder) else trainings.progress("ladder", ladder.every)


def stuck(ladder: Ladder) -> list[str]:
    """Trainings without which nothing can be said."""
    return [
        f"note: ladder: nothing can be said, since {one.label} is {one.state}: {one.outcome.reason}"
        for one in ladder.broken
        if one.outcome is not None
    ]


def sentences(result: LadderResult) -> list[str]:
    """Each variant against the baseline, and how the prediction of the largest size held."""
    return [*(sentence(result, one) for one in result.compared), *([_held(result)] if result.held else [])]


def sentence(result: LadderResult, one: Compared) -> str:
    """The effective speed-up of one variant."""
    first, other = one.first, f"the {one.other}" if one.other == "baseline" else one.other
    sizes = " to ".join(size_text(result.steps[place].target) for place in (0, -1))
    length = f"loss at {result.length:,} tokens on the {result.split} split"
    where = f"{plural(len(result.steps), 'size')} from {sizes}, {length}"
    if one.speed_up.value is None or (one.speed_up.low is None and one.speed_up.high is None):
        return (
            f"how much compute {other} needs for the loss of {first} is not known ({where}): the loss does not surely "
            "fall with compute"
        )
    says = f"{other} needs {times(one.speed_up)} as much compute for the same loss ({where})"
    says += _trend(result, one)
    if one.verdict == "not distinguishable":
        return f"{first} and {other} are not distinguishable: {says}"
    return f"{first} is {one.verdict} than {other}: {says}"


def _trend(result: LadderResult, one: Compared) -> str:
    """Whether the speed-up is another one at the largest size than at the smallest."""
    known = one.trend is not None and one.trend.low is not None and one.trend.high is not None
    if not known or one.trend.low <= 1 <= one.trend.high:  # type: ignore[union-attr, operator]
        return ""
    ends = [next(c for c in step.compared if c.first == one.first) for step in (result.steps[0], result.steps[-1])]
    moves = "grows" if one.trend.low > 1 else "shrinks"  # type: ignore[union-attr, operator]
    return f"; it {moves} with size, from {factor(ends[0].speed_up)} to {factor(ends[1].speed_up)}"


def method(result: LadderResult) -> str:
    """How it was done, in sentences."""
    return (
        f"At each size all variants have the same parameters and the same compute. {full(GROWN[result.grow])} "
        f"{full(RATES[result.learning_rate])} The baseline had {_tokens(result.tokens_per_parameter)} for each "
        f"parameter. The trials were chosen by {result.chosen_by}. The lines are of the loss at {result.length:,} "
        f"tokens, on {count_text(result.measured_tokens)} tokens of the {result.split} split, which neither training "
        f"nor the search has seen. Intervals cover the seeds and the text ({result.draws} {result.of}), and an "
        f"irreducible loss from 0 to {max(result.floors):.0%} of the lowest that was measured. The loss without the "
        f"irreducible part goes with compute to the power {_power(result.slope)}."
    )


def foretold(result: LadderResult) -> str:
    """When the prediction was written, and what it covers."""
    began = min(run.started for model in result.steps[-1].models for run in model.runs)
    return (
        f"Written at {result.prediction_written} (sha256 {result.prediction[:16]}), from the smaller sizes alone. The "
        f"first training of {size_text(result.steps[-1].target)} began at {began}. The intervals cover the seeds and "
        "the irreducible loss; the text is the same."
    )


def factor(speed_up: Told) -> str:
    return "not known" if speed_up.value is None else _times(speed_up.value)


def full(text: str) -> str:
    """As a sentence of its own."""
    return f"{text[:1].upper()}{text[1:]}."


def _tokens(each: float) -> str:
    return f"{each:g} {'token' if each == 1 else 'tokens'}"


def _power(slope: Told) -> str:
    if slope.value is None:
        return "that is not known"
    known = "" if slope.low is None or slope.high is None else f" ({-slope.high:.3f} to {-slope.low:.3f})"
    return f"{-slope.value:.3f}{known}"


def times(speed_up: Told) -> str:
    """`1.32 times (95 % interval 1.10 to 1.58)`"""
    return f"{_times(speed_up.value)} times (95 % interval {span(speed_up)})"


def span(speed_up: Told) -> str:
    low = "0" if speed_up.low is None else _times(speed_up.low)
    return f"{low} to {_times(speed_up.high)}" if speed_up.high is not None else f"{low} or more"


def _times(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def predicted(prediction: Prediction) -> list[str]:
    """What is predicted of the largest size, a line each."""
    when = f"predicted at {size_text(prediction.size)} ({prediction.written})"
    return [f"{when}: {subject(one.first, one.other)} {bits(one)}" for one in prediction.predicted]


def subject(first: str, other: str | None) -> str:
    return f"bits per byte of {first}" if other is None else f"{first} minus {other}"


def bits(told: Told) -> str:
    """`1.2345 (1.2001 to 1.2501)`, in bits per byte."""
    return f"{bit(told.value)} ({bit_span(told)})"


def bit(nats: float | None) -> str:
    return "?" if nats is None else bits_text(nats / LN2, 1)


def bit_span(told: Told) -> str:
    return "no interval" if told.low is None or told.high is None else f"{bit(told.low)} to {bit(told.high)}"


def _held(result: LadderResult) -> str:
    size = size_text(result.steps[-1].target)
    parts = [held(one) for one in result.held]
    return f"predicted at {size} before it was trained ({result.prediction_written}): {'; '.join(parts)}"


def held(one: Held) -> str:
    """`bits per byte of trial 7 1.23 (1.20 to 1.25), measured 1.22, within`"""
    name = subject(one.predicted.first, one.predicted.other)
    return f"{name} {bits(one.predicted)}, measured {bit(one.measured)}: {WITHIN[one.within]}"

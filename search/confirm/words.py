"""A confirmation in plain words: how far it is, and what it found."""

from __future__ import annotations

from collections.abc import Sequence

from miniwin.display.formats import count_text, plural
from miniwin.search import trainings
from miniwin.search.confirm.plan import Confirmation
from miniwin.search.confirm.result import Comparison, Measured, Result
from miniwin.search.objectives import TEXTS
from miniwin.specs.objectives import Objective


def progress(confirmation: Confirmation) -> str | None:
    """How far the trainings are; None if there is nothing to train, or no more."""
    return trainings.progress("confirming", confirmation.trainings)


def lines(confirmation: Confirmation, asked: Sequence[str], trained: int) -> list[str]:
    """How it stands, for a terminal. asked: the objectives of the study. trained: its training length."""
    found = [now] if (now := progress(confirmation)) else []
    if confirmation.problem:
        found.append(f"note: {confirmation.problem}")
    result = confirmation.result
    if result is None:
        return found
    found += [about(result), *([old] if (old := outdated(confirmation)) else [])]
    objectives = [Objective.parse(text) for text in asked]
    for variant in result.variants:
        values = [(one, variant.values.get(one.name)) for one in objectives]
        texts = [f"{titled(one, trained)} {'not measured' if v is None else sized(one, v)}" for one, v in values]
        found.append(f"  {variant.label}: {', '.join(texts)}")
    for one in result.comparisons:
        said = "; ".join(said_of(measured, trained) for measured in one.measures if measured.objective)
        found.append(f"  {one.first} against {other(one)}: {said}")
    for variant in result.variants:
        broken = [run for run in variant.runs if run.state != "complete"]
        found += [f"note: {variant.label} with seed {run.seed}: {run.state}, {run.reason}" for run in broken]
    return found


def about(result: Result) -> str:
    text = f", {count_text(result.tokens)} tokens at each length" if result.tokens else ""
    if result.untrained:
        return f"confirmed on the {result.split} split, with the weights as they are{text}:"
    return f"confirmed on the {result.split} split, with {plural(len(result.seeds), 'new seed')} each{text}:"


def outdated(confirmation: Confirmation) -> str | None:
    """That the result is of fewer trials than there are, or of another wish; None if it is of now."""
    result = confirmation.result
    if result is None or confirmation.current:
        return None
    if result.trained != confirmation.trained or not confirmation.trainings:
        return f"note: this is of the first {plural(result.trained, 'trial')}; miniwin search resume confirms anew"
    return "note: this is of another confirmation than the study asks for now; miniwin search resume confirms anew"


def other(comparison: Comparison) -> str:
    return f"the {comparison.other}" if comparison.other == "baseline" else comparison.other


def said_of(measured: Measured, trained: int) -> str:
    """`bits per byte at 4,096 tokens -0.0123 (-0.0200 to -0.0046), better`."""
    objective = objective_of(measured)
    title = titled(objective, trained)
    if measured.value is None:
        return f"{title} not measured"
    text = f"{title} {signed(objective, measured.value)}"
    if measured.of == "spec":
        return f"{text}, {measured.verdict}"
    return f"{text} ({interval(measured)}), {measured.verdict}"


def interval(measured: Measured) -> str:
    if measured.low is None or measured.high is None:
        return "no interval"
    objective = objective_of(measured)
    return f"{signed(objective, measured.low)} to {signed(objective, measured.high)}"


def sentence(result: Result, comparison: Comparison, trained: int) -> str:
    """What the objective that chose the trials says of two variants, in a sentence."""
    measured = next(one for one in comparison.measures if one.name == result.chosen_by)
    objective = objective_of(measured)
    first, second = comparison.first.capitalize(), other(comparison)
    if measured.value is None:
        return f"{first} and {second} could not be compared: a training did not come to its end."
    where, seeds = f"on the {result.split} split", f"{plural(len(result.seeds), 'seed')} each"
    seeds = f"over {measured.draws:,} {measured.of}" if result.untrained else seeds
    if measured.verdict == "the same":
        return f"{first} and {second} are the same in {titled(objective, trained)}."
    known = "" if measured.of == "spec" else f" (95 % interval {interval(measured)}, {seeds})"
    if measured.low is None and measured.of != "spec":
        known = f" ({seeds}, too little for an interval)"
    size = f"{signed(objective, measured.value)} in {titled(objective, trained)}{known}"
    if measured.verdict == "not distinguishable":
        return f"{first} is not distinguishable from {second} {where}: {size}."
    return f"{first} is {measured.verdict} than {second} {where}: {size}."


def plainly(result: Result, comparison: Comparison, trained: int) -> list[str]:
    """The same in sentences for a reader who knows no statistics, with what the interval says."""
    measured = next(one for one in comparison.measures if one.name == result.chosen_by)
    objective, first, second = objective_of(measured), comparison.first, other(comparison)
    title = titled(objective, trained)
    if measured.value is None:
        return [f"{first.capitalize()} and {second} could not be compared: a training did not come to its end."]
    if measured.of == "spec" or measured.verdict == "the same":
        return [sentence(result, comparison, trained)]
    trained_anew = f"Trained anew with {plural(len(result.seeds), 'other seed')} and measured"
    said = [
        f"{'Measured' if result.untrained else trained_anew} on the {result.split} split, "
        f"{first} differs from {second} by {signed(objective, measured.value)} {title}."
    ]
    if measured.low is None or measured.high is None:
        few = "So little text does not say" if result.untrained else "With one seed each nobody can say"
        return [*said, f"{few} how much of that is chance."]
    more = "more text" if result.untrained else "more seeds and more text"
    said.append(
        f"The 95 % interval goes from {interval(measured)}: of 20 such intervals 19 hold the difference that {more} "
        "would show."
    )
    if measured.verdict == "not distinguishable":
        more = "text" if result.untrained else "seeds"
        return [
            *said,
            f"It holds 0, so {first} and {second} are not distinguishable; more {more} might tell them apart.",
        ]
    return [*said, f"It does not hold 0, so {first} is {measured.verdict} than {second}, and not only by chance."]


def objective_of(measured: Measured) -> Objective:
    return Objective.parse(f"{measured.direction} {measured.name}")


def titled(objective: Objective, trained: int) -> str:
    length = objective.length(trained)
    return objective.row.title.format(at=f" at {length:,} tokens" if length else "")


def signed(objective: Objective, value: float) -> str:
    """A difference as a person reads it: `-0.0123` bits per byte, `+1.5 MiB`."""
    return f"{'-' if value < 0 else '+' if value > 0 else ''}{sized(objective, abs(value))}"


def sized(objective: Objective, value: float) -> str:
    row = objective.row
    return TEXTS[row.unit](value * row.factor, 1)

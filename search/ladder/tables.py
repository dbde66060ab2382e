"""The tables of a ladder, as headings and rows of text, for Markdown and HTML alike."""

from __future__ import annotations

from collections.abc import Sequence

from miniwin.display.formats import count_text, length_text, seconds_text
from miniwin.search.ladder import words
from miniwin.search.ladder.plan import size_text
from miniwin.search.ladder.result import LadderResult

Table = tuple[Sequence[str], Sequence[Sequence[str]]]

PREDICTION = "The prediction"
WORDS = ("size", "variant", "layers", "heads", "seeds", "the variant is", "it is")  # headings of words, not of numbers


def sizes(result: LadderResult) -> Table:
    """What was trained."""
    heads = (
        "size",
        "variant",
        "parameters",
        "layers",
        "width",
        "heads",
        "tokens",
        "FLOPs",
        "lr",
        "seeds",
        "time",
    )
    rows = [
        (
            size_text(step.target),
            model.label,
            f"{model.parameters:,}",
            model.layout,
            str(model.hidden_size),
            ", ".join(model.heads),
            count_text(model.tokens),
            f"{model.flops:.3g}",
            f"{model.learning_rate:.3g}",
            ", ".join(str(run.seed) for run in model.runs),
            seconds_text(sum(run.seconds for run in model.runs)),
        )
        for step in result.steps
        for model in step.models
    ]
    return heads, rows


def losses(result: LadderResult) -> Table:
    """Bits per byte at each length, means over the seeds."""
    lengths = list(result.steps[0].models[0].losses)
    rows = [
        (size_text(step.target), model.label, *(words.bit(model.losses[length]) for length in lengths))
        for step in result.steps
        for model in step.models
    ]
    return ("size", "variant", *(f"at {length_text(int(length))}" for length in lengths)), rows


def against(result: LadderResult) -> Table:
    """Each variant against the baseline: at each size, and over all of them."""
    rows = [
        (
            "all" if target is None else size_text(target),
            one.first,
            "" if one.loss is None else f"{words.bit(one.loss.value)} ({words.bit_span(one.loss)})",
            words.factor(one.speed_up),
            words.span(one.speed_up),
            one.verdict,
        )
        for target, compared in [*((step.target, step.compared) for step in result.steps), (None, result.compared)]
        for one in compared
    ]
    return ("size", "variant", "bits per byte more", "effective speed-up", "95 % interval", "the variant is"), rows


def held(result: LadderResult) -> Table:
    """The prediction of the largest size, and what was measured."""
    rows = [
        (
            words.subject(one.predicted.first, one.predicted.other),
            words.bit(one.predicted.value),
            words.bit_span(one.predicted),
            words.bit(one.measured),
            words.WITHIN[one.within],
        )
        for one in result.held
    ]
    return (f"at {size_text(result.steps[-1].target)}", "predicted", "95 % interval", "measured", "it is"), rows


def of(result: LadderResult) -> list[tuple[str, Table]]:
    """All tables, each with its title."""
    return [
        ("What was trained", sizes(result)),
        ("Bits per byte", losses(result)),
        ("Against the baseline", against(result)),
        (PREDICTION, held(result)),
    ]

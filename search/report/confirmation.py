"""What a confirmation found, on the page of a study: in sentences, as a chart of differences, and as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from miniwin.display.formats import bits_text, length_text, plural
from miniwin.display.page import svg
from miniwin.display.page.axes import Axis
from miniwin.display.page.figures import figure, scrolling, stroke
from miniwin.search.confirm import words
from miniwin.search.confirm.result import Comparison, Measured, Result
from miniwin.search.objectives import is_loss
from miniwin.search.report.measures import LN2, known
from miniwin.search.study_data import StudyData

KINDS = ("m0", "m1", "m2", "m3", "m4", "m5")  # of the lines: the winner, then the others
APART = 7.0  # how far lines are drawn beside each other


def sentences(study: StudyData) -> list[str]:
    """The winner against the baseline, or against the runner-up where there is no baseline; and what is left to do."""
    if study.confirmation is None:
        return []
    result = study.confirmation.result
    found = []
    if result is not None and result.comparisons:
        found.append(words.sentence(result, result.comparisons[0], study.train.longest))
    notes = (words.progress(study.confirmation), words.outdated(study.confirmation), study.confirmation.problem)
    return found + [note[0].upper() + note[1:].removeprefix("ote: ") + "." for note in notes if note]


def section(study: StudyData) -> str:
    """The body of the section; empty where nothing has been confirmed yet."""
    result = None if study.confirmation is None else study.confirmation.result
    if result is None or not result.variants:
        return ""
    seeds = ", ".join(map(str, result.seeds))
    how, over = f"trained anew with {plural(len(result.seeds), 'new seed')} ({seeds}), and", "both seeds and text"
    if result.untrained:
        how, over = "with the weights as they are,", "the text alone"
    about = (
        f"The best of {plural(result.trained, 'trial')} by {result.chosen_by}, {how} measured on the {result.split} "
        f"split, which neither training nor the search has seen. An interval covers {over}; where it contains 0, the "
        "two are not distinguishable."
    )
    return (
        f'<p class="note">{escape(about)}</p>'
        + _chart(result, study.train.longest)
        + _differences(result, study.train.longest)
        + _means(result)
    )


def _chart(result: Result, trained: int) -> str:
    """The loss of each trial minus the baseline's, against length, with intervals."""
    pairs = [one for one in result.comparisons if one.other == "baseline"]
    series = []
    for place, one in enumerate(pairs[: len(KINDS)]):
        losses = sorted(_losses(one, trained), key=lambda found: found[0])
        points = [(float(n), known(m.value) / LN2 * per) for n, m, per in losses]
        spans = [(_limit(m.low) / LN2 * per, _limit(m.high) / LN2 * per) for _, m, per in losses]
        tips = [f"{one.first}: {words.said_of(m, trained)}" for _, m, _ in losses]
        aside = (place - (len(pairs) - 1) / 2) * APART
        series.append(svg.Series(KINDS[place], points, tips, intervals=spans, aside=aside))
    lengths = sorted({n for one in series for n, _ in one.points})
    chart = svg.lines(
        series,
        x=Axis("length of the text, tokens", length_text, log=True, ticks=lengths),
        y=Axis("bits per byte more than the baseline", bits_text, spans=(0.0,)),
        levels=[(0.0, "the baseline")],
        title="Confirmed differences in bits per byte against the length of the text",
        description="Below the line is better than the baseline. Bars are 95 % intervals.",
        ident="confirmed",
    )
    if not chart:
        return ""
    keys = "".join(stroke(one.kind, pair.first) for one, pair in zip(series, pairs, strict=False))
    over = "text" if result.untrained else "seeds and text"
    return figure(chart, keys, f"Below the line is better than the baseline. Bars: 95 % intervals, over {over}.")


def _losses(one: Comparison, trained: int) -> list[tuple[int, Measured, float]]:
    """Length, difference, and nats for one of its units."""
    found = []
    for measured in one.measures:
        objective = words.objective_of(measured)
        if is_loss(objective):
            found.append((objective.length(trained), measured, 1 / objective.row.per_nat))
    return found


def _differences(result: Result, trained: int) -> str:
    rows = [
        (
            one.first,
            words.other(one),
            words.titled(words.objective_of(measured), trained),
            "not measured" if measured.value is None else words.signed(words.objective_of(measured), measured.value),
            "exact" if measured.of == "spec" else words.interval(measured),
            _rests_on(measured, None if result.untrained else len(result.seeds)),
            measured.verdict,
        )
        for one in result.comparisons
        for measured in one.measures
    ]
    heads = ("trial", "against", "what", "difference", "95 % interval", "rests on", "the trial is")
    return plain_table("Confirmed differences", heads, rows, text=(0, 1, 2, 5, 6)) if rows else ""


def _rests_on(measured: Measured, seeds: int | None) -> str:
    """seeds: None where nothing was trained."""
    if measured.of == "spec":
        return "the spec"
    draws = f"{measured.draws:,} {measured.of}" if measured.draws else ""
    return ", ".join(filter(None, ["" if seeds is None else plural(seeds, "seed"), draws])) or "one measurement"


def _means(result: Result) -> str:
    lengths = sorted({int(length) for variant in result.variants for length in variant.losses})
    rows = []
    for variant in result.variants:
        complete = sum(run.state == "complete" for run in variant.runs)
        bits = [known(variant.losses.get(str(length))) / LN2 for length in lengths]
        texts = [bits_text(value) if math.isfinite(value) else "–" for value in bits]
        rows.append((variant.label, variant.layout, f"{complete} of {len(variant.runs)}", *texts))
    first, done, name = ("mean over seeds", "trained", "Means over seeds")
    if result.untrained:
        first, done, name = ("", "measured", "Measured")
    heads = (first, "layout", done, *(f"bits/byte at {length_text(n)}" for n in lengths))
    return plain_table(name, heads, rows, text=(0, 1))


def plain_table(name: str, heads: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[int]) -> str:
    looks = [' class="text"' if place in text else "" for place in range(len(heads))]
    head = "".join(f'<th scope="col"{look}>{escape(one)}</th>' for look, one in zip(looks, heads, strict=True))
    body = ""
    for row in rows:
        first, *others = (escape(cell) for cell in row)
        cells = "".join(f"<td{look}>{cell}</td>" for look, cell in zip(looks[1:], others, strict=True))
        body += f'<tr><th scope="row"{looks[0]}>{first}</th>{cells}</tr>'
    return scrolling(name, f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def _limit(value: float | None) -> float:
    return math.nan if value is None else value

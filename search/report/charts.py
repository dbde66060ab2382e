"""The charts of a search report: from a study to inline SVG with a legend.

Losses are in bits per byte. Points differ in shape, and lines in dashes, as well as in colour.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape

from miniwin.display.formats import bits_text, count_text, length_text, plural
from miniwin.display.page import svg
from miniwin.display.page.axes import Axis
from miniwin.display.page.figures import dot, figure, stroke
from miniwin.search.objectives import chief
from miniwin.search.report.importance import Importance
from miniwin.search.report.measures import LN2, Measure, known, measure
from miniwin.search.study_data import StudyData, TrialRecord
from miniwin.specs.objectives import Objective

Value = Callable[[TrialRecord], float]


def front_chart(study: StudyData, longest: int | None) -> str:
    """The first two objectives against each other; a single objective against cache bytes at the `longest` length."""
    objectives, trained = study.objectives, study.train.longest
    up = measure(objectives[0], trained)
    if len(objectives) > 1:
        across = measure(objectives[1], trained)
        x_of, y_of = _value(objectives[1].name, across), _value(objectives[0].name, up)
        front = list(study.front)
        line = "the front: none is better in everything asked for"
    else:
        if longest is None:
            return ""
        across = measure(Objective("minimize", "cache_bytes", longest), trained)
        x_of, y_of = _cache(longest, study.train.dtype), _value(objectives[0].name, up)
        front = _undominated(study.completed, x_of, y_of, up.lower_is_better)
        line = "the front: none is better and smaller"
    front_numbers = {t.number for t in front}
    best = study.best
    others = [t for t in study.completed if best is None or t.number != best.number]
    kinds = [(t, "front" if t.number in front_numbers else "complete") for t in others]
    kinds += [(best, "best")] if best is not None else []
    kinds = [(t, kind) for t, kind in kinds if math.isfinite(x_of(t)) and math.isfinite(y_of(t))]
    points = [_point(t, x_of(t), y_of(t), across, up, kind) for t, kind in kinds]
    if not points:
        return ""
    if study.baseline is not None:
        base = _point(study.baseline, x_of(study.baseline), y_of(study.baseline), across, up, "baseline")
        points.extend([base] if math.isfinite(base.x) and math.isfinite(base.y) else [])
    shown, cut = _in_view(points, up)
    # Through the points as they are drawn: one of the front may lie further out, too.
    corners = [(p.x, p.y) for (t, _), p in zip(kinds, shown, strict=False) if t.number in front_numbers]
    side = "left" if across.lower_is_better else "right"
    corner = f"{'Lower' if up.lower_is_better else 'Higher'} and further {side} is better."
    chart = svg.scatter(
        shown,
        x=across.axis([p.x for p in shown]),
        y=up.axis([p.y for p in shown]),
        front=_staircase(corners, across.lower_is_better),
        title=f"{up.title} against {across.title}",
        description=f"{plural(len(shown), 'point')}, one for each completed trial. {corner}",
        ident="front",
    )
    winner = "the winner"
    if len(objectives) > 1:
        winner = f"the winner: the front's best in {measure(chief(objectives), trained).title}"
    keys = [("best", winner, False), ("front", line, False), ("complete", "other completed trials", False)]
    if any(p.kind == "baseline" for p in shown):
        keys.append(("baseline", "the baseline", True))
    note = f"{corner} Arrows: the value lies further out than drawn." if cut else corner
    return figure(chart, "".join(dot(kind, text, square) for kind, text, square in keys), note)


def length_chart(study: StudyData) -> str:
    """Bits per byte against length: the winner and the baseline."""
    lines = []
    for trial, kind, name in (
        (study.best, "best", "the winner"),
        (study.baseline, "baseline", "the baseline"),
    ):
        if trial is None or not trial.losses:
            continue
        points = [(float(n), known(loss) / LN2) for n, loss in sorted(trial.losses.items())]
        tips = [f"{name}: {bits_text(bits)} bits per byte at {int(n):,} tokens" for n, bits in points]
        lines.append((svg.Series(kind, points, tips, square=kind == "baseline"), name))
    lengths = sorted({n for series, _ in lines for n, _ in series.points})
    chart = svg.lines(
        [series for series, _ in lines],
        x=Axis("length of the text, tokens", length_text, log=True, ticks=lengths),
        y=Axis("bits per byte", bits_text),
        marks=[(float(study.train.longest), "training length")],
        title="Bits per byte against the length of the text",
        description="Lower is better. A line that stays flat to the right of the training length works there too.",
        ident="length",
    )
    if not chart:
        return ""
    keys = "".join(stroke(series.kind, name) for series, name in lines)
    return figure(chart, keys, "Lower is better, and flat to the right of the training length.")


def curve_chart(study: StudyData, every: Sequence[TrialRecord]) -> str:
    """What was measured at the rungs and at the end, over the tokens trained. every: all trials, also those that are
    not drawn."""
    objective = next((o for o in study.objectives if o.measured), None)
    if objective is None:
        return ""
    shown = measure(objective, study.train.longest)
    best = study.best
    series = []
    for trial in study.trials:
        state = "pruned" if trial.state == "paused" else trial.state
        kind = "best" if best is not None and trial.number == best.number else state
        if kind in _CURVES:
            series.append(_curve(trial, objective.name, shown, kind))
    if not any(len(s.points) > 1 for s in series):
        return ""
    note = ""
    if study.baseline is not None:
        base = _curve(study.baseline, objective.name, shown, "baseline")
        if _fits([y for _, y in base.points], [y for s in series for _, y in s.points]):
            series.append(base)
        else:
            note = "The baseline lies outside the picture."
    series.sort(key=lambda s: list(_CURVES).index(s.kind))
    chart = svg.lines(
        series,
        x=Axis("tokens trained", count_text),
        y=shown.axis([y for s in series for _, y in s.points]),
        marks=_rungs(every),
        title=f"{shown.title} while training",
        description=f"{plural(len(series), 'line')}, measured at each rung and at the end.",
        ident="curves",
    )
    kinds = {s.kind for s in series if len(s.points) > 1}
    keys = "".join(stroke(kind, text) for kind, text in reversed(_CURVES.items()) if kind in kinds)
    rungs = "Upright lines are rungs, each with the number of trials that were measured there."
    return figure(chart, keys, f"{rungs} {note}".strip())


def importance_chart(importance: Importance, ident: str, trained: int) -> str:
    """A bar with its interval for the share of each variable, or the sentence that says why there are no shares."""
    title = measure(importance.objective, trained).title
    head = f"<h3>{escape(title[:1].upper() + title[1:])}</h3>"
    if importance.note:
        return f'<div>{head}<p class="note">{escape(importance.note)}</p></div>'
    shares = importance.shares
    luck = [name for name, share in shares.items() if share.chance]
    chart = svg.bars(
        [(name, share.value) for name, share in shares.items()],
        title=f"Importance of the variables for {title}",
        description="; ".join(
            f"{name} {share.value:.0%}, {share.low:.0%} to {share.high:.0%}{', as from chance' if share.chance else ''}"
            for name, share in shares.items()
        ),
        ident=ident,
        format="{:.0%}".format,
        spans=[(share.low, share.high) for share in shares.values()],
        hollow=luck,
    )
    said = [importance.about]
    said += [f"Not to be told from chance: {', '.join(luck)} (hollow)."] if luck else []
    said += [f"{one} and {other} cannot be told apart." for one, other in importance.ties]
    return f'<div>{head}<figure>{chart}</figure><p class="note">{escape(" ".join(said))}</p></div>'


def _value(name: str, shown: Measure) -> Value:
    return lambda trial: known(trial.values.get(name)) * shown.factor


def _cache(length: int, dtype: str) -> Value:
    return lambda trial: float(trial.spec.cache_bytes(length, dtype)) if trial.spec is not None else math.nan


def _point(trial: TrialRecord, x: float, y: float, across: Measure, up: Measure, kind: str) -> svg.Point:
    finite = math.isfinite(x) and math.isfinite(y)
    tooltip = f"{trial.label}: {up.text(y)} {up.title}, {across.text(x)} {across.title}" if finite else ""
    if kind == "baseline":
        return svg.Point(x, y, kind, tooltip, "#baseline", "baseline", square=True)
    return svg.Point(x, y, kind, tooltip, f"#trial-{trial.number}", trial.label if kind == "best" else None)


def _in_view(points: Sequence[svg.Point], up: Measure) -> tuple[list[svg.Point], bool]:
    """The points to draw, and whether any was moved.

    A point that is so bad that all others would be squeezed into a line is drawn at the edge, with its value beside it.
    """
    sign = 1 if up.lower_is_better else -1
    ordered = sorted(sign * p.y for p in points if p.kind != "baseline") or [sign * points[0].y]
    quarter = ordered[(3 * (len(ordered) - 1)) // 4]
    span = max(quarter - ordered[0], abs(quarter) * 0.02)
    limit = max([v for v in ordered if v <= quarter + 3 * span], default=quarter)
    edge = limit + 0.15 * max(limit - ordered[0], span)
    drawn = []
    for p in points:
        if sign * p.y > limit + 3 * span:
            arrow = "\u2191" if up.lower_is_better else "\u2193"
            p = replace(p, y=sign * edge, label=f"{p.label + ' ' if p.label else ''}{up.text(p.y)} {arrow}")
        drawn.append(p)
    return drawn, any(a is not b for a, b in zip(points, drawn, strict=True))


def _undominated(trials: Sequence[TrialRecord], x_of: Value, y_of: Value, lower: bool) -> list[TrialRecord]:
    """From the smallest x up, each trial that improves y."""
    sign = 1 if lower else -1
    finite = [t for t in trials if math.isfinite(x_of(t)) and math.isfinite(y_of(t))]
    front: list[TrialRecord] = []
    for trial in sorted(finite, key=lambda t: (x_of(t), sign * y_of(t))):
        if not front or sign * y_of(trial) < sign * y_of(front[-1]):
            front.append(trial)
    return front


def _staircase(points: Sequence[tuple[float, float]], lower_x: bool) -> list[tuple[float, float]]:
    """The corners of the front's line: y stays until x reaches the next trial."""
    ordered = sorted(points, key=lambda p: p[0], reverse=not lower_x)
    corners: list[tuple[float, float]] = []
    for x, y in ordered:
        if corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    return corners


def _rungs(trials: Sequence[TrialRecord]) -> list[tuple[float, str]]:
    """Where the rungs are, each with how many trials were measured there."""
    there = Counter(int(rung["tokens"]) for trial in trials for rung in trial.rungs)
    return [(float(tokens), f"{count:,}") for tokens, count in sorted(there.items())]


# What a line stands for, in the order of drawing: what matters most is drawn last, on top.
_CURVES = {"pruned": "pruned", "complete": "completed", "baseline": "the baseline", "best": "the winner"}


def _curve(trial: TrialRecord, name: str, shown: Measure, kind: str) -> svg.Series:
    measured = {float(rung["tokens"]): known(rung["values"].get(name)) for rung in trial.rungs}
    if trial.state == "complete":
        measured[float(trial.tokens_each)] = known(trial.values.get(name))
    points = [(tokens, y * shown.factor) for tokens, y in sorted(measured.items()) if math.isfinite(y)]
    tips = [f"{trial.label}: {shown.text(y)} after {count_text(x)} tokens" for x, y in points]
    return svg.Series(kind, points, tips, square=kind == "baseline", markers=kind != "complete")


def _fits(values: Sequence[float], others: Sequence[float]) -> bool:
    """Whether a line can be drawn among others without squeezing them into less than a third of the height."""
    if not values or not others:
        return bool(values)
    span = max(others) - min(others)
    return max([*values, *others]) - min([*values, *others]) <= 3 * span

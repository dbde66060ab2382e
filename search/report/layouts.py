"""The layouts of the best trials: each as a strip of its layers, above one another, with what it reached."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from miniwin.display.formats import count_text, plural
from miniwin.display.page.figures import scrolling
from miniwin.explain import sees
from miniwin.search.report.measures import known, measure
from miniwin.search.report.tables import plain
from miniwin.search.study_data import StudyData, TrialRecord
from miniwin.specs import ModelSpec

MOST = 12  # trials
CELL, HEIGHT = 18, 22  # of a layer, in CSS pixels
WIDEST = 32  # layers that are drawn with their letters
NARROW = 6
TEXT = ' class="text"'


def section(study: StudyData) -> str:
    """The trials of the front by their chief objective, or the best few of one objective, and the baseline."""
    shown = [trial for trial in study.ranked[:MOST] if trial.spec is not None]  # to read all specs takes seconds
    if not shown:
        return ""
    measures = [(one.name, measure(one, study.train.longest)) for one in study.objectives]
    heads = ["trial", "layers", *study.spec.variables, *(shown_as.title for _, shown_as in measures)]
    rows = ""
    for trial in [*shown, *([study.baseline] if study.baseline is not None and study.baseline.spec else [])]:
        values = [(of, known(trial.values.get(name)) * of.factor) for name, of in measures]
        cells = [
            *(plain(trial.params.get(name)) for name in study.spec.variables),
            *(of.text(value) if math.isfinite(value) else "–" for of, value in values),
        ]
        where = "baseline" if trial.number < 0 else f"trial-{trial.number}"
        look = ' class="best"' if trial is shown[0] else ""
        rows += (
            f'<tr{look}><th scope="row" class="text"><a href="#{where}">{escape(trial.label)}</a></th>'
            f'<td class="text">{strip(trial)}</td>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        )
    head = "".join(
        f'<th scope="col"{TEXT if place in (0, 1) else ""}>{escape(title)}</th>' for place, title in enumerate(heads)
    )
    left = len(study.ranked) - MOST if len(study.objectives) > 1 else 0
    more = f" {plural(left, 'more trial')} of the front {'is' if left == 1 else 'are'} below." if left > 0 else ""
    return (
        '<p class="note">Each layer is a box with the letter of its block, the first layer on the left. A filled box '
        f"sees the whole context; the others see a window.{more}</p>"
        + scrolling("Layouts", f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
    )


def strip(trial: TrialRecord) -> str:
    """The layers of a trial as boxes."""
    assert trial.spec is not None
    spec = trial.spec
    layers = spec.layer_specs
    lettered = len(layers) <= WIDEST
    width = CELL if lettered else NARROW
    boxes = []
    for place, (letter, layer) in enumerate(zip(spec.layout, layers, strict=True)):
        kind = "whole" if _whole(layer) else "local"
        hint = escape(f"layer {place}: {letter}, {_seen(layer)}, {layer.attention.position.type}")
        x = place * width
        boxes.append(f'<rect class="layer {kind}" x="{x + 1}" y="1" width="{width - 2}" height="{HEIGHT - 2}">')
        boxes.append(f"<title>{hint}</title></rect>")
        if lettered:
            boxes.append(f'<text class="{kind}" x="{x + width / 2:g}" y="15">{escape(letter)}</text>')
    total = width * len(layers)
    return (
        f'<svg class="strip" width="{total}" height="{HEIGHT}" viewBox="0 0 {total} {HEIGHT}" role="img" '
        f'aria-label="{escape(said(spec))}">{"".join(boxes)}</svg>'
    )


def said(spec: ModelSpec) -> str:
    """`SSSGSSSG: 8 layers, of which 3 and 7 see the whole context`."""
    whole = [str(place) for place, layer in enumerate(spec.layer_specs) if _whole(layer)]
    seen = "none sees" if not whole else f"{_listed(whole)} {'sees' if len(whole) == 1 else 'see'}"
    if len(whole) == len(spec.layout):
        seen = "all see"
    return f"{spec.layout}: {plural(len(spec.layout), 'layer')}, of which {seen} the whole context"


def _whole(layer: Any) -> bool:
    """Whether every head of a layer sees the whole context."""
    return not layer.attention.bounded


def _seen(layer: Any) -> str:
    if layer.attention.windows is not None:
        return sees(layer.attention)
    return "the whole context" if _whole(layer) else f"a window of {count_text(layer.attention.window)}"


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))

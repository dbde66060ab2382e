"""The tables of a search report: bits per byte by length, and every trial with all that is known of it.

A cell has its plain number in `data-v`, by which the page's script sorts. A value that is not known is an empty cell.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from miniwin.display.formats import bits_text, count_text, length_text
from miniwin.display.page.figures import scrolling
from miniwin.search.objectives import is_loss
from miniwin.search.report.measures import LN2, known, measure
from miniwin.search.study_data import StudyData, TrialRecord
from miniwin.specs.objectives import Objective

STATES = ("complete", "pruned", "infeasible", "duplicate", "failed", "paused", "running")


@dataclass(frozen=True)
class Column:
    """A heading, and the cell of a trial: its text, and the number to sort by if the text is not that number."""

    title: str
    cell: Callable[[TrialRecord], tuple[str, float | None]]
    text: bool = False
    wide: bool = False


def length_table(study: StudyData) -> str:
    """The numbers behind the chart of bits per byte by length."""
    rows = [(name, t) for name, t in (("winner", study.best), ("baseline", study.baseline)) if t and t.losses]
    lengths = sorted({n for _, trial in rows for n in trial.losses})
    head = "".join(f'<th scope="col">{escape(length_text(n))}</th>' for n in lengths)
    body = ""
    for name, trial in rows:
        cells = "".join(f"<td>{_number(trial.losses.get(n), bits_text, 1 / LN2)[0] or '–'}</td>" for n in lengths)
        body += f'<tr><th scope="row" class="text">{name}</th>{cells}</tr>'
    return scrolling(
        "Bits per byte by length",
        '<table><thead><tr><th scope="col" class="text">bits per byte at</th>'
        f"{head}</tr></thead><tbody>{body}</tbody></table>",
    )


def trial_table(study: StudyData, lengths: Sequence[int]) -> str:
    """The winner, the baseline, and every other trial by number; buttons show the trials of one state."""
    columns = _columns(study, lengths)
    heads = "".join(f'<th scope="col"{_class(column)}>{escape(column.title)}</th>' for column in columns)
    best, baseline = study.best, study.baseline
    rows = [_row(trial, columns, kind) for trial, kind in ((best, "best"), (baseline, "baseline")) if trial is not None]
    rows += [_row(trial, columns, "") for trial in study.trials if trial is not best]
    states = Counter(trial.state for trial in study.trials)
    choices = [("", f"all {len(study.trials)}")]
    choices += [(state, f"{state} {states[state]}") for state in STATES if states[state]]
    buttons = "".join(
        f'<button type="button" value="{value}" aria-pressed="{str(not value).lower()}">{text}</button>'
        for value, text in choices
    )
    return (
        '<div class="filter" id="filter" role="group" aria-label="Show trials by state" hidden>'
        f"{buttons}</div>"
        + scrolling(
            "Table of trials",
            '<table class="sortable" id="trials">'
            f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>",
            tall=True,
        )
    )


def windows(trial: TrialRecord) -> str:
    """The windows of its local layers: `64`, or `32, 128` where they differ."""
    return _distinct(trial, lambda layer: "/".join(map(str, layer.attention.bounded)) or None)


def periods(trial: TrialRecord) -> str:
    """The periods of its periodic encodings."""
    return _distinct(trial, lambda layer: "/".join(map(str, layer.attention.position.all_periods())) or None)


def _columns(study: StudyData, lengths: Sequence[int]) -> list[Column]:
    columns = [
        Column("trial", lambda t: ("baseline", -1) if t.number < 0 else (str(t.number), None)),
        Column("state", lambda t: (t.standing, None), text=True),
        Column("layout", lambda t: (t.layout, None), text=True),
    ]
    columns += [
        _derived(name, of)
        for name, of in (("window", windows), ("period", periods))
        if name not in study.spec.variables
    ]
    columns += [_variable(study, name) for name in study.spec.variables]
    columns.append(Column("parameters", lambda t: _number(t.spec.parameters() if t.spec else None, count_text)))
    columns += [
        _objective(objective, study.train.longest)
        for objective in study.objectives
        if not is_loss(objective) or objective.length(study.train.longest) not in lengths
    ]
    columns += [_loss(length) for length in lengths]
    if study.spec.seeds > 1:
        columns += [_spread(objective, study.train.longest) for objective in study.objectives if objective.measured]
    if study.spec.learning_rate is not None:
        columns.append(Column("learning rate", lambda t: (t.rate_text, t.learning_rate)))
    return [
        *columns,
        Column("tokens", lambda t: _number(t.tokens or None, count_text)),
        Column("seconds", lambda t: _number(t.seconds or None, "{:.1f}".format)),
        Column("run folder", lambda t: (_relative(t.run_folder, study.folder), None), text=True),
        Column("why", lambda t: (t.problem or t.reason or "", None), text=True, wide=True),
    ]


def _derived(name: str, of: Callable[[TrialRecord], str]) -> Column:
    def cell(trial: TrialRecord) -> tuple[str, float | None]:
        text = of(trial)
        return text, _first_number(text)

    return Column(name, cell)


def _variable(study: StudyData, name: str) -> Column:
    text = any(not _is_number(t.params.get(name)) for t in study.trials if name in t.params)
    return Column(name, lambda t: (plain(t.params.get(name)), None), text=text)


def _objective(objective: Objective, trained: int) -> Column:
    shown = measure(objective, trained)
    return Column(shown.title, lambda t: _number(t.values.get(objective.name), shown.text, shown.factor))


def _spread(objective: Objective, trained: int) -> Column:
    shown = measure(objective, trained)
    factor = abs(shown.factor)
    return Column(f"± {shown.title}", lambda t: _number(t.spread.get(objective.name), "{:.2g}".format, factor))


def _loss(length: int) -> Column:
    title = f"bits/byte at {length_text(length)}"
    return Column(title, lambda t: _number(t.losses.get(length), bits_text, 1 / LN2))


def _row(trial: TrialRecord, columns: Sequence[Column], kind: str) -> str:
    cells = []
    for n, column in enumerate(columns):
        shown, value = column.cell(trial)
        tag, scope = ("th", ' scope="row"') if n == 0 else ("td", "")
        sort = f' data-v="{value:.8g}"' if value is not None else ""
        cells.append(f"<{tag}{scope}{_class(column)}{sort}>{escape(shown)}</{tag}>")
    ident = "baseline" if trial.number < 0 else f"trial-{trial.number}"
    look = f' class="{kind}"' if kind else ""
    return f'<tr id="{ident}" data-state="{escape(trial.state)}"{look}>{"".join(cells)}</tr>'


def _class(column: Column) -> str:
    return f' class="text{" wide" if column.wide else ""}"' if column.text else ""


def _number(value: float | None, text: Callable[[float], str], factor: float = 1.0) -> tuple[str, float | None]:
    number = known(value) * factor
    return (text(number), number) if math.isfinite(number) else ("", None)


def _distinct(trial: TrialRecord, of: Callable[[Any], Any]) -> str:
    layers: Iterable[Any] = trial.spec.layer_specs if trial.spec is not None else ()
    return ", ".join(str(value) for value in dict.fromkeys(map(of, layers)) if value is not None)


def _first_number(text: str) -> float | None:
    first = text.replace("/", ",").partition(",")[0]
    return float(first) if first else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def plain(value: Any) -> str:
    """A value of a variable as text; nothing where there is none."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _relative(path: Path | None, folder: Path) -> str:
    if path is None:
        return ""
    shown = os.path.relpath(path, folder)
    return str(path) if shown.startswith("..") else shown

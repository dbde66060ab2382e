"""The page of a suite's result: an HTML file that needs no other file and no network.

    write_page(result, path)

It says in words what holds beyond the training length, draws each measure against length, and has every row in a table.
All text from a result (names, notes, paths) is escaped: a result may come from anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import yaml

from miniwin.blocks.messages.escaping import escaped
from miniwin.display.formats import count_text, length_text, plural, seconds_text
from miniwin.display.page.sheet import copyable, sheet
from miniwin.evaluation.suite import charts
from miniwin.evaluation.suite.charts import Shown
from miniwin.evaluation.suite.page_tables import rows_table
from miniwin.evaluation.suite.result import SuiteResult
from miniwin.evaluation.suite.verdicts import caveats, verdicts
from miniwin.files.writing import said_if_unwritable, write_text
from miniwin.specs import UserError

EXPLAINED = (
    "Bits per byte is the cross-entropy on text divided by the bytes of the text: lower is better, and it does not "
    "depend on the tokenizer. Chance is what guessing without reading gives. An interval holds the true value in 95 of "
    "100 measurements: Wilson's for shares, where the answers of one example count together; the bootstrap over "
    "documents for losses."
)


def write_page(result: SuiteResult, path: Path) -> Path:
    """Write the page of a result and return its path. An older page is replaced in one step.

    Raises:
        UserError: the path is a folder, or cannot be written.
    """
    return write_whole(render(result), path)


def write_whole(page: str, path: Path) -> Path:
    if path.is_dir():
        raise UserError(f"{path} is a folder; expected the name of a file, such as {path / 'suite.html'}")
    with said_if_unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page)
    return path


def render(result: SuiteResult) -> str:
    """The page as text."""
    title = f"{result.model.ref}: {result.suite}"
    body = [
        header("MiniWin evaluation", result.model.ref, f"Measured with the suite {result.suite}."),
        *(f'<p class="verdict">{escape(said)}</p>' for said in verdicts(result)),
        *(f'<p class="note">{escape(said)}</p>' for said in caveats(result)),
        _facts(result),
        figures([Shown(result, result.model.ref)]),
        section(f"All {plural(len(result.rows), 'row')}", rows_table(result)),
        section(
            "What was asked", folded("The suite", yaml.safe_dump(result.spec, sort_keys=False, allow_unicode=True))
        ),
        footer(),
    ]
    return finished(title, body)


def figures(results: Sequence[Shown]) -> str:
    """The charts of all measures. What shows one model only is drawn for a page about one model."""
    drawn: list[str] = []
    aside: list[str] = []
    for measure in charts.measures(results):
        name = charts.titled(measure)
        found = [(name, charts.by_length(results, measure))]
        found.append((f"{name} by position", charts.by_position(results, measure)))
        if len(results) == 1:
            found.append((f"{name} of each document", charts.spread(results[0], measure)))
            found.append((f"{name} by depth", charts.heat(results[0], measure)))
        place = aside if charts.is_aside(results, measure) else drawn
        place += [section(title, figure) for title, figure in found if figure]
    more = f"<details><summary>More charts</summary>{_grid(aside)}</details>" if aside else ""
    return _grid(drawn) + more


def _grid(sections: Sequence[str]) -> str:
    return f'<div class="figures">{"".join(sections)}</div>'


def header(kind: str, title: str, said: str) -> str:
    return (
        f'<header><p class="kind">{escape(kind)}</p><h1>{escape(title)}</h1><p class="soft">{escape(said)}</p></header>'
    )


def section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def folded(title: str, text: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{copyable(text)}</details>"


def facts(found: Sequence[tuple[str, str]]) -> str:
    """A list of names and values. A long value takes two columns."""
    rows = (
        f"<div{' class=wide' if len(value) > 24 else ''}><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in found
        if value
    )
    return f'<dl class="facts">{"".join(rows)}</dl>'


def footer(more: str = "") -> str:
    from miniwin.version import __version__

    return f"<footer>{escape(f'{more} {EXPLAINED}'.strip())}<br>Written by MiniWin {escape(__version__)}.</footer>"


def finished(title: str, body: Sequence[str], style: str = "") -> str:
    # Also escaped: characters that reverse the direction of text, and halves of surrogate pairs.
    return escaped(sheet(f"{title}: MiniWin", "\n".join(body), style))


def _facts(result: SuiteResult) -> str:
    model, machine, data = result.model, result.machine, result.data or {}
    return facts(
        [
            ("Parameters", count_text(model.parameters)),
            ("Trained at", f"{length_text(model.trained_length)} tokens" if model.trained_length else "not known"),
            ("Spec", model.hash[:12]),
            ("Weights", model.weights[:12]),
            ("Text", str(data.get("source", ""))),
            ("Device", f"{result.device}, {result.dtype}"),
            ("Machine", str(machine.get("gpu") or machine.get("cpu") or "")),
            ("Time", seconds_text(result.seconds)),
            ("Date", result.date.replace("T", " ")[:16]),
            ("Code", f"miniwin {result.version}"),
        ]
    )

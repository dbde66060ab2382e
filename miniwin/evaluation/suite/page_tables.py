"""The table of a suite's rows on a page: every measure at every length, with its interval, chance and number."""

from __future__ import annotations

from html import escape

from miniwin.display.formats import length_text
from miniwin.evaluation.suite.charts import interval_text, titled
from miniwin.evaluation.suite.result import SuiteResult, SuiteRow
from miniwin.evaluation.suite.units import unit_of

COLUMNS = (  # heading, and whether it is text
    ("measure", True),
    ("length", False),
    ("value", False),
    ("95 % interval", False),
    ("n", False),
    ("of", True),
    ("chance", False),
    ("blind", False),
    ("times trained", False),
    ("unit", True),
    ("note", True),
)


def rows_table(result: SuiteResult) -> str:
    """Every row of a result."""
    heads = [head(title, text) for title, text in COLUMNS]
    return table(heads, [_row(row) for row in result.rows], "Table of all rows")


def table(heads: list[str], rows: list[str], label: str) -> str:
    """A table that scrolls by itself, with the keyboard too, and that the page's script sorts."""
    return (
        f'<div class="scroll tall" tabindex="0" role="region" aria-label="{escape(label)}">'
        f'<table class="sortable"><thead><tr>{"".join(heads)}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def head(title: str, text: bool = False) -> str:
    return f'<th scope="col"{" class=text" if text else ""}>{escape(title)}</th>'


def cell(shown: str, value: float | None = None, kind: str = "") -> str:
    """A cell. value: the number to sort by, if the text is not that number."""
    sort = f' data-v="{value:.8g}"' if value is not None else ""
    look = f' class="{kind}"' if kind else ""
    return f"<td{look}{sort}>{escape(shown)}</td>"


def row_head(measure: str) -> str:
    return f'<th scope="row" class="text">{escape(titled(measure))}</th>'


def length_cell(row: SuiteRow) -> str:
    return cell(length_text(row.length), row.length) if row.length is not None else cell("")


def number_cell(row: SuiteRow, value: float | None, missing: str = "") -> str:
    """A value of the row's unit."""
    return cell(unit_of(row.unit).text(value), value) if value is not None else cell(missing)


def _row(row: SuiteRow) -> str:
    times = cell(f"{row.times:.4g}x", row.times) if row.times is not None else cell("")
    return (
        f"<tr>{row_head(row.measure)}{length_cell(row)}{number_cell(row, row.value)}{cell(interval_text(row), row.low)}"
        f"{cell(f'{row.n:,}', row.n)}{cell(row.of, kind='text')}{number_cell(row, row.chance, 'none')}"
        f"{number_cell(row, row.blind, 'none')}{times}"
        f"{cell(row.unit, kind='text')}{cell(row.note, kind='text wide' if row.note else 'text')}</tr>"
    )

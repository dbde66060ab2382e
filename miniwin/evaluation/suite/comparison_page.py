"""The page of a comparison: who is better where, all models in each chart, and every row with its difference."""

from __future__ import annotations

from html import escape
from pathlib import Path

from miniwin.display.formats import count_text, length_text, plural
from miniwin.evaluation.suite.charts import Shown, row_text, titled
from miniwin.evaluation.suite.comparison import ComparedRow, Comparison
from miniwin.evaluation.suite.comparison_table import CAUTION, difference_text
from miniwin.evaluation.suite.page import figures, finished, footer, header, section, write_whole
from miniwin.evaluation.suite.page_tables import cell, head, length_cell, number_cell, row_head, table
from miniwin.evaluation.suite.pairs import Difference
from miniwin.evaluation.suite.result import SuiteRow

TITLE = "MiniWin comparison"
MARK = f'<p class="kind">{TITLE}</p>'  # in every such page, before the charts
PAIRED = (
    "A difference is taken on the same examples and the same documents; of times and exponents, where there are no "
    "pairs, and of rows that are marked as unpaired, from the two intervals."
)


def write_comparison_page(found: Comparison, path: Path) -> Path:
    """Write the page of a comparison and return its path.

    Raises:
        UserError: the path is a folder, or cannot be written.
    """
    return write_whole(render(found), path)


def render(found: Comparison) -> str:
    """The page as text."""
    names = [f"{name}: {result.model.ref}" for name, result in zip(found.names, found.results, strict=True)]
    shown = [Shown(result, name, f"m{n}") for n, (result, name) in enumerate(zip(found.results, names, strict=True))]
    suite = found.results[0].suite
    rows = [row for row in found.rows if any(one is not None for one in row.differences)]
    body = [
        header(TITLE, " / ".join(result.model.ref for result in found.results), f"By the suite {suite}."),
        *(f'<p class="verdict">{escape(said)}</p>' for said in found.sentences),
        f'<p class="note">{escape(CAUTION)}</p>',
        section("The models", _models(found)),
        section(f"{plural(len(rows), 'row')} side by side", _table(found, rows)),
        figures(shown),
        footer(PAIRED),
    ]
    return finished(f"{', '.join(names)}: {suite}", body)


def _models(found: Comparison) -> str:
    """Which model is A, which B."""
    heads = [head("", text=True), head("model", text=True)]
    heads += [head(title) for title in ("parameters", "trained at", "measured")] + [head("on", text=True)]
    rows = []
    for name, result in zip(found.names, found.results, strict=True):
        model = result.model
        trained = length_text(model.trained_length) if model.trained_length else "not known"
        rows.append(
            f"<tr>{row_head(name)}{cell(model.ref, kind='text')}{cell(count_text(model.parameters), model.parameters)}"
            f"{cell(trained, model.trained_length)}{cell(result.date[:10])}"
            f"{cell(f'{result.device}, {result.dtype}', kind='text')}</tr>"
        )
    return table(heads, rows, "Table of the models")


def _table(found: Comparison, rows: list[ComparedRow]) -> str:
    heads = [head("measure", text=True), head("length")]
    for name in found.names[1:]:
        heads += [head(f"{name} - {found.names[0]}"), head(f"{name} is", text=True)]
    heads += [head(name) for name in found.names]
    heads += [head("n"), head("of", text=True), head("chance"), head("unit", text=True)]
    return table(heads, [_row(row) for row in rows], "Table of all rows, side by side")


def _row(row: ComparedRow) -> str:
    one = row.any
    n = max(found.n for found in row.rows if found is not None)
    return (
        f"<tr>{row_head(titled(one.measure))}{length_cell(one)}"
        f"{''.join(_difference(difference, one.unit) for difference in row.differences)}"
        f"{''.join(_value(found) for found in row.rows)}"
        f"{cell(f'{n:,}', n)}{cell(one.of, kind='text')}{number_cell(one, one.chance, 'none')}"
        f"{cell(one.unit, kind='text')}</tr>"
    )


def _value(row: SuiteRow | None) -> str:
    return cell("") if row is None or row.value is None else cell(row_text(row), row.value)


def _difference(difference: Difference | None, unit: str) -> str:
    if difference is None:
        return cell("") + cell("", kind="text")
    found = difference.interval
    value = cell("") if found is None else cell(difference_text(difference, unit), found.value)
    return value + cell(difference.text if found is not None else f"not comparable: {difference.said}", kind="text")

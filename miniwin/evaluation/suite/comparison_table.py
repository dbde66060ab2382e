"""A comparison on a terminal: each model's value, and how far it is from the first, with the interval of that."""

from __future__ import annotations

from miniwin.blocks.messages.escaping import escaped_line
from miniwin.display.formats import length_text
from miniwin.evaluation.suite.charts import titled
from miniwin.evaluation.suite.comparison import ComparedRow, Comparison
from miniwin.evaluation.suite.pairs import Difference
from miniwin.evaluation.suite.units import signed, unit_of

CAUTION = (
    "Each interval is a 95 % interval by itself: of twenty rows without any difference, about one says that there is "
    "one."
)
WIDTH = 160  # of a table that goes into a file


def print_comparison(found: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table

    from miniwin.display.cells import cell

    console = Console(width=None if Console().is_terminal else WIDTH, highlight=False)
    for name, result in zip(found.names, found.results, strict=True):
        said = (
            f"{name}  {result.model.ref}: {result.model.parameters:,} parameters, on {result.device} in {result.dtype}"
        )
        console.print(escaped_line(said), markup=False, soft_wrap=True)
    console.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("measure", no_wrap=True)
    table.add_column("length", justify="right")
    table.add_column("n", justify="right")
    for name in found.names:
        table.add_column(name, justify="right", no_wrap=True)
    for name in found.names[1:]:
        table.add_column(f"{name} - {found.names[0]}", justify="right", no_wrap=True)
        table.add_column("")
    for row in found.rows:
        if any(one is not None for one in row.differences):
            table.add_row(*map(cell, cells(row)))
    console.print(table)
    console.print()
    for sentence in (*found.sentences, CAUTION):
        console.print(escaped_line(sentence), markup=False, soft_wrap=True)


def cells(row: ComparedRow) -> list[str]:
    """measure, length, n, each value, then the difference and the verdict of each model but the first."""
    one = row.any
    n = max(found.n for found in row.rows if found is not None)
    shown = [titled(one.measure), "" if one.length is None else length_text(one.length), f"{n:,}"]
    shown += ["-" if one is None or one.value is None else unit_of(one.unit).text(one.value) for one in row.rows]
    for difference in row.differences:
        shown += ["", ""] if difference is None else [difference_text(difference, one.unit), difference.text]
    return shown


def difference_text(difference: Difference, unit: str) -> str:
    """`+0.012 [-0.003, +0.027]`; only the difference where it is exact; nothing where there is none."""
    found = difference.interval
    if found is None:
        return ""
    return signed(unit, found.value, *(() if found.low == found.high else (found.low, found.high)))

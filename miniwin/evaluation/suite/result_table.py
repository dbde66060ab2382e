"""The rows of a suite on a terminal: each with its interval, how many examples it is made of, and chance.

Below the table stand the sentences of verdicts.py, and why something was left out.
"""

from __future__ import annotations

from miniwin.display.formats import plural
from miniwin.evaluation.suite.result import SuiteResult, SuiteRow
from miniwin.evaluation.suite.units import unit_of
from miniwin.evaluation.suite.verdicts import caveats, verdicts


def print_table(result: SuiteResult) -> None:
    from rich.console import Console
    from rich.table import Table

    from miniwin.blocks.messages.escaping import escaped_line
    from miniwin.display.cells import cell

    console = Console(width=None if Console().is_terminal else 140, highlight=False)
    model = result.model
    trained = "" if model.trained_length is None else f", trained at {model.trained_length:,}"
    console.print(
        escaped_line(
            f"{model.ref}: {plural(model.parameters, 'parameter')}{trained}, suite {result.suite}, {result.device}, "
            f"{result.dtype}"
        ),
        markup=False,
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("measure", no_wrap=True)
    for name in ("length", "", "value", "95 % interval", "n", "of", "chance", "blind"):
        table.add_column(name, justify="left" if name == "of" else "right", no_wrap=True)
    before = None
    for row in result.rows:
        if row.measure != before and before is not None:
            table.add_section()
        shown = cells(row)
        table.add_row(*map(cell, [shown[0] if row.measure != before else "", *shown[1:]]))
        before = row.measure
    console.print(table)
    for said in (*verdicts(result), *caveats(result)):
        console.print(escaped_line(said), markup=False, soft_wrap=True)
    notes = dict.fromkeys(row.note for row in result.rows if row.note)
    for note in notes:
        keys = ", ".join(row.key for row in result.rows if row.note == note)
        console.print(f"left out: {escaped_line(keys)}: {escaped_line(note)}", markup=False, soft_wrap=True)


def cells(row: SuiteRow) -> list[str]:
    """measure, length, times, value, interval, n, of, chance, blind."""

    def number(value: float | None) -> str:
        return "-" if value is None else unit_of(row.unit).text(value)

    interval = "-" if row.low is None else f"{number(row.low)} to {number(row.high)}"
    times = "" if row.times is None or row.times < 1 else f"{row.times:.3g}x"
    length = "" if row.length is None else f"{row.length:,}"
    return [
        row.measure.replace("_", " "),
        length,
        times,
        "left out" if row.value is None and row.note else number(row.value),
        "exact" if row.of == "exact" else interval,
        f"{row.n:,}",
        row.of,
        number(row.chance),
        number(row.blind),
    ]

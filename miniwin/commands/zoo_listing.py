"""`miniwin zoo list`: the entries here, and those that can be pulled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from miniwin.commands.printing import say

if TYPE_CHECKING:
    from rich.table import Table

    from miniwin.zoo import Entry
    from miniwin.zoo.index_query import Asked


def list_command(
    remote: Annotated[
        bool, typer.Option("--remote", help="Also what the index (MINIWIN_ZOO_INDEX) offers to pull.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a list of objects.")] = False,
) -> None:
    """All entries: the package's own, those in your zoo and, if asked, those that can be pulled."""
    import json

    from miniwin.blocks.messages.escaping import escaped_line
    from miniwin.zoo import list_entries, user_zoo
    from miniwin.zoo.index_query import ask

    asked = ask() if remote else None  # before the entries are listed: an index may warn against some of them
    rows = [_row(entry) for entry in list_entries()]
    problems: list[str] = []
    if asked is not None:
        rows += _offered(asked, {row["ref"] for row in rows})
        problems = list(asked.problems.values())
    for problem in problems:  # of an index; the entries here are listed all the same
        say(f"error: {problem}", err=True)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))  # JSON spells control characters out by itself
    elif not rows:
        say(f"The zoo {user_zoo()} is empty. Add a finished run: miniwin zoo add RUN_FOLDER --name NAME")
    else:
        print_table(_table(rows))
    for row in rows if not as_json else ():
        if row["reason"]:
            say(f"{row['ref']} is {row['status']}: {escaped_line(row['reason'])}", err=True)
    if problems:
        raise typer.Exit(2)


def _row(entry: Entry) -> dict[str, Any]:
    from miniwin.zoo import ZooError
    from miniwin.zoo.card_values import by_length, training_length

    row: dict[str, Any] = {
        "ref": entry.ref,
        "parameters": None,
        "layout": None,
        "bits_per_byte": {},
        "trained_at": None,
    }
    row |= {"size": entry.size, "source": entry.source, "status": entry.status, "reason": entry.reason}
    if entry.manifest is None:
        return row
    row |= {"parameters": entry.manifest.parameters, "layout": entry.manifest.layout}
    try:
        row |= {
            "bits_per_byte": by_length(entry.metrics, "bits_per_byte"),
            "trained_at": training_length(entry.provenance),
        }
    except ZooError as error:
        row |= {"status": "broken", "reason": str(error)}
    return row


def _offered(asked: Asked, known: set[str]) -> list[dict[str, Any]]:
    """What the indexes offer besides the known entries, as rows."""
    rows = []
    for offer in asked.offers:
        release = offer.release
        if release.ref in known:
            continue
        row = {
            "ref": release.ref,
            "parameters": release.parameters,
            "layout": release.layout,
            "bits_per_byte": {},
        }
        row |= {"trained_at": None, "size": release.size, "source": str(offer.index)}
        rows.append(
            row
            | {
                "status": "not pulled" if release.status == "active" else release.status,
                "reason": release.reason,
            }
        )
    return rows


def _table(rows: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    from miniwin.display.cells import cell
    from miniwin.display.formats import decimal_bytes

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, justify in (("entry", "left"), ("params", "right"), ("layout", "left"), ("bits/byte", "left")):
        table.add_column(title, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for title, justify in (("size", "right"), ("source", "left"), ("status", "left")):
        table.add_column(title, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        parameters = "" if row["parameters"] is None else f"{row['parameters']:,}"
        layout = row["layout"] or ""
        cells = row["ref"], parameters, layout, _bits(row), decimal_bytes(row["size"]), row["source"], row["status"]
        table.add_row(*map(cell, cells))
    return table


def _bits(row: dict[str, Any]) -> str:
    """`2.0312 at 512, 2.0290 at 16,384`: at the training length, where measured, and at the longest."""
    bits: dict[int, float] = row["bits_per_byte"]
    if not bits:
        return ""
    first = row["trained_at"] if row["trained_at"] in bits else min(bits)
    return ", ".join(f"{bits[n]:.4f} at {n:,}" for n in dict.fromkeys((first, max(bits))))


def print_table(table: Table) -> None:
    import sys

    from rich.console import Console

    # A pipe has no width to fit into, and a folded reference could not be copied or searched for.
    width = None if sys.stdout.isatty() else 240
    Console(highlight=False, width=width).print(table)

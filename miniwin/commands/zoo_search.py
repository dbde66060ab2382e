"""`miniwin zoo search`: entries of all zoos by size, context, score, licence and kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from miniwin.commands.printing import say
from miniwin.commands.zoo_listing import print_table

if TYPE_CHECKING:
    from rich.table import Table

    from miniwin.zoo.catalogue.search import Hit, Wanted


def search(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[WORD]...", help="Words of the name or the description.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="LOW..HIGH", help="Parameters: 1M..10M, ..10M (at most), 1M.. (at least).")
    ] = None,
    context: Annotated[
        str | None, typer.Option(metavar="N", help="Measured at N tokens or beyond: 4096, 16k, 1M.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[@N]>=SCORE",
            help="A score of the card: 'recall>=0.9', 'bits_per_byte@16k<=1.2'. Without @N: at --context, or at the "
            "longest length. May be repeated.",
        ),
    ] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="What it was made for: text, chat, or tasks alone.")
    ] = None,
    licence: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="SPDX name, such as apache-2.0. May be repeated: any.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of this zoo only: built-in, user, index, or one that was added."),
    ] = None,
    all_versions: Annotated[
        bool, typer.Option("--all-versions", help="Also versions that are not the newest, and yanked ones.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a list of objects.")] = False,
) -> None:
    """Find entries of all zoos: the package's, yours, those of the index and of the zoos that were added."""
    import json

    from miniwin.zoo.catalogue.conditions import condition, context_length, size_range
    from miniwin.zoo.catalogue.listing import catalogue, newest
    from miniwin.zoo.catalogue.search import Wanted
    from miniwin.zoo.catalogue.search import search as run

    wanted = Wanted(
        words or (),
        None if size is None else size_range(size),
        None if context is None else context_length(context),
        _kind(kind),
        licence or (),
        [condition(one) for one in task or ()],
    )
    listed = catalogue(source)
    entries = listed.entries if all_versions else newest(listed.entries)
    found = run(entries, wanted)
    if as_json:
        typer.echo(json.dumps([_object(hit) for hit in found.hits], indent=2))
    elif found.hits:
        print_table(_table(found.hits, wanted))
    else:
        say(f"none of {len(entries)} entries fits")
    for problem in [*listed.problems, *found.problems]:
        say(f"error: {problem}", err=True)
    for hit in found.hits if not as_json else ():
        if hit.entry.reason:
            from miniwin.blocks.messages.escaping import escaped_line

            say(f"{hit.entry.to_load} is {hit.entry.status}: {escaped_line(hit.entry.reason)}", err=True)
    if listed.problems or found.problems:
        raise typer.Exit(2)


def _kind(typed: str | None) -> Any:
    from miniwin.specs import UserError
    from miniwin.zoo.catalogue.described import KINDS

    if typed is not None and typed not in KINDS:
        raise UserError(f"--kind: got {typed!r}; expected one of {', '.join(KINDS)}")
    return typed


def _object(hit: Hit) -> dict[str, Any]:
    from dataclasses import asdict

    entry = hit.entry
    names = ("name", "version", "licence", "description", "layout", "parameters", "size", "status", "reason", "here")
    found = {"ref": entry.to_load, "zoos": list(entry.zoos)} | {name: getattr(entry, name) for name in names}
    found |= {"kind": hit.kind, "trained_at": hit.trained_at, "measured_to": hit.measured_to}
    return found | {"scores": None if hit.scores is None else [asdict(score) for score in hit.scores]}


def _table(hits: list[Hit], wanted: Wanted) -> Table:
    from rich.table import Table

    from miniwin.display.cells import cell
    from miniwin.display.formats import count_text, decimal_bytes, length_text

    table = Table(box=None, pad_edge=False, header_style="bold")
    right = ("params", "download", "trained at", "measured to")
    heads = ("entry", "kind", *right, *(one.task for one in wanted.conditions), "licence", "zoo", "status")
    for title in heads:
        table.add_column(cell(title), justify="right" if title in right else "left", overflow="fold")
    for hit in hits:
        entry = hit.entry
        lengths = ["" if n is None else length_text(n) for n in (hit.trained_at, hit.measured_to)]
        scores = [f"{one.text()}" + (f" at {length_text(one.length)}" if one.length else "") for one in hit.met]
        status = entry.status if entry.status != "active" else "here" if entry.here else "not pulled"
        facts = [entry.to_load, hit.kind or "", count_text(entry.parameters), decimal_bytes(entry.size), *lengths]
        table.add_row(*map(cell, [*facts, *scores, entry.licence, entry.zoo, status]))
    return table

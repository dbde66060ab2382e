"""`miniwin zoo`: list, show, verify, add, pull and index the versioned models; zoo_publishing.py has the rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from miniwin.commands import zoo_cache, zoo_publishing, zoo_sources
from miniwin.commands.printing import say, typed

if TYPE_CHECKING:
    from rich.table import Table

    from miniwin.zoo import Entry
    from miniwin.zoo.index_query import Asked

app = typer.Typer(
    rich_markup_mode=None,
    help="Versioned, hashed models: list, show, verify, add, pull, index, publish, yank.",
    no_args_is_help=True,
)


@app.command("list")
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

    asked = _ask() if remote else None  # before the entries are listed: an index may warn against some of them
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
        _print(_table(rows))
    for row in rows if not as_json else ():
        if row["reason"]:
            say(f"{row['ref']} is {row['status']}: {escaped_line(row['reason'])}", err=True)
    if problems:
        raise typer.Exit(2)


@app.command()
def show(
    ref: Annotated[str, typer.Argument(help="name, name@1, name@1.2, name@1.2.3 or name@latest.")],
    provenance: Annotated[
        bool, typer.Option("--provenance", help="The chain from the search to the entry instead of the card.")
    ] = False,
) -> None:
    """The card of an entry, its folder, and its files with sizes and hashes."""
    from miniwin.display.formats import decimal_bytes
    from miniwin.zoo import find
    from miniwin.zoo.integrity import file_problems

    entry = find(ref)
    _say_what(ref, entry)
    _say_warning(entry)
    manifest = entry.require_manifest()
    if provenance:
        from miniwin.zoo.integrity import check
        from miniwin.zoo.provenance_chain import chain

        for title, link in chain(check(entry)):
            say(f"{title + ':':<14}{link}")
        return
    say(entry.card)
    say(f"Folder: {entry.folder}")
    say(f"Digest: {entry.digest}")
    say("Files:")
    for name, record in sorted(manifest.files.items()):
        say(f"  {name:<22} {decimal_bytes(record.size):>9}  sha256 {record.sha256}")
    problems = file_problems(entry.folder, manifest)
    for problem in problems:
        say(f"broken: {problem}", err=True)
    if problems:
        raise typer.Exit(1)


@app.command()
def verify(
    ref: Annotated[str | None, typer.Argument(help="The entry; or --all.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Verify every entry on this machine.")] = False,
    logits: Annotated[bool, typer.Option(help="Run the model and compare with the stored logits.")] = True,
) -> None:
    """Hash every file, compare spec and weights, recompute the reference logits. Exit code 1 if broken."""
    from miniwin.specs import UserError
    from miniwin.zoo import find, list_entries
    from miniwin.zoo import verify as run

    if (ref is None) != everything:
        raise UserError("zoo verify: name an entry, or give --all to verify every one")
    for unread in _unread():
        say(f"{unread}; what it said before holds", err=True)
    if ref is None:
        entries = list_entries()
    else:
        entries = [find(ref)]
        _say_what(ref, entries[0])
    broken = 0
    for entry in entries:
        problems = run(entry, logits=logits)
        broken += bool(problems)
        say(f"{entry.ref}: {'BROKEN' if problems else 'ok'} ({entry.folder})")
        if entry.warning:
            say(f"  {entry.warning}")
        for problem in problems:
            say(f"  {problem}")
    if broken:
        say(f"{broken} of {len(entries)} broken", err=True)
        raise typer.Exit(1)


@app.command()
def add(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_FOLDER",
            help="A finished run's folder or its best.safetensors (or an entry's, for a new card).",
        ),
    ],
    name: Annotated[str, typer.Option(help="Lower-case letters, digits and '-'.")],
    version: Annotated[str | None, typer.Option(help="MAJOR.MINOR.PATCH. Default: the next one.")] = None,
    evaluate: Annotated[
        bool,
        typer.Option(
            help="Measure for the card: bits per byte, recall and speed; a model of tasks alone by its tasks."
        ),
    ] = True,
    lengths: Annotated[
        str | None,
        typer.Option(
            help="Lengths to measure at, with commas. Default: 1, 4, 16 and 32 (tasks: 64) times the training length."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="What to measure on, as in eval. Default: what the run was trained on.")
    ] = None,
    metrics: Annotated[Path | None, typer.Option(help="Take the measurements from this JSON file instead.")] = None,
    suite_result: Annotated[
        Path | None,
        typer.Option(help="What `miniwin eval --suite` found: the result's file or folder. It becomes suite.json."),
    ] = None,
    description: Annotated[str, typer.Option(help="The first paragraph of the card.")] = "",
    licence: Annotated[
        str | None,
        typer.Option(
            help="SPDX name, in lower case. Default: that of what the run began with; of nothing: apache-2.0."
        ),
    ] = None,
    zoo: Annotated[Path | None, typer.Option(help="The zoo to write to. Default: yours.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Round the weights to float32, bfloat16 or float16, and measure these. Default: as they were saved."
        ),
    ] = None,
    allow_incomplete: Annotated[bool, typer.Option("--allow-incomplete", help="Add a run that was cut short.")] = False,
) -> None:
    """Write a run into the zoo as name@version, immutable from then on."""
    from miniwin.commands.zoo_measures import given_suite, measure
    from miniwin.specs import user_path
    from miniwin.zoo import ZooError, check_addable
    from miniwin.zoo import add as run
    from miniwin.zoo.json_objects import read_object
    from miniwin.zoo.rounding import rounded

    source = user_path(source)
    typed("--description", description)
    typed("--licence", licence or "")
    measured: dict[str, Any] | None = None
    suite = None if suite_result is None else given_suite(user_path(suite_result))
    if metrics is not None or not evaluate or (source / "entry.json").is_file():
        for option, value, says in (("--lengths", lengths, "where"), ("--data", data, "what")):
            if value is not None:
                raise ZooError(f"zoo add: {option} says {says} to measure, but nothing is measured here; leave it out")
    if metrics is not None:
        measured = read_object(user_path(metrics))
    measuring = metrics is None and evaluate and not (source / "entry.json").is_file()  # an entry has its measurements
    if measuring or dtype is not None:
        # Whatever `add` would refuse is refused here: before minutes of measuring, and with the name of the source.
        check_addable(
            source,
            name=name,
            version=version,
            suite=suite,
            zoo=zoo,
            allow_incomplete=allow_incomplete,
            dtype=dtype,
            licence=licence,
        )
    with rounded(source, dtype) as kept:
        if measuring:
            measured, suite = measure(kept, lengths, data, suite)
        entry = run(
            kept,
            name=name,
            version=version,
            metrics=measured,
            suite=suite,
            description=description,
            licence=licence,
            zoo=zoo,
            allow_incomplete=allow_incomplete,
        )
    say(f"added {entry.ref}: {entry.folder}")
    if zoo is None:
        say(f'next: miniwin generate {entry.ref} --prompt "..."')


@app.command()
def pull(
    ref: Annotated[str | None, typer.Argument(help="name, name@1, name@1.2 or name@1.2.3.")] = None,
    locked: Annotated[
        Path | None, typer.Option("--locked", metavar="FILE", help="What `zoo lock` wrote down, and nothing else.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be fetched from where; fetch nothing.")
    ] = False,
) -> None:
    """Fetch what the index (MINIWIN_ZOO_INDEX) offers; running it again continues a broken download."""
    import warnings

    from miniwin.specs import UserError
    from miniwin.zoo.lock_file import pull_locked
    from miniwin.zoo.pull import install
    from miniwin.zoo.pull import pull as run

    if (ref is None) == (locked is None):
        raise UserError("zoo pull: give a reference, or --locked FILE")
    if dry_run and locked is not None:
        raise UserError("zoo pull: --dry-run is for a reference; --locked FILE names exact versions already")
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        if dry_run and ref is not None:
            zoo_cache.say_plan(ref)
            entries: list[Entry] = []
        else:
            entries = [run(ref)] if locked is None and ref is not None else pull_locked(locked or "", install)
    for warning in noted:
        say(str(warning.message), err=True)
    for entry in entries:
        if ref is not None:
            _say_what(ref, entry)
        _say_warning(entry)
        say(f"{entry.ref}: {entry.folder}")


@app.command()
def index(zoo: Annotated[Path, typer.Argument(help="A zoo folder.")]) -> None:
    """Write ZOO/index.json. Serve the folder with any web server, and others can pull from it."""
    from miniwin.zoo import write_index

    say(f"wrote {write_index(zoo)}")


zoo_publishing.add_to(app)
app.command()(zoo_sources.keygen)
app.command()(zoo_sources.mirror)
app.command()(zoo_sources.lock)
app.add_typer(zoo_sources.app, name="source")
app.add_typer(zoo_cache.app, name="cache")


def _say_what(ref: str, entry: Entry) -> None:
    """Say which entry an alias stands for."""
    if ref != entry.ref:
        say(f"{ref} is {entry.ref} ({entry.source})", err=True)


def _say_warning(entry: Entry) -> None:
    if entry.warning:
        say(entry.warning, err=True)


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


def _ask() -> Asked:
    """Ask the indexes. What they say against releases is remembered for the entries here."""
    from miniwin.zoo.index_query import ask

    return ask()


def _unread() -> list[str]:
    """Ask the indexes what they say against the entries here. Returns the problems of indexes that do not answer."""
    from miniwin.zoo import ZooError

    try:
        return list(_ask().problems.values())
    except ZooError as error:  # MINIWIN_ZOO_INDEX is no place for an index
        return [str(error)]


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


def _print(table: Table) -> None:
    import sys

    from rich.console import Console

    # A pipe has no width to fit into, and a folded reference could not be copied or searched for.
    width = None if sys.stdout.isatty() else 240
    Console(highlight=False, width=width).print(table)

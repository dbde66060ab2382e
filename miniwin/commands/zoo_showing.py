"""`miniwin zoo show` and `zoo verify`: what an entry says of itself, and whether it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from miniwin.commands.printing import say

if TYPE_CHECKING:
    from miniwin.zoo import Entry


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
    say_what(ref, entry)
    say_warning(entry)
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
        say_what(ref, entries[0])
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


def say_what(ref: str, entry: Entry) -> None:
    """Say which entry an alias stands for."""
    if ref != entry.ref:
        say(f"{ref} is {entry.ref} ({entry.source})", err=True)


def say_warning(entry: Entry) -> None:
    if entry.warning:
        say(entry.warning, err=True)


def _unread() -> list[str]:
    """Ask the indexes what they say against the entries here. Returns the problems of indexes that do not answer."""
    from miniwin.zoo import ZooError
    from miniwin.zoo.index_query import ask

    try:
        return list(ask().problems.values())
    except ZooError as error:  # MINIWIN_ZOO_INDEX is no place for an index
        return [str(error)]

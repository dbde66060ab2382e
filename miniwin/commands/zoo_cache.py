"""`miniwin zoo cache`: the downloads in the cache, listed and removed; and what `zoo pull --dry-run` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from miniwin.commands.printing import say

if TYPE_CHECKING:
    from miniwin.zoo.cache import Download

app = typer.Typer(rich_markup_mode=None, help="Downloads in the cache: list, prune.", no_args_is_help=True)


@app.command("list")
def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a list of objects.")] = False,
) -> None:
    """Downloads that can be continued: how much is there, how old, and whether a process uses them now."""
    import json

    from miniwin.zoo.cache import downloads

    found = [one for one in downloads() if one.of_use or one.in_use]
    if as_json:
        keys = ("ref", "file", "bytes", "size", "age", "in_use")
        rows = [{key: getattr(one, key) for key in keys} | {"path": str(one.blob)} for one in found]
        typer.echo(json.dumps(rows, indent=2))
        return
    for one in found:
        say(_line(one))
    if not found:
        say("no download is waiting to be continued")


@app.command()
def prune(
    older_than: Annotated[
        str | None, typer.Option(help="Downloads that nobody continued for so long: 12h, 30d, 2w. Default: 30d.")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="Remove all downloads but this entry's; may be given several times.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all downloads.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed.")] = False,
) -> None:
    """Remove broken downloads and locks of dead processes. What a process uses now stays, and so do entries."""
    from miniwin.display.formats import decimal_bytes
    from miniwin.specs import UserError
    from miniwin.zoo.cache import prune as run
    from miniwin.zoo.cache import seconds_of
    from miniwin.zoo.references import parse_ref

    if (older_than is not None) + bool(keep) + everything > 1:
        raise UserError("zoo cache prune: --older-than, --keep and --all exclude each other; give one of them")
    age = 0.0 if everything else None if older_than is None else seconds_of(older_than)
    removed = run(older_than=age, keep=[parse_ref(ref) for ref in keep] if keep else None, dry_run=dry_run)
    for one in removed:
        if one.of_use:
            say(_line(one))
    what = "would be removed" if dry_run else "removed"
    count = sum(one.of_use for one in removed)
    locks = len(removed) - count
    say(f"{count} downloads ({decimal_bytes(sum(one.bytes for one in removed))}) and {locks} unused locks {what}")


def say_plan(ref: str) -> None:
    """What a pull would fetch, from where, and how many bytes."""
    from miniwin.blocks.messages.escaping import escaped_line
    from miniwin.display.formats import decimal_bytes
    from miniwin.zoo.pull_plan import plan

    found = plan(ref)
    if found.here:
        say(f"{found.ref} is here already: {found.folder}")
        return
    say(f"{found.ref}, offered by {found.index}, would be pulled to {found.folder}")
    for fetch in found.fetches:
        rest = fetch.size - fetch.from_network
        have = f" ({decimal_bytes(rest)} are on this machine)" if rest else ""
        say(f"  {fetch.file:<22} {decimal_bytes(fetch.size):>9}  {escaped_line(fetch.source)}{have}")
    total = sum(fetch.size for fetch in found.fetches)
    say(f"{decimal_bytes(total)} in all, {decimal_bytes(found.from_network)} over the network; nothing was fetched")


def _line(one: Download) -> str:
    from miniwin.display.formats import decimal_bytes

    what = f"{one.ref} {one.file}" if one.ref else one.blob.name
    size = "?" if one.size is None else decimal_bytes(one.size)
    used = ", in use" if one.in_use else ""
    return f"{what}: {decimal_bytes(one.bytes)} of {size}, {_age(one.age)} old{used}"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"

"""`miniwin zoo pull`: entries from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miniwin.commands import zoo_cache
from miniwin.commands.printing import say
from miniwin.commands.zoo_showing import say_warning, say_what

if TYPE_CHECKING:
    from miniwin.zoo import Entry


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
            say_what(ref, entry)
        say_warning(entry)
        say(f"{entry.ref}: {entry.folder}")

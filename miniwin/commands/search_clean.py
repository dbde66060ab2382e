"""`miniwin search clean`: remove checkpoints that nothing needs any more."""

from __future__ import annotations

from typing import Annotated

import typer

from miniwin.commands.printing import say


def clean(
    study: Annotated[str, typer.Argument(help="Name or folder of a study.", metavar="STUDY")],
    paused: Annotated[
        bool,
        typer.Option("--paused", help="Also of trials that wait at a rung, once it is over: they would begin anew."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove the checkpoints of trials that have ended. Results and weights stay, and so do trials that may go on."""
    from miniwin.display.formats import decimal_bytes, plural
    from miniwin.search import clean_study

    found = clean_study(study, paused=paused, dry_run=dry_run)
    what = f"{plural(found.removed, 'checkpoint')}, {decimal_bytes(found.removed_bytes)}"
    say(f"would remove {what}" if dry_run else f"removed {what}" if found.removed else "no checkpoint to remove")
    if found.waiting:
        say(
            f"of these, {found.waiting} of trials that waited at a rung: if a larger budget takes one further, it is "
            "trained from the start"
        )
    if found.kept:
        say(
            f"kept: {plural(found.kept, 'checkpoint')}, {decimal_bytes(found.kept_bytes)}, of trials that wait at a "
            "rung and may go on"
        )

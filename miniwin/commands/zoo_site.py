"""`miniwin zoo site`: the models of zoos as pages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from miniwin.commands.printing import say


def site(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new or empty folder, or one with an older site, which is replaced.")
    ],
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of this zoo only: built-in, user, index, or one that was added."),
    ] = None,
) -> None:
    """Write a page for each model, and a table of all of them. The pages need no server, no network and no script.

    Exit code 1 where an entry is damaged, and so has no page.
    """
    from miniwin.display.formats import plural
    from miniwin.zoo.site import build

    done = build(folder, source, lambda line: say(line, err=True))
    for problem in done.problems:
        say(f"error: {problem}", err=True)
    what = f"{plural(done.models, 'model')}, {plural(done.versions, 'version')}"
    say(f"wrote {done.folder / 'index.html'} ({what})")
    if done.problems:
        raise typer.Exit(1)

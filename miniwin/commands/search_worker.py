"""`miniwin search worker`: one more worker for a study, on this machine."""

from __future__ import annotations

from typing import Annotated

import typer


def worker(
    study: Annotated[
        str, typer.Option("--study", help="URL of the study's storage (URL#NAME), or name or folder of a study.")
    ],
    place: Annotated[
        str | None,
        typer.Option(help="Where this machine sees the run folders. Default: where the maker of the study sees them."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="PyTorch threads. Default: PyTorch's own.")] = None,
    worker_id: Annotated[str, typer.Option(help="A name for this worker, shown in leases.")] = "0",
) -> None:
    """Work on a study that was begun on another machine, until nothing is left to do. Ctrl-C stops it with a
    checkpoint.

    The exit code is 0 when the study is over, 3 when the search gave up, 5 after `miniwin search stop`, 130 after
    Ctrl-C, and 2 for a mistake or a place that cannot be written to.
    """
    from miniwin.search.worker import MISTAKE, UNWRITABLE, main

    arguments = [study, "--worker-id", worker_id]
    arguments += [] if place is None else ["--place", place]
    code = main(arguments + ([] if threads is None else ["--threads", str(threads)]))
    raise typer.Exit(MISTAKE if code == UNWRITABLE else code)

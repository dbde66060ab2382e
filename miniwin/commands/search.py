"""`miniwin search`: run a search, look at it, report on it, and promote what it found."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from miniwin.commands.printing import say, typed
from miniwin.commands.token_counts import count, counts

app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Search for architectures: run, status, report, promote."
)

Ref = Annotated[str, typer.Argument(help="Name or folder of a study.", metavar="STUDY")]


@app.command()
def run(
    spec: Annotated[str, typer.Argument(help="Search spec: a YAML file, or the name of a shipped one.")],
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes. Default: as the spec says.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Optuna storage URL, such as sqlite:///study.db or postgresql://user@host/db (its password: "
            "$MINIWIN_STORAGE_PASSWORD). Default: a journal file in the study folder."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Study folder. Default: searches/<name> in $MINIWIN_HOME, or in ./runs."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a field of the search spec first, such as budget.trials=20."),
    ] = None,
    tracking: Annotated[
        str | None,
        typer.Option(help='MLflow tracking URI, or "off". Default: an SQLite file in $MINIWIN_HOME, or in ./runs.'),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No table of trials.")] = False,
) -> None:
    """Run a search. The same command continues it after a stop or a kill; a larger budget.trials extends it."""
    from miniwin.search import run_search
    from miniwin.search.live_table import summary

    try:
        data = run_search(
            spec,
            workers=workers,
            storage=storage,
            out=out,
            overrides=overrides or (),
            tracking=tracking,
            progress=not quiet,
        )
    except KeyboardInterrupt:
        say("stopped; the same command goes on", err=True)
        raise typer.Exit(130) from None
    for line in summary(data):
        say(line)
    ref = shlex.quote(str(data.folder if out is not None else data.name))
    say(f"next: miniwin search report {ref}")
    if data.best is not None:
        say(f"      miniwin search promote {ref} --name MY_MODEL")


@app.command()
def status(
    study: Ref,
    every: Annotated[bool, typer.Option("--all", help="Also list trials that cost nothing.")] = False,
) -> None:
    """Show the trials of a study, running or not."""
    import os
    import sys

    from miniwin.search import read_study
    from miniwin.search.live_table import free_lines, study_lines, summary

    with _uncollected():
        data = read_study(study)
        # Cells are escaped already: the only control characters left are colours.
        typer.echo("\n".join(study_lines(data, colours=sys.stdout.isatty() and not os.environ.get("NO_COLOR"))))
        for line in [*(free_lines(data) if every else []), *summary(data)]:
            say(line)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector: a study is many small objects and no garbage, and looking takes longest."""
    import gc

    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@app.command()
def report(
    study: Ref,
    out: Annotated[Path | None, typer.Option(help="HTML file. Default: report.html in the study folder.")] = None,
) -> None:
    """Write one self-contained HTML page about a study."""
    from miniwin.search.report import write_report
    from miniwin.search.study import find_study

    folder = find_study(study)
    say(f"report: {write_report(folder, out or folder / 'report.html')}")


@app.command()
def promote(
    study: Ref,
    name: Annotated[str, typer.Option(help="Name of the zoo entry.")],
    trial: Annotated[
        str,
        typer.Option(help="Number of a trial, or best: with several objectives, the front's lowest loss."),
    ] = "best",
    version: Annotated[str | None, typer.Option(help="MAJOR.MINOR.PATCH. Default: the next one.")] = None,
    tokens: Annotated[
        str | None, typer.Option(help="Train afresh, this many tokens (4e7), and promote that. Resumable.")
    ] = None,
    train: Annotated[str | None, typer.Option(help="Train afresh as this train spec says.")] = None,
    set_train: Annotated[
        list[str] | None,
        typer.Option("--set-train", help="Train afresh with a field changed, such as optimizer.lr=1e-3."),
    ] = None,
    lengths: Annotated[
        str | None, typer.Option(help="Lengths to evaluate at, such as 512,16k. Default: the study's.")
    ] = None,
    zoo: Annotated[Path | None, typer.Option(help="Zoo folder. Default: $MINIWIN_ZOO, or the user's zoo.")] = None,
    description: Annotated[str, typer.Option(help="A line for the model card.")] = "",
    tracking: Annotated[str | None, typer.Option(help='MLflow tracking URI, or "off".')] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Evaluate a trial, trained longer if asked, and add it to the zoo."""
    from miniwin.search import promote as run_promote

    typed("--description", description)
    try:
        entry = run_promote(
            study,
            name=name,
            trial=trial,
            version=version,
            tokens=None if tokens is None else count("--tokens", tokens),
            train=train,
            set_train=set_train or (),
            lengths=None if lengths is None else counts("--lengths", lengths),
            zoo=zoo,
            description=description,
            tracking=tracking,
            progress=not quiet,
        )
    except KeyboardInterrupt:
        say("stopped; the same command goes on", err=True)
        raise typer.Exit(130) from None
    say(f"added {entry.ref}: {entry.folder}")
    say(f'next: miniwin generate {entry.ref} --prompt "..."')

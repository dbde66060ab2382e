"""`miniwin search`: run a search, stop it, go on with it, look at it, report on it, and promote what it found."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miniwin.commands.printing import say, typed
from miniwin.commands.search_options import KeptTracking, Launcher, LauncherOptions, Quiet, Ref, Workers
from miniwin.commands.search_worker import worker
from miniwin.commands.token_counts import count, counts

if TYPE_CHECKING:
    from miniwin.search import StudyData

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Search for architectures: run them, look at them, promote what was found.",
)


@app.command()
def run(
    spec: Annotated[str, typer.Argument(help="Search spec: a YAML file, or the name of a shipped one.")],
    workers: Workers = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Optuna storage URL, such as sqlite:///study.db or postgresql://user@host/db (its password: "
            "$MINIWIN_STORAGE_PASSWORD). Default: a journal file in the study folder."
        ),
    ] = None,
    place: Annotated[
        str | None,
        typer.Option(help="With --storage: a folder for run folders that all machines see. Default: the study folder."),
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
    launcher: Launcher = "local",
    set_launcher: LauncherOptions = None,
    quiet: Quiet = False,
) -> None:
    """Run a search. The same command continues it after a stop or a kill; a larger budget.trials extends it."""
    from miniwin.search import run_search

    with stoppable():
        data = run_search(
            spec,
            workers=workers,
            storage=storage,
            place=place,
            out=out,
            overrides=overrides or (),
            tracking=tracking,
            progress=not quiet,
            launcher=launcher,
            launcher_options=set_launcher or (),
        )
    say_next(data, str(data.folder if out is not None else data.name))


@app.command()
def resume(
    study: Ref,
    place: Annotated[
        str | None,
        typer.Option(help="Where this machine sees the run folders. Default: where the maker of the study sees them."),
    ] = None,
    workers: Workers = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="A new budget.trials, at least the old one. Default: as it was.")
    ] = None,
    tracking: KeptTracking = None,
    launcher: Launcher = "local",
    set_launcher: LauncherOptions = None,
    quiet: Quiet = False,
) -> None:
    """Go on with a study that was stopped, from its folder alone; or extend one that is over with --trials."""
    from miniwin.search import resume_search

    with stoppable():
        data = resume_search(
            study,
            place=place,
            workers=workers,
            trials=trials,
            tracking=tracking,
            progress=not quiet,
            launcher=launcher,
            launcher_options=set_launcher or (),
        )
    say_next(data, study)


app.command("worker")(worker)


@app.command()
def confirm(
    study: Ref,
    top: Annotated[
        int | None, typer.Option(help="How many of the best trials. Default: as the study asks, or 3.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="New seeds for each of them, and for the baseline. Default: likewise, or 3.")
    ] = None,
    workers: Workers = None,
    tracking: KeptTracking = None,
    launcher: Launcher = "local",
    set_launcher: LauncherOptions = None,
    quiet: Quiet = False,
) -> None:
    """Train the best trials and the baseline anew, and compare them on the test split, which nothing has seen.

    The same command goes on after a stop or a kill. Trials that are left are trained first.
    """
    from miniwin.search import confirm_search

    with stoppable():
        data = confirm_search(
            study,
            top=top,
            seeds=seeds,
            workers=workers,
            tracking=tracking,
            progress=not quiet,
            launcher=launcher,
            launcher_options=set_launcher or (),
        )
    say_next(data, study)


@app.command()
def stop(
    study: Ref,
    finish: Annotated[bool, typer.Option("--finish", help="Let the trials that are being trained end first.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until every worker has stopped.")] = True,
) -> None:
    """Stop all workers of a study, on every machine, each with a checkpoint. The next run or resume goes on."""
    from miniwin.search import read_study, stop_search

    data = read_study(study)
    if data.finished:
        return say(f"{data.name} is over: {len(data.trained)} trials are trained, and nothing is running")
    try:
        holders = stop_search(study, finish=finish, wait=wait, say=say)
    except KeyboardInterrupt:
        say("no longer waiting; the workers stop all the same", err=True)
        raise typer.Exit(130) from None
    if not holders:
        say(f"{data.name} is not running: no worker holds a trial of it")
    elif wait:
        say(f"stopped; miniwin search resume {shlex.quote(study)} goes on")


@contextmanager
def stoppable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        say("stopped; the same command goes on", err=True)
        raise typer.Exit(130) from None


def say_next(data: StudyData, study: str) -> None:
    """What has come of a search, and what to do now. study: as commands may call it."""
    from miniwin.search.live_table import summary

    for line in summary(data):
        say(line)
    ref = shlex.quote(study)
    say(f"next: miniwin search report {ref}")
    if data.best is not None:
        say(f"      miniwin search promote {ref} --name MY_MODEL")


@app.command()
def status(
    study: Ref,
    every: Annotated[bool, typer.Option("--all", help="Also list trials that cost nothing.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until the study is over or you press Ctrl-C. Stops no worker.")
    ] = False,
) -> None:
    """Show the trials of a study, running or not."""
    import os
    import sys

    from miniwin.search import read_study, watch_study
    from miniwin.search.live_table import free_lines, study_lines, summary
    from miniwin.specs import UserError

    if watch:
        if every:
            raise UserError("--all: got it beside --watch, which shows the latest trials; give one of them")
        try:
            for line in summary(watch_study(study)):
                say(line)
        except KeyboardInterrupt:
            raise typer.Exit from None
        return
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
    out: Annotated[
        Path | None,
        typer.Option(help="HTML file. Default: report.html in the study folder; of a URL, NAME-ID.html here."),
    ] = None,
) -> None:
    """Write one self-contained HTML page about a study."""
    from miniwin.search.report import write_report
    from miniwin.search.study import find_study

    folder = find_study(study)
    default = Path(f"{folder.name}.html") if "://" in study else folder / "report.html"  # not into the cache
    say(f"report: {write_report(folder, out or default)}")


@app.command()
def export(
    study: Ref,
    to: Annotated[Path, typer.Option("--to", help="The file to write.", metavar="FILE.csv|FILE.parquet")],
    form: Annotated[
        str | None, typer.Option("--format", help="csv or parquet. Default: as the name of the file ends.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over a file that is there.")] = False,
) -> None:
    """Write the trials of a study as a table: a row a trial, and one with number -1 for the baseline."""
    from miniwin.search import export_study

    say(f"written: {export_study(study, to, form, replace=replace)}")


@app.command()
def compare(
    study: Ref,
    other: Annotated[
        str | None, typer.Argument(help="Another study. Default: the study's own baseline.", metavar="[STUDY]")
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Also write the comparison to this file; '-' prints it instead of the table."),
    ] = None,
) -> None:
    """Two studies side by side: what was searched, what it cost, what was found."""
    import json

    from miniwin.files.writing import check_ours, check_writable, finite, write_json
    from miniwin.search import compare_studies
    from miniwin.search.comparing import MARK
    from miniwin.search.comparison_lines import comparison_lines
    from miniwin.specs import user_path

    printed = str(json_file) == "-"
    if json_file is not None and not printed:
        json_file = user_path(json_file)
        check_writable(json_file)
        check_ours(json_file, MARK, "a comparison of studies")
    found = compare_studies(study, other)
    if printed:
        return typer.echo(json.dumps(finite(found.to_dict()), indent=2, allow_nan=False))
    for line in comparison_lines(found):
        say(line)
    if json_file is not None:
        write_json(json_file, found.to_dict())
        say(f"written to {json_file}", err=True)


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
    licence: Annotated[str | None, typer.Option(help="SPDX name, as in `miniwin zoo add`.")] = None,
    tracking: Annotated[str | None, typer.Option(help='MLflow tracking URI, or "off".')] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Evaluate a trial, trained longer if asked, and add it to the zoo."""
    from miniwin.search import promote as run_promote

    typed("--description", description)
    with stoppable():
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
            licence=licence,
            tracking=tracking,
            progress=not quiet,
        )
    say(f"added {entry.ref}: {entry.folder}")
    say(f'next: miniwin generate {entry.ref} --prompt "..."')

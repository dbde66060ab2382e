"""`miniwin train`: a model spec and a train spec become a run folder."""

from __future__ import annotations

import shlex
from typing import Annotated, Literal

import typer

from miniwin.commands.printing import say

ENDS = {"interrupted": 130, "diverged": 1}


def train_command(
    model: Annotated[
        str, typer.Argument(help="Model spec: a YAML file, or the name of a shipped one. With --from any model.")
    ],
    train: Annotated[
        str | None,
        typer.Option(help="Train spec: a YAML file, or a shipped one's name. With --from RUN, default that run's."),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="MODEL", help="Begin with these weights: a run, a zoo entry, an import."),
    ] = None,
    maps: Annotated[
        list[str] | None,
        typer.Option("--map", help="Tensors that do not fit: layers=stretched, layers=0-9,5-14, 'PATTERN=fresh'."),
    ] = None,
    out: Annotated[
        str | None,  # as a Path, "" would be the current folder
        typer.Option(
            metavar="PATH", help="Run folder. Default: <model>-<train>[-from-<model>] in $MINIWIN_HOME, or ./runs."
        ),
    ] = None,
    set_model: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a field of the model spec, such as blocks.S.attention.window=32."),
    ] = None,
    set_train: Annotated[
        list[str] | None,
        typer.Option("--set-train", help="Change a field of the train spec, such as tokens=1e6."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Continue the run in the folder, or discard it first.")
    ] = True,
    tracking: Annotated[
        str | None,
        typer.Option(help='MLflow tracking URI, or "off". Default: SQLite in $MINIWIN_HOME, or in ./runs.'),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read data ahead.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1. Default: CUDA where there is one.")] = None,
    distributed: Annotated[
        Literal["ddp", "fsdp"],
        typer.Option(help="Under torchrun: every process has the model (ddp), or a share of it (fsdp)."),
    ] = "ddp",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what training would begin with.")] = False,
) -> None:
    """Train a model from random weights, or from those of --from. The same command continues a run that was stopped."""
    from miniwin.data.checking import at_their_fields, check_data
    from miniwin.display.formats import duration, rate
    from miniwin.files.folders import home
    from miniwin.runs import BEST
    from miniwin.specs import load_train_spec, resolve_spec_path, user_path
    from miniwin.training.before import begins_with, check_start, spec_to_train, train_spec_of
    from miniwin.training.distilling.check import find_teacher
    from miniwin.training.distributed import speaks
    from miniwin.training.launch import train as run
    from miniwin.training.origin import find_origin
    from miniwin.training.start import Start

    origin = None if from_ is None else find_origin(from_)
    model_spec = spec_to_train(model, set_model or (), origin)
    start = None if origin is None else Start(origin, model_spec, maps or ())
    written = (
        train_spec_of(origin) if train is None else resolve_spec_path(train, "train"),
        set_train or (),
        "--set-train",
    )
    train_spec = load_train_spec(*written)
    check_data(train_spec, *written)
    named = f"{model_spec.name}-{train_spec.name}" + (f"-from-{origin.spec.name}" if origin is not None else "")
    folder = home() / named if out is None else user_path(out)
    if dry_run:
        with at_their_fields(*written):
            tokenizer, settled = check_start(model_spec, train_spec, written[0].resolve().parent, folder, start)
            find_teacher(model_spec, settled, tokenizer, folder)
        say(begins_with(model, model_spec, settled, start))
        say(f"{settled.steps:,} steps of {settled.tokens_per_step:,} tokens, into {folder}; nothing was written")
        return
    with at_their_fields(*written):
        result = run(
            model_spec,
            train_spec,
            out=folder if out != "" else out,
            from_=start,
            maps=maps or (),
            resume=resume,
            progress=not quiet,
            tracking=tracking,
            workers=workers,
            base=written[0].resolve().parent,
            device=device,
            distributed=distributed,
            on_start=lambda: say(begins_with(model, model_spec, train_spec, start), err=True),
        )
    folder = result.folder
    lines = [f"{result.status}: {folder}", *([f"  {result.reason}"] if result.reason else [])]
    if result.steps or result.status != "complete":
        lines.append(
            f"  {result.tokens:,} tokens in {duration(result.seconds)} ({rate(result.tokens_per_second)}, "
            f"{result.dtype}), training loss {result.final_loss:.4f} nats per token"
        )
    if result.best is not None:
        best = result.best
        lines.append(
            f"  best weights: {folder / BEST} ({best['name']} {best['value']:.4f} after step {best['step']:,})"
        )
    if result.status == "complete":
        name = shlex.quote(str(folder))
        lines += [f'next: miniwin generate {name} --prompt "..."', f"      miniwin eval {name}"]
    elif result.status == "interrupted":
        lines.append("the same command continues it")
    if speaks():
        say("\n".join(lines))
    if result.status in ENDS:
        raise typer.Exit(ENDS[result.status])

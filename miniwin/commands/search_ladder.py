"""`miniwin search ladder`: the winner of a study and its baseline at several sizes."""

from __future__ import annotations

from typing import Annotated

import typer

from miniwin.commands.printing import say
from miniwin.commands.search import say_next, stoppable
from miniwin.commands.search_options import KeptTracking, Launcher, LauncherOptions, Quiet, Ref, Workers


def ladder(
    study: Ref,
    sizes: Annotated[
        str | None,
        typer.Option(help="Parameters of each size, such as 0.3M,1M,3M. Default: those of the ladder that has begun."),
    ] = None,
    top: Annotated[int | None, typer.Option(help="How many of the best trials. Default: 1.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds at each size but the largest. Default: 3.")] = None,
    largest_seeds: Annotated[int | None, typer.Option(help="Seeds at the largest size. Default: 1.")] = None,
    tokens_per_parameter: Annotated[
        float | None, typer.Option(help="Tokens that the baseline has for each parameter. Default: 20.")
    ] = None,
    grow: Annotated[
        str | None,
        typer.Option(help="How layouts grow: stack or stretch. Default: stack where a pattern is repeated."),
    ] = None,
    learning_rate: Annotated[
        str | None, typer.Option(help="constant, or width: it falls as 1 / width. Default: constant.")
    ] = None,
    length: Annotated[
        int | None, typer.Option(help="The length of the loss that is fitted. Default: the training length.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be trained, and train nothing.")] = False,
    workers: Workers = None,
    tracking: KeptTracking = None,
    launcher: Launcher = "local",
    set_launcher: LauncherOptions = None,
    quiet: Quiet = False,
) -> None:
    """Train the winner and the baseline at three or more sizes, and predict the largest before it is trained.

    The prediction is written down and then held against what comes. The same command goes on after a stop or a kill.
    """
    from miniwin.search import ladder_search
    from miniwin.search.ladder.asking import parse_sizes, plan_ladder, plan_lines
    from miniwin.search.ladder.planning import Wish
    from miniwin.search.study import Study, find_study

    targets = None if sizes is None else parse_sizes("--sizes", sizes)
    if plan:
        wish = Wish(targets, top, seeds, largest_seeds, tokens_per_parameter, grow, learning_rate, length)
        for line in plan_lines(plan_ladder(Study(find_study(study), reading=True), wish)):
            say(line)
        return
    with stoppable():
        data = ladder_search(
            study,
            sizes=targets,
            top=top,
            seeds=seeds,
            largest_seeds=largest_seeds,
            tokens_per_parameter=tokens_per_parameter,
            grow=grow,
            learning_rate=learning_rate,
            length=length,
            workers=workers,
            tracking=tracking,
            progress=not quiet,
            launcher=launcher,
            launcher_options=set_launcher or (),
        )
    say_next(data, study)
    say(f"      {data.folder / 'ladder.html'} and ladder.md beside it show the ladder")

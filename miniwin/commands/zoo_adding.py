"""`miniwin zoo add`: a run becomes an entry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from miniwin.commands.printing import say, typed


def add(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_FOLDER",
            help="A finished run's folder or its best.safetensors (or an entry's, for a new card).",
        ),
    ],
    name: Annotated[str, typer.Option(help="Lower-case letters, digits and '-'.")],
    version: Annotated[str | None, typer.Option(help="MAJOR.MINOR.PATCH. Default: the next one.")] = None,
    evaluate: Annotated[
        bool,
        typer.Option(
            help="Measure for the card: bits per byte, recall and speed; a model of tasks alone by its tasks."
        ),
    ] = True,
    lengths: Annotated[
        str | None,
        typer.Option(
            help="Lengths to measure at, with commas. Default: 1, 4, 16 and 32 (tasks: 64) times the training length."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="What to measure on, as in eval. Default: what the run was trained on.")
    ] = None,
    metrics: Annotated[Path | None, typer.Option(help="Take the measurements from this JSON file instead.")] = None,
    suite_result: Annotated[
        Path | None,
        typer.Option(help="What `miniwin eval --suite` found: the result's file or folder. It becomes suite.json."),
    ] = None,
    description: Annotated[str, typer.Option(help="The first paragraph of the card.")] = "",
    licence: Annotated[
        str | None,
        typer.Option(
            help="SPDX name, in lower case. Default: that of what the run began with; of nothing: apache-2.0."
        ),
    ] = None,
    zoo: Annotated[Path | None, typer.Option(help="The zoo to write to. Default: yours.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Round the weights to float32, bfloat16 or float16, and measure these. Default: as they were saved."
        ),
    ] = None,
    allow_incomplete: Annotated[bool, typer.Option("--allow-incomplete", help="Add a run that was cut short.")] = False,
) -> None:
    """Write a run into the zoo as name@version, immutable from then on."""
    from miniwin.commands.zoo_measures import given_suite, measure
    from miniwin.specs import user_path
    from miniwin.zoo import ZooError, check_addable
    from miniwin.zoo import add as run
    from miniwin.zoo.json_objects import read_object
    from miniwin.zoo.rounding import rounded

    source = user_path(source)
    typed("--description", description)
    typed("--licence", licence or "")
    measured: dict[str, Any] | None = None
    suite = None if suite_result is None else given_suite(user_path(suite_result))
    if metrics is not None or not evaluate or (source / "entry.json").is_file():
        for option, value, says in (("--lengths", lengths, "where"), ("--data", data, "what")):
            if value is not None:
                raise ZooError(f"zoo add: {option} says {says} to measure, but nothing is measured here; leave it out")
    if metrics is not None:
        measured = read_object(user_path(metrics))
    measuring = metrics is None and evaluate and not (source / "entry.json").is_file()  # an entry has its measurements
    if measuring or dtype is not None:
        # Whatever `add` would refuse is refused here: before minutes of measuring, and with the name of the source.
        check_addable(
            source,
            name=name,
            version=version,
            suite=suite,
            zoo=zoo,
            allow_incomplete=allow_incomplete,
            dtype=dtype,
            licence=licence,
        )
    with rounded(source, dtype) as kept:
        if measuring:
            measured, suite = measure(kept, lengths, data, suite)
        entry = run(
            kept,
            name=name,
            version=version,
            metrics=measured,
            suite=suite,
            description=description,
            licence=licence,
            zoo=zoo,
            allow_incomplete=allow_incomplete,
        )
    say(f"added {entry.ref}: {entry.folder}")
    if zoo is None:
        say(f'next: miniwin generate {entry.ref} --prompt "..."')

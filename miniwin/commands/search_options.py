"""Options that several commands of `miniwin search` have."""

from __future__ import annotations

from typing import Annotated

import typer

Ref = Annotated[
    str, typer.Argument(help="Name or folder of a study, or the URL of its storage (URL#NAME).", metavar="STUDY")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes. Default: as the spec says.")]
KeptTracking = Annotated[
    str | None, typer.Option(help='MLflow tracking URI, or "off". Default: where the study was tracked before.')
]
Launcher = Annotated[
    str, typer.Option(help="Where workers run: local, ray, slurm, or a YAML file with the options of one of them.")
]
LauncherOptions = Annotated[
    list[str] | None, typer.Option("--set-launcher", help="Change an option of the launcher, such as gpus=0.25.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No table of trials.")]

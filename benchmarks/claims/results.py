"""The result files: one for each run, `results/EXPERIMENT/VARIANT-SEED.json`, written when the run has been measured.

A file says everything that the page needs: what each example was answered, and the commit, machine and time of the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from miniwin.files.writing import write_text
from miniwin.specs import UserError

FORMAT = 1
FOLDER = Path(__file__).parent / "results"


def path_of(experiment: str, variant: str, seed: int, folder: Path = FOLDER) -> Path:
    return folder / experiment / f"{variant}-{seed}.json"


def write(result: dict[str, Any], folder: Path = FOLDER) -> Path:
    path = path_of(result["experiment"], result["variant"], result["seed"], folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"format": FORMAT, **result}, indent=1) + "\n")
    return path


def read(experiment: str, variant: str, seed: int, folder: Path = FOLDER) -> dict[str, Any] | None:
    """The result of a run; None where there is none yet.

    Raises:
        UserError: the file is damaged, or of another format.
    """
    path = path_of(experiment, variant, seed, folder)
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}): move the file away and run again") from None
    if found.get("format") != FORMAT:
        raise UserError(
            f"{path}: got format {found.get('format')!r}; expected {FORMAT}: move the file away and run again"
        )
    return found


def of_experiment(
    experiment: str, variants: tuple[str, ...], seeds: int, folder: Path = FOLDER
) -> Iterator[dict[str, Any]]:
    """Every result that there is."""
    for variant in variants:
        for seed in range(seeds):
            if (found := read(experiment, variant, seed, folder)) is not None:
                yield found

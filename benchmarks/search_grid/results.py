"""The result files: one for each run, written when the run is over.

They lie outside the repository, in the user's cache unless `--results` says otherwise. The table is made of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.search_grid.grid import Run
from miniwin.files.folders import cache_folder
from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.writing import write_text
from miniwin.specs import UserError

FORMAT = 1
KINDS: dict[str, type | tuple[type, ...]] = {
    "hash": str,
    "values": dict,
    "seed": int,
    "status": str,
    "reason": (str, type(None)),
    "rungs": list,
    "commit": str,
    "text": str,
    "machine": str,
    "python": str,
    "torch": str,
    "threads": int,
}
AGAIN = "move the file away and run again"


def default_folder() -> Path:
    return cache_folder() / "search-grid"


def path_of(run: Run, folder: Path) -> Path:
    return folder / f"{run.name}.json"


def write(run: Run, result: dict[str, Any], folder: Path) -> Path:
    """The whole file or nothing: a kill leaves no half of it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path_of(run, folder), json.dumps({"format": FORMAT, **result}, indent=1) + "\n")
    return path_of(run, folder)


def read(run: Run, folder: Path) -> dict[str, Any] | None:
    """The result of a run; None where there is none yet.

    Raises:
        UserError: the file is damaged, of another format, or of another run.
    """
    path = path_of(run, folder)
    if not path.exists():
        return None
    try:
        found = read_json(path)
    except (OSError, JSONProblem) as error:
        raise UserError(f"{path}: is damaged ({error}): {AGAIN}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        got = found.get("format") if isinstance(found, dict) else found
        raise UserError(f"{path}: got format {got!r}; expected {FORMAT}: {AGAIN}")
    if wrong := [name for name, kind in KINDS.items() if not isinstance(found.get(name), kind)]:
        raise UserError(f"{path}: {wrong[0]} is {found.get(wrong[0])!r}, which no run writes: {AGAIN}")
    if found["hash"] != run.candidate.hash or found["seed"] != run.seed:
        raise UserError(f"{path}: is of another run (seed {found['seed']}, hash {found['hash'][:16]}): {AGAIN}")
    return found

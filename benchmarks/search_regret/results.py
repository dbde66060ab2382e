"""The result files: one for each case. A file says of which table it is, and is made anew for another one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.search_regret.cases import Case
from benchmarks.search_regret.curves import POINTS, Found
from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.writing import write_text
from miniwin.provenance import code_version
from miniwin.specs import UserError

FORMAT = 1
FOLDER = Path(__file__).parent / "results"


def fingerprint(table: Path) -> str:
    return hashlib.sha256(table.read_bytes()).hexdigest()[:16]


def path_of(case: Case, folder: Path = FOLDER) -> Path:
    return folder / f"{case.name}.json"


def write(case: Case, table: str, found: list[Found], folder: Path = FOLDER) -> Path:
    """table: its fingerprint. found: one for each seed, from 0 on. The whole file or nothing. A curve that ends at the
    aim is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    head = {"format": FORMAT, "case": case.name, "commit": code_version(), "table": table, "points": POINTS}
    kept = [asdict(one) if case.whole_curve else asdict(one) | {"curve": ()} for one in found]
    lines = ",\n".join(f"  {json.dumps(_rounded(one))}" for one in kept)
    write_text(path_of(case, folder), f'{json.dumps(head)[:-1]}, "searches": [\n{lines}\n]}}\n')
    return path_of(case, folder)


def read(case: Case, table: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    """The result; None where there is none, or it is of another table.

    Raises:
        UserError: the file is damaged.
    """
    path = path_of(case, folder)
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = read_json(path)
        sound = found["format"] == FORMAT and found["case"] == case.name and found["points"] == list(POINTS)
        return found if sound and found["table"] == table and found["searches"] else None
    except (OSError, JSONProblem, KeyError, TypeError) as error:
        raise UserError(f"{path}: is damaged ({error}): move the file away and run again") from None


def _rounded(found: dict[str, Any]) -> dict[str, Any]:
    def short(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.4g}")
        return [short(item) for item in value] if isinstance(value, tuple) else value

    return {name: short(value) for name, value in found.items()}

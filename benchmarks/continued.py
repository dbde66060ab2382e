"""What an earlier run has measured. New figures may join it only from the same code on the same machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.compare import read
from benchmarks.machine import described


def begun(file: Path, kind: str) -> dict[str, Any]:
    """The result in a file. SystemExit, with what is wrong, if this run cannot continue it."""
    result, now = read(file), described()
    if result["kind"] != kind:
        raise SystemExit(
            f"--continue {file.name}: got a {result['kind']} result; expected a {kind} one, as this run is"
        )
    if str(now["miniwin"]).endswith(".dirty"):
        raise SystemExit(f"--continue {file.name}: the code here has changes that are in no commit: commit them first")
    other = [key for key in now if result["machine"].get(key) != now[key]]
    if other:
        differ = "; ".join(f"{key} {result['machine'].get(key)}, now {now[key]}" for key in other)
        raise SystemExit(
            f"--continue {file.name}: it was measured with other things ({differ}): begin anew, with --out"
        )
    return result

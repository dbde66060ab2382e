"""The benchmark of chaos at its smallest: kills, a server that is restarted, a full disk, and what has to hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from postgres import Postgres

from benchmarks.checks import Check
from benchmarks.search_chaos.checks import check
from benchmarks.search_chaos.disturbing import NO_ROOM, Disturbed
from benchmarks.search_chaos.running import chaos

SMALL = {
    "variables": {"ratio": {"int": [2, 4]}, "window": {"choice": [4, 8]}, "factor": {"choice": [1]}},
    "budget": {"trials": 4},
}
DONE = Disturbed(ends=[(2, f"x {NO_ROOM} x"), (0, "")])


def broken(checks: list[Check]) -> list[str]:
    return [str(one) for one in checks if one.wrong]


def of(checks: list[Check]) -> str:
    (line,) = broken(checks)
    return line.splitlines()[0]


def trial(study: Path, **changes: Any) -> None:
    """Change what is known of the first of the trials."""
    path = min((study / "trials").glob("*/trial.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (lambda study: trial(study, rungs=[]), "values at rungs are the same"),
    (lambda study: trial(study, tokens=4096), "none is trained twice"),
    (lambda study: trial(study, losses={}), "trained to the end"),
    (lambda study: min(study.rglob("metrics.jsonl")).write_text(""), "none is trained twice"),
    (lambda study: (study / "trials" / ".x.tmp").touch(), "nothing is left over"),
    (lambda study: (study / "trials" / "0123").mkdir(), "nothing is left over"),
    (lambda study: min((study / "trials").glob("*/run/model.safetensors")).write_bytes(b""), "trained to the end"),
]


def test_a_disturbed_search_is_the_same_search(tmp_path: Path) -> None:
    # The first check is left out: where the search is fast, it is over before the kills are.
    _, *checks = chaos(tmp_path, None, kills=3, workers=2, steps=48, **SMALL)
    assert not broken(checks) and len(checks) == 8
    alone = tmp_path / "undisturbed" / "study"
    assert not broken(check(alone, alone, DONE))
    assert "nothing unexpected" in of(check(alone, alone, Disturbed(ends=[(1, "Traceback"), (0, "")])))
    for number, (damage, said) in enumerate(DAMAGE):
        copy = tmp_path / str(number)
        shutil.copytree(alone, copy)
        damage(copy)
        assert any(said in line for line in broken(check(copy, alone, DONE))), said


def test_a_disturbed_search_in_a_database(tmp_path: Path, postgres: Postgres) -> None:
    _, *checks = chaos(tmp_path, postgres, kills=3, workers=2, steps=48, seed=1, **SMALL)
    assert not broken(checks)

"""Looking at a study: quickly, as lines, and the best of it."""

from __future__ import annotations

import io
import pickle
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from processes import miniwin_without_torch
from rich.console import Console
from search_helpers import write_search

from miniwin.search import read_study
from miniwin.search.claims import Claim, finish, take_work
from miniwin.search.creation import create_study
from miniwin.search.live_table import study_lines, study_table
from miniwin.search.outcome import Outcome
from miniwin.search.records import collect, with_specs
from miniwin.search.study import Study
from miniwin.search.study_data import SHARED, TrialRecord
from miniwin.specs import load_model_spec, load_search_spec


def make(folder: Path, **changes: Any) -> Study:
    return create_study(load_search_spec(write_search(folder, **changes)), folder, out=folder / "study")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study, nothing of it trained."""
    study = make(tmp_path_factory.mktemp("looking"))
    while isinstance(claim := take_work(study, "0"), Claim):
        claim.outcome.values, claim.outcome.losses = {"loss@64": 2.0}, {32: 2.0, 64: 2.0}
        claim.outcome.tokens, claim.outcome.seconds = 1536, 61.0
        claim.outcome.end("complete")
        finish(study, claim)
        claim.entry.let_go()
    return study.folder


def test_looking_at_a_study_imports_neither_torch_nor_optuna(searched: Path) -> None:
    ((code, out, err),), loaded = miniwin_without_torch(["search", "status", str(searched)])
    assert code == 0, err
    assert "small: 6 of 6 trials trained" in out
    assert "yaml" in loaded and not loaded & {"torch", "optuna", "mlflow", "numpy"}


def test_the_lines_of_status_are_those_of_the_table(searched: Path) -> None:
    data = read_study(searched)
    title, head, *rows = study_lines(data)
    variables = list(data.spec.variables)
    assert title == "search small"
    assert head.split() == ["trial", "layers", *variables, "state", "loss@64", "tokens", "time"]
    assert [row.split()[0] for row in rows] == ["base", *(str(trial.number) for trial in data.completed)]
    console = Console(width=200, file=io.StringIO())
    console.print(study_table(data, rows=None))
    table = [line.split("\u2502")[1:-1] for line in console.file.getvalue().splitlines() if "\u2502" in line]  # type: ignore[attr-defined]
    assert [row.split() for row in rows] == [" ".join(cells).split() for cells in table]
    assert len({len(row) for row in [head, *rows]}) <= 2  # columns stand under their headings
    coloured = study_lines(data, colours=True)
    assert [re.sub("\x1b\\[[0-9]+m", "", line).rstrip() for line in coloured] == [title, head, *rows]
    assert all("\x1b[32mcomplete" in line for line in coloured[2:])
    wide = replace(data, trials=[replace(data.trials[0], layout="\u65e5\u672c"), *data.trials[1:]])
    narrow = next(row for row in study_lines(wide) if "\u65e5" in row)
    assert len(narrow) + 2 == max(map(len, study_lines(wide)[2:]))


def test_the_front_is_found_whatever_the_order(tmp_path: Path) -> None:
    draw = random.Random(0)
    study = make(tmp_path, objectives=["minimize loss@64", "minimize cache_bytes@64", "maximize recall@64"])
    names = [objective.name for objective in study.spec.parsed_objectives]
    for count in (0, 1, 2, 40):
        values = [[draw.randint(0, 4) * 1.0 for _ in names] for _ in range(count)]
        trials = [TrialRecord(n, "complete", {}, dict(zip(names, v, strict=True))) for n, v in enumerate(values)]
        lost = TrialRecord(count, "complete", {}, {names[0]: -1.0}, problem="gone")  # not all of it is known
        data = replace(collect(study), trials=[*trials, lost])
        costs = [(a, b, -c) for a, b, c in values]
        beaten = [any(all(x <= y for x, y in zip(o, c, strict=True)) and o != c for o in costs) for c in costs]
        assert [trial.number for trial in data.front] == [n for n in range(count) if not beaten[n]]
        assert (data.best is None) == (count == 0)


def test_a_record_says_what_its_trial_json_says(searched: Path) -> None:
    taken = ("params", "values", "losses", "rungs", "constraints", "hash", "layout", "reason")
    taken += ("seed", "tokens", "seconds", "attempts", "started", "finished", "origin")
    taken += ("spread", "trainings", "learning_rate", "rate_at_edge", "repeated_tokens")
    assert set(taken) == set(SHARED)
    data = with_specs(read_study(searched))
    assert len(data.completed) == 6 and data.baseline is not None
    for record in (*data.completed, data.baseline):
        assert record.run_folder is not None and record.spec is not None and record.train is not None
        outcome = Outcome.read(record.run_folder.parent)
        assert outcome is not None and outcome.state == record.state
        assert record.number == (-1 if outcome.number is None else outcome.number)
        assert [getattr(record, name) for name in taken] == [getattr(outcome, name) for name in taken]
        assert record.spec.model_dump(mode="json") == outcome.model
        assert record.train.model_dump(mode="json") == outcome.train
        assert pickle.loads(pickle.dumps(record)) == record


def test_a_field_that_is_read_later_is_read_once() -> None:
    read: list[int] = []
    spec = load_model_spec("minimind-tiny")
    record = TrialRecord(0, "complete", {}, spec=lambda: read.append(1) or spec)  # type: ignore[func-returns-value]
    assert not read and record.spec is spec and record.spec is spec and read == [1]
    assert replace(record, number=1).spec is spec and record == replace(record) and read == [1]
    assert TrialRecord(0, "complete", {}).spec is None

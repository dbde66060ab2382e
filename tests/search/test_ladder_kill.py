"""`kill -9` of a ladder at random moments: the same command completes it."""

from __future__ import annotations

import json
import random
from pathlib import Path

from forked import Command
from killing import kill_and_complete
from search_helpers import write_search

from miniwin.runs import read_metrics
from miniwin.search import read_study
from miniwin.search.leases import Lease, live, read_lease


def test_a_ladder_survives_kill_9(tmp_path: Path) -> None:
    """As a confirmation does; and the prediction is written once, before the largest size, whoever is killed."""
    spec = write_search(
        tmp_path,
        train={
            "tokens": 1_024,
            "checkpoint_seconds": 0.05,
            "data": {"source": "text", "paths": ["text.txt"], "test_fraction": 0.2},
        },
        budget={"trials": 1},
    )
    study = tmp_path / "study"
    once = ["--workers", "1", "--tracking", "off"]
    search = ["search", "run", str(spec), "--out", str(study), *once]
    code, _, errors = Command(*search, told=tmp_path / "told-0.json").ends()
    assert code == 0, errors
    command = ["search", "ladder", str(study), "--sizes", "6k,8k,12k", "--seeds", "2", "--tokens-per-parameter", "0.3"]

    def climbing() -> list[Lease]:
        return [
            lease for path in (study / "leases").glob("ladder-*.json") if (lease := live(read_lease(path))) is not None
        ]

    kill_and_complete([*command, *once], study, climbing, 2, 0.5, random.Random(23))

    data = read_study(study)
    assert data.finished and data.ladder is not None and data.ladder.result is not None
    prediction, trainings = data.ladder.prediction, data.ladder.every
    assert prediction is not None and len(trainings) == 10 and len(list((study / "ladder").iterdir())) == 12
    assert not list((study / "leases").iterdir()) and not list(study.rglob("*.tmp"))
    assert sum(one.outcome.attempts - 1 for one in trainings if one.outcome) >= 1
    for one in trainings:
        steps = one.candidate.train.steps
        assert [line["step"] for line in read_metrics(one.folder / "run")] == list(range(1, steps + 1))
    for one in data.ladder.largest:
        assert one.outcome is not None and prediction.written <= one.outcome.started
        assert json.loads((one.folder / "begun.json").read_text())["prediction"] == prediction.hash
    assert {source.hash for source in prediction.sources} == {one.candidate.hash for one in data.ladder.lower}

"""A worker dies before or after any of its writes: the next goes on, and the study is as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from halving_helpers import end, reach
from optuna.storages.journal import JournalStorage
from search_helpers import make

from miniwin.search import leases, outcome
from miniwin.search.claims import Claim, NoClaim, take_work
from miniwin.search.creation import create_study
from miniwin.search.records import collect
from miniwin.search.study import Study
from miniwin.specs import load_search_spec

WRITES = ("create_new_trial", "set_trial_param", "set_trial_user_attr", "set_trial_state_values")


class Killed(BaseException):
    pass


class Killer:
    """Counts the writes. at: dies before write `at // 2` if it is even, and after that write if it is odd."""

    def __init__(self) -> None:
        self.at, self.done = -1, 0

    def around(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            self.done += 1
            if self.at == 2 * (self.done - 1):
                raise Killed
            result = write(*given, **named)
            if self.at == 2 * (self.done - 1) + 1:
                raise Killed
            return result

        return call


def loss(claim: Claim, rung: int) -> float:
    """Of an architecture, whoever trains it and when."""
    return int(claim.candidate.hash[:6], 16) % 1000 / 100 + 1 / (rung + 1)


def work(study: Study) -> None:
    while isinstance(claim := take_work(study, "0"), Claim):
        left = range(len(claim.outcome.rungs), len(study.rungs))
        if reach(study, claim, *(loss(claim, rung) for rung in left)):
            end(study, claim, loss(claim, 9))
    assert claim == NoClaim(over=True)


def searched(folder: Path) -> tuple[dict[str, Any], set[int]]:
    """What came of each architecture after a search that was extended once, and the trials that others continued."""
    folder.mkdir()
    study = make(folder, pruner={"type": "halving", "reduction": 3}, budget={"trials": 4}, constraints=[])
    for trials in (4, 10):
        spec = load_search_spec(study.folder / "search.yaml", [f"budget.trials={trials}"])
        study = create_study(spec, study.folder, out=study.folder)
        while True:
            try:
                work(study)
                break
            except Killed:
                for lease in (study.folder / "leases").glob("*.json"):
                    lease.unlink()  # the system gives up what its process held
                study = Study(study.folder)
    data = collect(study)
    assert data.finished and len(data.trained) == 10 == len({trial.hash for trial in data.trained})
    told = study.optuna.get_trials(deepcopy=False)
    assert all(trial.state.is_finished() for trial in told)
    found = {
        str(trial.hash): (trial.state, trial.values, [rung["values"] for rung in trial.rungs], trial.tokens)
        for trial in data.trained
    }
    return found, {trial.user_attrs["continues"] for trial in told if "continues" in trial.user_attrs}


def test_a_study_with_a_death_at_any_write_is_the_same_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killer = Killer()
    for module in (outcome, leases):
        monkeypatch.setattr(module, "write_json", killer.around(module.write_json))
    for name in WRITES:
        monkeypatch.setattr(JournalStorage, name, killer.around(getattr(JournalStorage, name)))
    expected, continued = searched(tmp_path / "undisturbed")
    assert continued, "a trial that had ended went on as another"
    every = range(2 * killer.done)
    for at in every[5 :: len(every) // 9]:
        killer.at, killer.done = at, 0
        assert searched(tmp_path / str(at)) == (expected, continued), f"killed at {at}"

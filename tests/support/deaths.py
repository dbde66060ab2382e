"""A worker that dies at a moment of its choice, and is followed by another: before a step, or around a write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from miniwin.search import outcome
from miniwin.search.records import collect
from miniwin.search.study import Study
from miniwin.search.study_data import TrialRecord
from miniwin.search.worker import DONE, work
from miniwin.training.loop import TrainingLoop

# Each step has its checkpoint, so that a step that is taken twice is one that was lost.
EVERY_STEP = {"tokens": 512, "checkpoint_seconds": 0}


class Killed(BaseException):
    pass


class Deaths:
    """Counts the moments at which a worker may die: before a step, and before and after trial.json is written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.at = 0, -1
        self._when: Callable[[], bool] = lambda: False
        self.steps: list[tuple[Path, int]] = []
        advance, write = TrainingLoop._advance, outcome.write_json

        def step(loop: TrainingLoop) -> str | None:
            self._pass_by()
            self.steps.append((loop.folder, loop.step))
            return advance(loop)

        def written(path: Path, data: Any) -> None:
            self._pass_by()
            write(path, data)
            self._pass_by()

        monkeypatch.setattr(TrainingLoop, "_advance", step)
        monkeypatch.setattr(outcome, "write_json", written)

    def _pass_by(self) -> None:
        self.count += 1
        if self.count == self.at or self._when():
            raise Killed

    def dies_when(self, when: Callable[[], bool]) -> None:
        self._when = when

    def survived(self, study: Study, at: int) -> list[Any]:
        """What comes of a study whose worker dies at moment `at`; -1: never."""
        self.count, self.at, self.steps, self._when = 0, at, [], lambda: False
        while True:
            try:
                assert work(study.folder, "0") == DONE
                break
            except Killed:
                for lease in (study.folder / "leases").glob("*.json"):
                    lease.unlink()  # the system gives up what its process held
        # At a rung trial.json is written before the checkpoint, so a death in between costs the step that led there.
        assert len(self.steps) <= len(set(self.steps)) + (at > 0), "no step twice"
        data = collect(Study(study.folder))
        assert data.finished
        return [_said(trial) for trial in [*data.trained, *([] if data.baseline is None else [data.baseline])]]


def _said(trial: TrialRecord) -> list[Any]:
    trainings = [(one.values, one.rungs, one.tokens, one.reason) for one in trial.trainings]
    result = trial.values, trial.spread, trial.losses, trial.rungs, trial.learning_rate, trainings
    return [trial.number, trial.hash, trial.state, trial.reason, trial.tokens, *result]

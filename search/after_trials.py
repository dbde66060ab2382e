"""What workers do when the trials are over: the trainings of the confirmation. The caller holds the lock."""

from __future__ import annotations

from collections.abc import Sequence

from miniwin.search.confirm.comparing import conclude
from miniwin.search.holding import Claim, NoClaim, hold_training
from miniwin.search.records import StudyData, collect
from miniwin.search.study import Study
from miniwin.search.trainings import Training


def take_training(study: Study, worker: str) -> Claim | NoClaim:
    """A training that nobody works on. Once all are over, what came of them is written down."""
    confirmation = collect(study).confirmation
    if confirmation is None:
        return NoClaim(over=True)
    if free := _first_free(confirmation.trainings):
        # Or its workers died too often, and it has just been given up.
        return hold_training(free, worker) or take_training(study, worker)
    if confirmation.over and not confirmation.current:
        conclude(study, confirmation)
    return NoClaim(over=confirmation.over)


def retry_trainings(data: StudyData) -> int:
    """Let failed trainings be tried once more. Returns how many."""
    trainings = data.confirmation.trainings if data.confirmation is not None else ()
    failed = [one for one in trainings if one.state == "failed"]
    for training in failed:
        assert training.outcome is not None
        training.outcome.state, training.outcome.deaths = "running", 0
        training.entry.write(training.outcome)
    return len(failed)


def _first_free(trainings: Sequence[Training]) -> Training | None:
    for one in trainings:
        if one.over:
            if one.lease is not None:
                one.entry.let_go()  # its worker died at the end
        elif not one.alive:
            return one
    return None

"""What workers do when the trials are over: the trainings of the confirmation, then those of the ladder.

The caller holds the lock of the study.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from miniwin.search.confirm.comparing import conclude
from miniwin.search.confirm.plan import Confirmation
from miniwin.search.holding import Claim, NoClaim, hold_training
from miniwin.search.ladder.concluding import conclude_ladder
from miniwin.search.ladder.predicting import make_prediction
from miniwin.search.ladder.prediction import (
    begin_largest,
    check_prediction,
    has_begun,
    write_prediction,
)
from miniwin.search.ladder.standing import Ladder
from miniwin.search.records import collect
from miniwin.search.study import Study
from miniwin.search.study_data import StudyData
from miniwin.search.trainings import Training
from miniwin.specs import UserError


def take_training(study: Study, worker: str) -> Claim | NoClaim:
    """A training that nobody works on. Once all are over, what came of them is written down."""
    data = collect(study)
    found = _of_confirmation(study, data.confirmation, worker)
    if found == NoClaim(over=True) and data.ladder is not None:
        found = _of_ladder(study, data.ladder, worker)
    # None: the workers of a training died too often, and it has just been given up.
    return found or take_training(study, worker)


def _of_confirmation(study: Study, confirmation: Confirmation | None, worker: str) -> Claim | NoClaim | None:
    if confirmation is None:
        return NoClaim(over=True)
    if free := _first_free(confirmation.trainings):
        return hold_training(free, worker)
    if confirmation.over and not confirmation.current:
        _fetch(study, confirmation.trainings)
        conclude(study, confirmation)
    return NoClaim(over=confirmation.over)


def _of_ladder(study: Study, ladder: Ladder, worker: str) -> Claim | NoClaim | None:
    """The largest size comes last: not before the others are over, and their prediction of it is written down."""
    if ladder.problem is not None:
        raise UserError(ladder.problem)
    assert ladder.plan is not None
    if ladder.stuck:
        return NoClaim(over=not any(one.alive for one in ladder.every))
    if free := _first_free(ladder.lower):
        return hold_training(free, worker)
    if any(one.state != "complete" for one in ladder.lower):
        return NoClaim(over=all(one.over for one in ladder.lower))
    prediction = ladder.prediction
    if prediction is None and not any(has_begun(study, one) for one in ladder.largest):
        _fetch(study, ladder.lower)
        prediction = make_prediction(ladder.plan, ladder.trainings[:-1])
        write_prediction(study, prediction)
    prediction = check_prediction(study, ladder.plan, prediction, ladder.largest)
    if free := _first_free(ladder.largest):
        begin_largest(study, free, prediction)
        return hold_training(free, worker)
    if not ladder.broken and all(one.over for one in ladder.largest) and not ladder.current:
        _fetch(study, ladder.every)
        conclude_ladder(study, replace(ladder, prediction=prediction))
    return NoClaim(over=all(one.over for one in ladder.largest))


def _fetch(study: Study, trainings: Sequence[Training]) -> None:
    """Have the scores of trainings here, which other machines may have made."""
    for one in trainings:
        if one.state == "complete":
            study.place.fetch(one.folder)


def retry_trainings(data: StudyData) -> int:
    """Let failed trainings be tried once more. Returns how many."""
    failed = [one for _, trainings in data.anew for one in trainings if one.state == "failed"]
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

"""Who works on what: a worker claims the next trial of a study, and ends it.

    the baseline, then orphans, then paused trials that may go on (pausing.py), then new trials within the budget,
    and when the trials are over, the trainings of the confirmation, if one is asked for (after_trials.py)

Every change to a study happens under its lock (locks.py). A worker may be killed at any point: the order of the
changes leaves a state that the next worker can mend. A trial is RUNNING in Optuna from the moment it exists until its
outcome is written down (entries.py). A RUNNING trial without a live lease is an orphan. The next free worker takes the
orphan over, under the same number and in the same run folder, and training goes on from the checkpoint. So nothing is
lost, and nothing is trained twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from miniwin.search.after_trials import retry_trainings, take_training
from miniwin.search.entries import OUTCOME
from miniwin.search.history import CONTINUES, FIRST, PROMOTED, continued, history, is_paused
from miniwin.search.holding import Claim, NoClaim, hold
from miniwin.search.leases import live
from miniwin.search.outcome import ORIGIN, TRAINED, Outcome
from miniwin.search.pausing import end_paused, promote_paused
from miniwin.search.records import collect
from miniwin.search.space import Assignment, Space
from miniwin.search.study import EXHAUSTED, GROWN_AT, Study
from miniwin.search.telling import has_ended, set_attributes, tell, tell_outcome

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

    from miniwin.search.candidate import Candidate
    from miniwin.search.samplers.proposing import Proposer

# A free trial is infeasible or a duplicate: it costs no training.
FREE_FACTOR, FREE_LEAST = 20, 200  # free trials before a search gives up: this many times the budget, and at least


def take_work(study: Study, worker: str) -> Claim | NoClaim:
    """Take the baseline, an orphan, a paused trial that may go on, or a new one, in this order; NoClaim if there is
    none."""
    return study.locked(lambda: _take(study, worker))


def _take(study: Study, worker: str) -> Claim | NoClaim:
    study.read_again()
    if study.baseline is not None and (claim := _claim_baseline(study, worker)):
        return claim
    while True:
        trials = study.optuna.get_trials(deepcopy=False)
        running = [trial for trial in trials if is_running(trial)]
        failing = fruitless = None
        trial = _orphan(study, running) or promote_paused(study, trials)
        if trial is None and (left := study.spec.budget.trials - begun(trials)) > 0:
            failing, fruitless = _too_many_failed(study, trials), _too_many_free(study, trials)
            if not (failing or fruitless):
                trial = _ask(study, trials)
            if trial is None and not failing:  # there is nothing new: what waits may go on in its place
                trial = promote_paused(study, trials, spare=left)
        reason = failing or fruitless
        if trial is None and not running and not failing:
            trial = promote_paused(study, trials, last=True)
            if trial is None and not reason:
                end_paused(study, trials)
        if trial is None:
            busy = bool(running) or (study.baseline is not None and not _baseline_over(study))
            return NoClaim(over=not busy, reason=reason) if busy or reason else take_training(study, worker)
        if claim := _claim_trial(study, trial, trials, worker):
            return claim
        study.trial_entry(trial).let_go()  # its worker died at the end


def finish(study: Study, claim: Claim) -> None:
    """Write down the outcome, then tell Optuna; the caller then gives up the lease.

    After a kill in between, the next worker finds the outcome and tells Optuna. LeaseLost if another worker has taken
    the work over.
    """
    study.locked(lambda: _finish(study, claim))


def _finish(study: Study, claim: Claim) -> None:
    claim.write()
    if claim.trial is not None:
        tell_outcome(study, claim.trial, claim.outcome)
    if study.stored and not (claim.trial is not None and claim.outcome.over):
        claim.entry.let_go()  # under the lock, since another worker may take a paused trial at once


def retry_failed(study: Study) -> int:
    """Queue failed trials, a failed baseline and failed trainings of a confirmation once more: the user may have mended
    the cause. Returns how many."""
    return study.locked(lambda: _retry_failed(study))


def _retry_failed(study: Study) -> int:
    trainings = retry_trainings(collect(study))
    entry = study.baseline_entry()
    baseline = entry.outcome()
    again = baseline is not None and baseline.state == "failed"
    if baseline is not None and again:
        baseline.state, baseline.deaths = "running", 0
        entry.write(baseline)
    waiting = _failed(study.optuna.get_trials(deepcopy=False))
    for trial in waiting:
        kept = {name: trial.user_attrs[name] for name in (OUTCOME,) if name in trial.user_attrs}
        kept |= {FIRST: trial.user_attrs.get(FIRST, trial.number)}  # it stays in its bracket
        study.optuna.enqueue_trial(trial.params, user_attrs={"retry_of": trial.number, **kept})
    return len(waiting) + again + trainings


def is_running(trial: FrozenTrial) -> bool:
    """Whether a worker has the trial, or had it when the worker was killed. To Optuna a paused trial runs as well."""
    return trial.state.name == "RUNNING" and not is_paused(trial.user_attrs)


def begun(trials: Sequence[FrozenTrial]) -> int:
    """How many trials count towards the budget: those that run or wait at a rung, and those that were trained."""
    further = continued(trials)
    return sum(trial.state.name == "RUNNING" or (is_trained(trial) and trial.number not in further) for trial in trials)


def is_trained(trial: FrozenTrial) -> bool:
    """Whether a trial that has ended has been trained."""
    return trial.state.is_finished() and trial.user_attrs.get("state") in TRAINED and ORIGIN not in trial.user_attrs


def is_free(trial: FrozenTrial) -> bool:
    """Whether a trial that has ended cost no training."""
    return trial.state.is_finished() and trial.user_attrs.get("state") in ("infeasible", "duplicate")


# -- finding work


def _baseline_over(study: Study) -> bool:
    baseline = study.baseline_entry().outcome()
    return baseline is not None and baseline.over


def _claim_baseline(study: Study, worker: str) -> Claim | None:
    assert study.baseline is not None
    seen = study.optuna.user_attrs if study.stored else None
    now = study.baseline_entry(seen)
    before = now.outcome()
    if live(now.lease()) is not None:
        return None
    entry = study.baseline_entry()
    if before is not None and before.over:
        if now.lease() is not None:
            entry.let_go()
        return None
    candidate = study.baseline_candidate()
    return hold(study, None, Assignment({}, candidate), candidate, study.baseline_folder, entry, before, worker, None)


def _orphan(study: Study, running: Sequence[FrozenTrial]) -> Trial | None:
    """A trial that runs, and whose worker is gone."""
    import optuna

    from miniwin.search.samplers.given import Given

    for trial in running:
        if live(study.lease_seen(trial)) is None:
            if "hash" not in trial.user_attrs:  # killed while it was asked for: what it lacks is proposed again
                before = [tried for tried in history(study) if tried.number < trial.number]
                study.optuna.sampler = Given(_proposer(study.space).propose(before) or {}, trial.number)
            return optuna.Trial(study.optuna, trial._trial_id)
    return None


def _ask(study: Study, trials: Sequence[FrozenTrial]) -> Trial | None:
    """A new trial, or None if every assignment has been tried. Trials in the queue come first."""
    from miniwin.search.samplers.given import Given

    params = _proposer(study.space).propose(history(study, trials))
    if not any(trial.state.name == "WAITING" for trial in trials):
        if params is None:
            study.optuna.set_user_attr(EXHAUSTED, True)
            return None
        return _new(study, params, trials)
    # What a trial of the queue leaves open is taken from the proposal.
    study.optuna.sampler = Given(params or {}, len(trials))
    return study.optuna.ask()


def _new(study: Study, params: dict[str, Any], trials: Sequence[FrozenTrial]) -> Trial:
    """A new trial with all that is known of it, written at once: a database is asked a few times, and not for each."""
    import optuna

    given = optuna.trial.FixedTrial(params)
    assignment = study.space.assign(study.space.suggest(given))
    candidate = assignment.candidate
    is_new = candidate is not None and _earlier(None, trials, candidate.hash) is None
    made = optuna.trial.create_trial(
        state=optuna.trial.TrialState.RUNNING,
        params=given.params,
        distributions=given.distributions,
        constraints=assignment.constraints,
        user_attrs=_about(candidate) if candidate is not None and is_new else {},
    )
    return optuna.Trial(study.optuna, study.storage.create_new_trial(study.optuna._study_id, made))


def _about(candidate: Candidate) -> dict[str, Any]:
    """What a trial says in Optuna of what it trains."""
    return {"hash": candidate.hash, "layout": candidate.model.layout}


@lru_cache(maxsize=1)
def _proposer(space: Space) -> Proposer:
    """What proposes the trials of this space. It is kept, since it is faster the second time."""
    from miniwin.search.samplers.proposing import Proposer

    return Proposer(space)


def _too_many_failed(study: Study, trials: Sequence[FrozenTrial]) -> str | None:
    """Why nothing more is started, if too many trials failed."""
    if len(failed := _failed(trials)) <= max(2, study.spec.budget.trials // 4):
        return None
    last = failed[-1].user_attrs.get("reason")
    return f"{len(failed)} trials failed, the last with: {last}; the same command tries them again"


def _too_many_free(study: Study, trials: Sequence[FrozenTrial]) -> str | None:
    """Why no new trials are started, if too many of these variables were free."""
    most = max(FREE_FACTOR * study.spec.budget.trials, FREE_LEAST)
    free = [trial for trial in trials if is_free(trial)]
    if len(free) >= most:
        before = int(study.optuna.user_attrs.get(GROWN_AT, 0))
        free = [trial for trial in free if trial.number >= before]
    if len(free) < most:
        return None
    infeasible = [trial for trial in free if trial.user_attrs.get("state") == "infeasible"]
    last = f" (the last: {infeasible[-1].user_attrs.get('reason')})" if infeasible else ""
    return (
        f"{len(infeasible)} assignments gave no architecture that holds the constraints{last} and "
        f"{len(free) - len(infeasible)} repeated an architecture: widen the variables or relax the constraints"
    )


def _failed(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Failed trials that have not been queued again."""
    again = {trial.user_attrs.get("retry_of") for trial in trials}
    return [trial for trial in trials if trial.state.name == "FAIL" and trial.number not in again]


# -- taking it


def _claim_trial(study: Study, trial: Trial, trials: Sequence[FrozenTrial], worker: str) -> Claim | None:
    """Take the lease of a trial. None: the trial needs no training, and Optuna has been told so."""
    assignment = study.space.assign(study.space.suggest(trial))
    told = trial.constraints if assignment.constraints else {}  # a new trial has them, and one that is taken over
    for text, violation in assignment.constraints.items():
        if text not in told:
            trial.set_constraint(text, violation)
    candidate = assignment.candidate
    if candidate is None:
        tell(study, trial, "infeasible", assignment.reason)
        return None
    same = _earlier(trial, trials, candidate.hash)
    if same is not None:
        tell(study, trial, "duplicate", f"the same as trial {same}", duplicate_of=same)
        return None
    if "hash" not in trial.user_attrs:
        set_attributes(trial, _about(candidate))
    folder = study.trial_folder(candidate.hash)
    entry = study.trial_entry(trial, candidate.hash)
    outcome = study.trial_entry(trial, candidate.hash, trial.user_attrs).outcome()
    if outcome is not None and outcome.number == trial.number and _untold(study, trial, outcome):
        tell_outcome(study, trial, outcome)  # its worker was killed between writing and telling
        return None
    return hold(study, trial.number, assignment, candidate, folder, entry, outcome, worker, trial)


def _untold(study: Study, trial: Trial, outcome: Outcome) -> bool:
    """Whether an outcome says that its trial ended, or was paused at a rung that the trial may not pass yet."""
    if outcome.state == "paused":
        return outcome.rung(study.rungs) > trial.user_attrs.get(PROMOTED, -1)
    return has_ended(study, outcome)


def _earlier(trial: Trial | None, trials: Sequence[FrozenTrial], hash: str) -> int | None:
    """Another trial that trains, or has trained, what this hash stands for. trial: None if it is not made yet."""
    skipped = {*continued(trials), *(other.user_attrs.get("retry_of") for other in trials)}
    if trial is not None:
        skipped |= {trial.number, trial.user_attrs.get(CONTINUES)}  # it may be newer than the list of trials
    # A database that is away may make a trial twice (database.py). One of the two is then a duplicate, with a hash.
    same = (t for t in trials if t.user_attrs.get("hash") == hash and t.user_attrs.get("state") != "duplicate")
    return next((t.number for t in same if t.number not in skipped), None)

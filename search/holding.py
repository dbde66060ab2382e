"""A piece of work that a process holds, and how the process takes hold of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from miniwin.search.candidate import Candidate
from miniwin.search.entries import Entry
from miniwin.search.leases import Lease
from miniwin.search.outcome import Outcome
from miniwin.search.space import Assignment
from miniwin.search.study import Study
from miniwin.search.telling import tell_outcome
from miniwin.search.trainings import Training

if TYPE_CHECKING:
    from optuna.trial import Trial

DEATHS = 20  # deaths of a trial's workers without progress in between, before the trial is given up


@dataclass(frozen=True)
class Claim:
    """A piece of work that this process holds the lease of."""

    number: int | None  # None: the baseline
    candidate: Candidate
    folder: Path
    outcome: Outcome
    lease: Lease
    entry: Entry
    trial: Trial | None
    training: Training | None = None  # of a trial or the baseline anew, when the trials are over

    @property
    def confirms(self) -> bool:
        return self.training is not None

    @property
    def label(self) -> str:
        if self.training is not None:
            return self.training.label
        return "baseline" if self.number is None else f"trial {self.number}"

    @property
    def run_folder(self) -> Path:
        return self.folder / "run"

    def write(self) -> None:
        """Write the outcome down as it is by now. LeaseLost if another worker has taken the work over."""
        self.entry.write(self.outcome, self.lease)


def saved(study: Study, claim: Claim) -> None:
    """What follows a checkpoint: other machines see it, if they do not see the folder; and how far the work is."""
    if study.place.elsewhere:
        study.place.push(claim.folder)
        claim.outcome.tokens = max(claim.outcome.tokens, claim.outcome.tokens_by(claim.folder))
        claim.write()


@dataclass(frozen=True)
class NoClaim:
    """There is no work to take now. over: nor will there be later. reason: why the search gives up before its budget
    is spent, if it does."""

    over: bool
    reason: str | None = None


def hold(
    study: Study,
    number: int | None,
    assignment: Assignment,
    candidate: Candidate,
    folder: Path,
    entry: Entry,
    before: Outcome | None,
    worker: str,
    trial: Trial | None,
) -> Claim | None:
    """Take the lease of a trial, or of the baseline (`number` None). None: its workers died too often, and it failed.

    before: what an earlier attempt has written.
    """
    outcome, lease = _next_attempt(Outcome.begin(number, assignment, candidate), entry, before, folder, worker)
    if lease is None:
        if trial is not None:
            tell_outcome(study, trial, outcome)
        return None
    return Claim(number, candidate, folder, outcome, lease, entry, trial)


def hold_training(training: Training, worker: str) -> Claim | None:
    """Take the lease of a training anew; otherwise as `hold`."""
    variant, candidate, folder, entry = training.variant, training.candidate, training.folder, training.entry
    begun = Outcome.begin(variant.number, Assignment(variant.params, candidate), candidate)
    outcome, lease = _next_attempt(begun, entry, training.outcome, folder, worker)
    if lease is None:
        return None
    return Claim(variant.number, candidate, folder, outcome, lease, entry, None, training)


def _next_attempt(
    outcome: Outcome, entry: Entry, before: Outcome | None, folder: Path, worker: str
) -> tuple[Outcome, Lease | None]:
    """The outcome of an attempt that begins, written down, and its lease; no lease: there were too many."""
    if before is not None:
        outcome.go_on_from(before, folder)
    if outcome.deaths > DEATHS:
        outcome.end("failed", f"its worker was killed {outcome.deaths} times without progress: out of memory?")
        entry.write(outcome)
        return outcome, None
    lease = Lease.mine(worker)
    entry.begin(outcome, lease)
    return outcome, lease

"""Trainings of what a search has found, when the trials are over: for a confirmation (confirm/) or a ladder (ladder/).

    KIND/HASH/     a training: trial.json, run/ (a run folder), scores.json; HASH says what decides its result

A plan follows from the files of the study alone, so every worker has the same one, and a folder that is there is not
trained again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from miniwin.display.formats import plural
from miniwin.search.candidate import Candidate
from miniwin.search.entries import Entry
from miniwin.search.leases import Lease, live
from miniwin.search.outcome import Outcome
from miniwin.search.study import Study
from miniwin.search.trial_trainings import SEEDS
from miniwin.specs.confirmation import ConfirmSpec


@dataclass(frozen=True)
class Variant:
    """What is trained anew: a trial, or the baseline (`number` None)."""

    number: int | None
    params: dict[str, Any]
    candidate: Candidate

    @property
    def label(self) -> str:
        return "baseline" if self.number is None else f"trial {self.number}"


@dataclass(frozen=True)
class Training:
    """One variant with a new seed. asked: what it is measured on. outcome: None until a worker begins."""

    label: str
    variant: Variant
    candidate: Candidate
    asked: ConfirmSpec
    folder: Path
    entry: Entry
    lease: Lease | None
    outcome: Outcome | None

    @property
    def state(self) -> str:
        return "waiting" if self.outcome is None else self.outcome.state

    @property
    def over(self) -> bool:
        return self.outcome is not None and self.outcome.over

    @property
    def alive(self) -> bool:
        return not self.over and live(self.lease) is not None


def training_of(
    study: Study,
    kind: str,
    label: str,
    variant: Variant,
    candidate: Candidate,
    asked: ConfirmSpec,
    seen: Mapping[str, Any] | None = None,
) -> Training:
    """The training of a candidate, as far as it is. kind: the folder, in the study's own. seen: the attributes of the
    Optuna study, if they have just been read."""
    name = candidate.hash[:12]
    now, entry = study.training_entry(kind, name, seen), study.training_entry(kind, name)
    folder = study.training_folder(kind, name)
    return Training(label, variant, candidate, asked, folder, entry, now.lease(), now.outcome())


def with_seed(candidate: Candidate, seed: int) -> Candidate:
    """The same, trained with a seed; of a number beyond the largest seed, the first ones."""
    return replace(candidate, train=candidate.train.model_copy(update={"seed": seed % SEEDS}))


def progress(doing: str, trainings: Sequence[Training]) -> str | None:
    """`confirming: 5 of 12 trainings, 2 running`; None if there is nothing to train, or no more."""
    states = Counter("running" if one.alive else one.state for one in trainings)
    if all(one.over for one in trainings):
        return None
    over = sum(one.over for one in trainings)
    parts = [f"{over} of {plural(len(trainings), 'training')}"]
    parts += [f"{states[state]} {state}" for state in ("running", "failed") if states[state]]
    return f"{doing}: {', '.join(parts)}"

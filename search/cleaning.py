"""Removing checkpoints that nothing needs any more. They are most of what a study takes on a disk.

    trained to the end        model.safetensors has the weights, for `promote`, `warm_start` and the confirmation
    pruned for good           it never goes on
    waits at a rung           kept: it may go on, now or with a larger budget; without its checkpoint, from the start

What runs, what failed and is tried again, and what cannot be read keeps its checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from miniwin.runs import WEIGHTS, checkpoint_bytes, remove_checkpoint
from miniwin.search.entries import OUTCOME, outcome_in
from miniwin.search.outcome import FILE, TRAINED, Outcome
from miniwin.search.records import collect
from miniwin.search.remote_place import RemotePlace
from miniwin.search.study import Study, find_study
from miniwin.search.study_data import StudyData, TrialRecord
from miniwin.search.trial_trainings import MAIN, run_folders
from miniwin.specs import UserError


@dataclass(frozen=True)
class Cleaned:
    """removed, removed_bytes: checkpoints that were removed, or would be. waiting: those of trials at a rung among
    them. kept, kept_bytes: those that are left of such trials."""

    removed: int
    removed_bytes: int
    waiting: int
    kept: int
    kept_bytes: int


def clean_study(study: str | Path, *, paused: bool = False, dry_run: bool = False) -> Cleaned:
    """Remove the checkpoints that neither a search that goes on, nor `promote`, nor a confirmation needs.

    study: its folder or its name. paused: also those of trials that wait at a rung; if a larger budget takes one
    further, it is trained from the start. dry_run: remove nothing.

    Raises:
        UserError: there is no such study, it is not over and `paused` is asked for, or a file cannot be removed.
    """
    opened = Study(find_study(study), reading=dry_run)
    with nullcontext() if dry_run else opened.lock:  # while it is held no trial is taken further
        data = collect(opened)
        if paused and not data.searched:
            raise UserError(
                f"--paused: the trials of {opened.folder} are not over, and one that waits may go on at any moment; "
                "expected a study that is over: miniwin search resume goes on with it"
            )
        if isinstance(opened.place, RemotePlace):
            return _clean_remote(opened, opened.place, data, paused, dry_run)
        waiting, done = (
            [run for trial in data.trials if _waits(trial) for run in trial.run_folders],
            _done(opened, data),
        )
        removed = _sizes([*done, *(waiting if paused else [])])
        kept = {} if paused else _sizes(waiting)
        if not dry_run:
            for run in removed:
                remove_checkpoint(run)
    return Cleaned(
        removed=len(removed),
        removed_bytes=sum(removed.values()),
        waiting=len(set(waiting) & set(removed)),
        kept=len(kept),
        kept_bytes=sum(kept.values()),
    )


def _clean_remote(study: Study, place: RemotePlace, data: StudyData, paused: bool, dry_run: bool) -> Cleaned:
    """The same where run folders are at a URL: there a folder's file before the latest has a checkpoint, and of a trial
    that waits the latest too."""
    ended = [(t.run_folder.parent, t.state) for t in _ended(data) if t.run_folder is not None] + list(_anew(study))
    spare = {folder: place.spare(folder, weights=state == "complete") for folder, state in ended if state in TRAINED}
    waiting = [trial.run_folder.parent for trial in data.trials if _waits(trial) and trial.run_folder is not None]
    sizes = {folder: size for folder in waiting if (size := place.checkpoint_bytes(folder))}
    spare_bytes = sum(place.bytes(folder, kept) for folder, kept in spare.items())
    for folder, kept in () if dry_run else spare.items():
        place.remove(folder, kept)
    for folder in sizes if paused and not dry_run else ():
        before = place.kept(folder)
        place.fetch(folder)
        for run in run_folders(folder):
            remove_checkpoint(run)
        place.push(folder, over=True, tokens=0)  # whatever comes after it is further
        place.remove(folder, before)
        place.forget(folder)
    counts = len(sizes), sum(sizes.values())
    return Cleaned(
        removed=sum(map(len, spare.values())) + (counts[0] if paused else 0),
        removed_bytes=spare_bytes + (counts[1] if paused else 0),
        waiting=counts[0] if paused else 0,
        kept=0 if paused else counts[0],
        kept_bytes=0 if paused else counts[1],
    )


def _waits(trial: TrialRecord) -> bool:
    """Whether a trial is paused, or was until the study was over."""
    return trial.state == "paused" or trial.waited_to_the_end


def _done(study: Study, data: StudyData) -> list[Path]:
    """The runs that nobody takes further: of trials, of the baseline, and of what was trained anew afterwards."""
    ended = [(run, trial.state) for trial in _ended(data) for run in trial.run_folders]
    ended += [(folder / MAIN, state) for folder, state in _anew(study)]
    # Where the weights of a run that came to its end are gone, the checkpoint has them.
    return [run for run, state in ended if state == "pruned" or (state == "complete" and (run / WEIGHTS).is_file())]


def _ended(data: StudyData) -> list[TrialRecord]:
    trials = [*data.trials, *([] if data.baseline is None else [data.baseline])]
    return [trial for trial in trials if not trial.alive and not _waits(trial)]


def _anew(study: Study) -> Iterator[tuple[Path, str]]:
    """The trainings of confirmations and of a ladder, also of earlier ones: their folders, and how they ended."""
    if study.stored:
        attributes = study.optuna.user_attrs
        for name in attributes:
            kind, _, hash = name.removeprefix(f"{OUTCOME}:").partition("-")
            if name.startswith(f"{OUTCOME}:") and hash and (outcome := outcome_in(attributes, name)) is not None:
                yield study.training_folder(kind, hash), outcome.state
        return
    for path in sorted(study.folder.glob(f"*/*/{FILE}")):  # confirm/HASH/trial.json
        if path.parent.parent.name != "trials" and (outcome := Outcome.read_sound(path.parent)) is not None:
            yield path.parent, outcome.state


def _sizes(runs: list[Path]) -> dict[Path, int]:
    """The runs that have a checkpoint, with its bytes."""
    return {run: size for run in runs if (size := checkpoint_bytes(run))}

"""Removing checkpoints that nothing needs any more. They are most of what a study takes on a disk.

    trained to the end        model.safetensors has the weights, for `promote`, `warm_start` and the confirmation
    pruned for good           it never goes on
    waits at a rung           kept: it may go on, now or with a larger budget; without its checkpoint, from the start

What runs, what failed and is tried again, and what cannot be read keeps its checkpoint.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from miniwin.runs import WEIGHTS, checkpoint_bytes, remove_checkpoint
from miniwin.search.outcome import FILE, Outcome
from miniwin.search.records import collect
from miniwin.search.study import Study, find_study
from miniwin.search.study_data import StudyData, TrialRecord
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
        UserError: there is no such study, its run folders are at a URL, it is not over and `paused` is asked for, or a
            file cannot be removed.
    """
    opened = Study(find_study(study), reading=dry_run)
    if opened.place.elsewhere:
        raise UserError(
            f"{opened.folder} has its run folders at {opened.about['place']}: those of trials that have ended have no "
            "checkpoints there, and those of trials that wait keep theirs"
        )
    with nullcontext() if dry_run else opened.lock:  # while it is held no trial is taken further
        data = collect(opened)
        if paused and not data.searched:
            raise UserError(
                f"--paused: the trials of {opened.folder} are not over, and one that waits may go on at any moment; "
                "expected a study that is over: miniwin search resume goes on with it"
            )
        waiting, done = [run for trial in data.trials if _waits(trial) for run in trial.run_folders], _done(data)
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


def _waits(trial: TrialRecord) -> bool:
    """Whether a trial is paused, or was until the study was over."""
    return trial.state == "paused" or trial.waited_to_the_end


def _done(data: StudyData) -> list[Path]:
    """The runs that nobody takes further: of trials, of the baseline, and of what was trained anew afterwards."""
    trials = [*data.trials, *([] if data.baseline is None else [data.baseline])]
    ended = [(run, t.state) for t in trials if not t.alive and not _waits(t) for run in t.run_folders]
    if data.confirmation is not None:
        ended += [(one.folder / "run", one.state) for one in data.confirmation.trainings if not one.alive]
    for path in sorted(data.folder.glob(f"*/*/{FILE}")):  # confirm/HASH/trial.json, also of an earlier confirmation
        outcome = Outcome.read_sound(path.parent) if path.parent.parent.name != "trials" else None
        ended += [] if outcome is None else [(path.parent / "run", outcome.state)]
    # Where the weights of a run that came to its end are gone, the checkpoint has them.
    return [run for run, state in ended if state == "pruned" or (state == "complete" and (run / WEIGHTS).is_file())]


def _sizes(runs: list[Path]) -> dict[Path, int]:
    """The runs that have a checkpoint, with its bytes."""
    return {run: size for run in runs if (size := checkpoint_bytes(run))}

"""`miniwin search confirm`: asking for a confirmation of a study, or going on with one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from miniwin.search.launchers.launcher import Launcher
from miniwin.search.records import read_study
from miniwin.search.resuming import resume_search
from miniwin.search.study import find_study
from miniwin.search.study_data import StudyData
from miniwin.specs import UserError
from miniwin.specs.confirmation import ConfirmSpec
from miniwin.specs.data import without_test


def confirm_search(
    study: str | Path,
    *,
    top: int | None = None,
    seeds: int | None = None,
    workers: int | None = None,
    tracking: str | None = None,
    progress: bool = True,
    launcher: str | Path | Launcher = "local",
    launcher_options: Sequence[str] = (),
) -> StudyData:
    """Train the best trials of a study and its baseline anew, and measure them on the test split.

    The wish is kept in search.yaml of the study, so `resume_search` and `run_search` go on with it. Trials that are
    left are trained first. study: its folder or its name. top, seeds: None: as the study asks, or else 3 of each;
    workers, tracking, launcher, launcher_options: as of `resume_search`.

    Raises:
        UserError: there is no such study, or it has not begun; its data have no test split, or too little of it; or
            `top` is more than there are trials, of several objectives on the front.
    """
    folder = find_study(study)
    data = read_study(folder)
    asked = data.spec.confirm or ConfirmSpec(seeds=1 if data.untrained else ConfirmSpec().seeds)
    for option, count in (("--top", top), ("--seeds", seeds)):
        if count is not None and count < 1:
            raise UserError(f"{option}: got {count}; expected at least 1")
    if data.untrained and seeds not in (None, 1):
        raise UserError(
            f"--seeds: got {seeds}; nothing is trained in {folder}, so a seed changes nothing: leave it out"
        )
    if lacking := without_test(data.train.data):
        raise UserError(
            f"{folder} cannot be confirmed: its data keep nothing back for a test ({lacking[0]} of the train spec, "
            f"source {lacking[1]}), and its trials have seen all of them; set test_fraction, such as 0.05, or "
            "test_paths there, and search anew with another --out"
        )
    if top is not None and data.searched and top > len(data.ranked):
        where = "on the front" if len(data.objectives) > 1 else "that are complete"
        raise UserError(f"--top: got {top}; {folder} has {len(data.ranked)} trials {where}: expected at most as many")
    least = min(asked.top, data.spec.budget.trials) if top is None else top
    wish = asked.model_copy(update={"top": least, "seeds": asked.seeds if seeds is None else seeds})
    return resume_search(
        folder,
        workers=workers,
        tracking=tracking,
        progress=progress,
        confirm=wish,
        launcher=launcher,
        launcher_options=launcher_options,
    )

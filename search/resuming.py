"""Going on with a study from its own folder, without the YAML files that it was made from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from miniwin.blocks.messages.passwords import MASK
from miniwin.search.launchers.launcher import Launcher
from miniwin.search.runner import run_search
from miniwin.search.study import Study, find_study
from miniwin.search.study_data import StudyData
from miniwin.search.study_json import is_begun, is_stored, read_about
from miniwin.specs import UserError, load_search_spec
from miniwin.specs.confirmation import ConfirmSpec


def resume_search(
    study: str | Path,
    *,
    place: str | None = None,
    workers: int | None = None,
    trials: int | None = None,
    tracking: str | None = None,
    progress: bool = True,
    confirm: ConfirmSpec | None = None,
    launcher: str | Path | Launcher = "local",
    launcher_options: Sequence[str] = (),
) -> StudyData:
    """Go on with a study as `run_search` would.

    study: its folder, its name, or the URL of its storage. place: where this machine sees the run folders. workers:
    processes; None: as the search spec says. trials: the new budget.trials, at least the old one. confirm: a
    confirmation in place of the study's own. tracking: an MLflow tracking URI, or "off"; None: where the study was
    tracked before. launcher, launcher_options: as of `run_search`.

    Raises:
        UserError: there is no such study, it has not begun, or the budget would shrink.
    """
    folder = find_study(study, place)
    if not is_begun(folder):
        raise UserError(f"{folder} was cut off while it was made, and has no trials yet: miniwin search run begins it")
    if is_stored(folder):
        Study(folder).read_again()  # another machine may have changed it
    spec = load_search_spec(folder / "search.yaml")
    if trials is not None and trials < spec.budget.trials:
        raise UserError(
            f"--trials {trials}: {folder} has a budget of {spec.budget.trials} trials, which may only grow; "
            f"expected at least {spec.budget.trials}"
        )
    before = (read_about(folder)["tracking"] or {}).get("uri")
    if tracking is None and before is not None and MASK not in before:  # a password is in the environment
        tracking = before
    overrides = [] if trials is None else [f"budget.trials={trials}"]
    if confirm is not None:
        overrides += [f"confirm={json.dumps(confirm.model_dump(mode='json'))}"]
    return run_search(
        folder / "search.yaml",
        workers=workers,
        out=folder,
        overrides=overrides,
        tracking=tracking,
        progress=progress,
        launcher=launcher,
        launcher_options=launcher_options,
    )

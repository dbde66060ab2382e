"""What has to hold of a search that was disturbed. Each check gives what is wrong, a line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.checks import Check
from benchmarks.search_chaos.disturbing import EXPECTED, Disturbed
from miniwin.runs import read_metrics
from miniwin.search import read_study
from miniwin.search.history import history
from miniwin.search.study import Study
from miniwin.search.study_data import StudyData, TrialRecord

ENDED = {"complete", "pruned", "infeasible", "duplicate"}
WEIGHTS = "model.safetensors"


def check(disturbed: Path, undisturbed: Path, told: Disturbed) -> list[Check]:
    """disturbed, undisturbed: study folders."""
    study, alone = read_study(disturbed), read_study(undisturbed)
    known = {str(trial.hash): trial for trial in trainings(alone)}
    found = trainings(study)
    values = sum(len(rung["values"]) for trial in found for rung in trial.rungs)
    complete = [trial for trial in found if trial.state == "complete"]
    return [
        Check("the search is done, and its command said nothing unexpected", list(_unexpected(study, told))),
        Check(f"no trial is lost: {len(study.trials)} have ended", list(_lost(study))),
        Check(f"{len(found)} architectures, the same as undisturbed", list(_others(found, known))),
        Check("none is trained twice, and each step of a training was counted once", list(_twice(study, found))),
        Check(f"{values} values at rungs are the same, to the bit", list(_rungs(found, known))),
        Check(
            f"{len(complete)} trained to the end: values, losses and weights are the same", list(_ends(complete, known))
        ),
        Check("Optuna's storage has the same values at the rungs", list(_told(Study(disturbed, reading=True), study))),
        Check("nothing is left over: no lease, no temporary file, no other folder", list(_left_over(study))),
    ]


def trainings(data: StudyData) -> list[TrialRecord]:
    return [*data.trained, *([] if data.baseline is None else [data.baseline])]


def _unexpected(study: StudyData, told: Disturbed) -> Iterator[str]:
    if not study.finished:
        yield "it is not done"
    for code, error in told.ends:
        if code and not any(words in error for words in EXPECTED):
            yield f"exit code {code}: {error[-500:]}"


def _lost(study: StudyData) -> Iterator[str]:
    if [trial.number for trial in study.trials] != list(range(len(study.trials))):
        yield f"numbers {[trial.number for trial in study.trials]}"
    for trial in trainings(study) + [one for one in study.trials if not one.trained]:
        if trial.state not in ENDED or trial.problem or trial.alive:
            yield f"{trial.label} is {trial.state}, alive {trial.alive}: {trial.problem or trial.reason}"


def _others(found: list[TrialRecord], known: dict[str, TrialRecord]) -> Iterator[str]:
    there = {str(trial.hash): trial for trial in found}
    for hash in sorted(there.keys() ^ known.keys()):
        where, trial = ("disturbed", there[hash]) if hash in there else ("undisturbed", known[hash])
        yield f"{hash[:12]} ({trial.layout}, {trial.params}) is only in the {where} search"


def _twice(study: StudyData, found: list[TrialRecord]) -> Iterator[str]:
    for hash, times in Counter(str(trial.hash) for trial in found).items():
        if times > 1:
            yield f"{hash[:12]} is {times} trials"
    for trial in found:
        assert trial.run_folder is not None
        steps = [line["step"] for line in read_metrics(trial.run_folder)]
        if steps != list(range(1, trial.tokens // study.train.tokens_per_step + 1)):
            yield f"{trial.label} counts {trial.tokens} tokens, and has {len(steps)} steps: {steps[:3]} to {steps[-3:]}"
        if trial.state == "complete" and trial.tokens != study.train.tokens:
            yield f"{trial.label} is complete after {trial.tokens} tokens"


def _rungs(found: list[TrialRecord], known: dict[str, TrialRecord]) -> Iterator[str]:
    for trial in found:
        if (same := known.get(str(trial.hash))) and trial.rungs != same.rungs[: len(trial.rungs)]:
            yield f"{trial.label}: {trial.rungs}, undisturbed {same.rungs}"
        if not trial.rungs:
            yield f"{trial.label} has reached no rung"


def _ends(complete: list[TrialRecord], known: dict[str, TrialRecord]) -> Iterator[str]:
    if not complete:
        yield "there is none"
    for trial in complete:
        same = known.get(str(trial.hash))
        if same is None or same.run_folder is None or trial.run_folder is None:
            continue
        if (trial.values, trial.losses) != (same.values, same.losses):
            yield f"{trial.label}: {trial.values} {trial.losses}, undisturbed {same.values} {same.losses}"
        if (trial.run_folder / WEIGHTS).read_bytes() != (same.run_folder / WEIGHTS).read_bytes():
            yield f"{trial.label} has other weights"


def _told(opened: Study, study: StudyData) -> Iterator[str]:
    known = {one.number: one for one in history(opened)}
    for trial in study.trained:
        measured = [rung["values"]["loss@64"] for rung in trial.rungs]
        told = [row[0] for row in known[trial.number].rungs[: len(measured)]]
        if told != measured:
            yield f"{trial.label}: {told}, measured {measured}"
    for one in opened.optuna.get_trials(deepcopy=False):
        if not one.state.is_finished():
            yield f"trial {one.number} is {one.state.name} in the storage"


def _left_over(study: StudyData) -> Iterator[str]:
    folders = {str(trial.hash)[:12] for trial in study.trained}
    for path in (study.folder / "trials").iterdir():
        if path.name not in folders:
            yield f"{path}"
    for path in [*study.folder.rglob("*.tmp"), *(study.folder / "leases").glob("*")]:
        yield f"{path}"

"""Removing checkpoints: those that nothing needs go, and what a search, `promote` or a confirmation needs stays."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from halving_helpers import claimed, reach
from search_helpers import make, write_search
from tiny import run_cli

from miniwin.runs import CHECKPOINT, SHARDS, WEIGHTS
from miniwin.search import clean_study, promote
from miniwin.search.candidate import Candidate
from miniwin.search.claims import finish
from miniwin.search.creation import create_study
from miniwin.search.outcome import Outcome
from miniwin.search.records import collect
from miniwin.search.space import Assignment
from miniwin.search.study import Study
from miniwin.search.study_data import StudyData
from miniwin.search.trial_trainings import TrialTraining
from miniwin.search.worker import DONE, main, work
from miniwin.specs import UserError, load_search_spec

HALF = {"type": "halving", "reduction": 2}


def checkpoints(folder: Path) -> dict[str, int]:
    """The trials, by the name of their folders, that have a checkpoint, with its bytes."""
    return {path.parent.parent.name: path.stat().st_size for path in folder.rglob(CHECKPOINT)}


def in_state(data: StudyData, *states: str) -> set[str]:
    return {str(trial.run_folder.parent.name) for trial in data.trials if trial.run_folder and trial.state in states}


def test_what_nothing_needs_goes_and_the_study_goes_on_all_the_same(tmp_path: Path) -> None:
    data = {"source": "text", "paths": ["text.txt"], "test_fraction": 0.2}
    confirm = {"top": 1, "seeds": 1, "split": "test"}
    spec = write_search(
        tmp_path, {"data": data}, baseline=None, pruner=HALF, budget={"trials": 4}, confirm=confirm, constraints=[]
    )
    study = create_study(load_search_spec(spec), tmp_path, out=tmp_path / "study")
    assert work(study.folder, "0") == DONE
    found = collect(study)
    before, waited, ended = checkpoints(study.folder), in_state(found, "pruned"), in_state(found, "complete")
    trained = {path.name for path in (study.folder / "confirm").iterdir()}
    assert waited and ended and trained and set(before) == waited | ended | trained
    code, out, err = run_cli("search", "clean", str(study.folder), "--dry-run")
    assert code == 0 and checkpoints(study.folder) == before, err
    gone = {name: size for name, size in before.items() if name not in waited}
    assert re.fullmatch(
        rf"would remove {len(gone)} checkpoints, [0-9.]+ kB\nkept: {len(waited)} checkpoints?, [0-9.]+ kB, of trials "
        "that wait at a rung and may go on\n",
        out,
    )
    cleaned = clean_study(study.folder)
    assert (cleaned.removed, cleaned.removed_bytes) == (len(gone), sum(gone.values()))
    assert set(checkpoints(study.folder)) == waited
    assert clean_study(study.folder).removed == 0, "nothing is left to do"
    assert promote(study.folder, name="a", zoo=tmp_path / "zoo", progress=False).ref == "a@1.0.0"

    # Those that wait: nothing is lost but the tokens that they were trained with.
    code, out, _ = run_cli("search", "clean", str(study.folder), "--paused")
    assert code == 0 and "trained from the start" in out and not checkpoints(study.folder)
    spec = load_search_spec(study.folder / "search.yaml", ["budget.trials=9"])
    study = create_study(spec, study.folder, out=study.folder)
    assert work(study.folder, "0") == DONE
    found = collect(study)
    assert found.finished and len(found.trained) == 9
    further = [trial for trial in found.completed if trial.run_folder and trial.run_folder.parent.name in waited]
    assert further, "one that had waited went on"
    at_first = found.train.tokens // 4  # where those that waited had been, and 1,536 tokens in all
    for trial in further:
        assert trial.run_folder is not None and (trial.run_folder / WEIGHTS).is_file() and len(trial.rungs) == 2
        assert trial.tokens == trial.repeated_tokens + trial.tokens_each and trial.tokens_each == found.train.tokens
        assert trial.repeated_tokens in (at_first, 2 * at_first), "what was trained before has been paid for"
    assert all(trial.repeated_tokens == 0 for trial in found.completed if trial not in further)


def test_a_trial_that_may_go_on_or_is_tried_again_keeps_its_checkpoint(tmp_path: Path) -> None:
    study = make(tmp_path, pruner={"type": "halving", "reduction": 9}, constraints=[])
    assert not reach(study, claimed(study), 3.0)
    failed = claimed(study)
    failed.outcome.end("failed", "KeyError: 'x'")
    finish(study, failed)
    failed.entry.let_go()
    hopeless = claimed(study)
    hopeless.outcome.trainings = [TrialTraining("run", 1), TrialTraining("seeds/1", 2)]
    hopeless.outcome.end("pruned", "diverged: loss is nan")
    finish(study, hopeless)
    hopeless.entry.let_go()
    lost = claimed(study)  # its weights are gone
    lost.outcome.values = {"loss@64": 1.0}
    lost.outcome.end("complete")
    finish(study, lost)
    lost.entry.let_go()
    running = claimed(study)
    for trial in collect(study).trials:
        assert trial.run_folder is not None
        trial.run_folder.mkdir(exist_ok=True)
        (trial.run_folder / CHECKPOINT).write_bytes(b"weights")
    second = hopeless.folder / "seeds" / "1"
    second.mkdir(parents=True)
    (second / CHECKPOINT).write_bytes(b"of another seed")
    (hopeless.run_folder / SHARDS[0]).mkdir()
    (hopeless.run_folder / SHARDS[0] / "part").write_bytes(b"more weights")
    with pytest.raises(UserError, match=r"--paused: the trials of .* are not over, and one that waits may go on"):
        clean_study(study.folder, paused=True)
    found = clean_study(study.folder)
    gone = sum(map(len, (b"weights", b"more weights", b"of another seed")))
    assert (found.removed, found.removed_bytes, found.kept) == (2, gone, 1)
    assert hopeless.folder.name not in checkpoints(study.folder) and not (hopeless.run_folder / SHARDS[0]).exists()
    assert {failed.folder.name, lost.folder.name, running.folder.name} < set(checkpoints(study.folder))
    assert len(checkpoints(study.folder)) == 4 and len(collect(Study(study.folder, reading=True)).trials) == 5


def test_a_study_that_is_not_there_is_said() -> None:
    code, _, err = run_cli("search", "clean", "nowhere", "--dry-run")
    assert code == 2 and "there is no study 'nowhere'" in err


def test_what_was_trained_anew_is_found_at_a_shared_place(tmp_path: Path) -> None:
    spec = load_search_spec(write_search(tmp_path, baseline=None))
    url, place = f"sqlite:///{tmp_path}/a.db", str(tmp_path / "shared")
    study = create_study(spec, tmp_path, out=tmp_path / "study", storage=url, place=place)
    candidate, runs = Candidate(study.base, study.train), []
    for kind in ("confirm", "ladder"):
        entry, folder = study.training_entry(kind, "0123456789ab"), study.training_folder(kind, "0123456789ab")
        outcome = Outcome.begin(0, Assignment({}, candidate), candidate)
        outcome.end("pruned", "diverged")
        entry.write(outcome)
        runs.append(folder / "run")
        runs[-1].mkdir(parents=True)
        (runs[-1] / CHECKPOINT).write_bytes(b"weights")
    assert all(run.is_relative_to(tmp_path / "shared") for run in runs)
    assert clean_study(study.folder).removed == 2 and not any((run / CHECKPOINT).exists() for run in runs)


def test_run_folders_at_a_url_are_cleaned_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, place = f"sqlite:///{tmp_path}/a.db", f"file://{tmp_path}/there"
    few = {"ratio": {"int": [1, 3]}, "window": {"choice": [4]}, "factor": {"choice": [1, 2]}}
    changes = {"train": {"checkpoint_seconds": 0.0}, "baseline": None, "constraints": [], "variables": few}
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "one"))
    spec = load_search_spec(write_search(tmp_path, pruner=HALF, budget={"trials": 4}, **changes))
    study = create_study(spec, tmp_path, out=tmp_path / "study", storage=url, place=place)
    assert work(study.folder, "0") == DONE

    def files() -> dict[str, list[int]]:
        found = {path.parent.name: path.parent for path in (tmp_path / "there").rglob("*.tar")}
        return {name: [path.stat().st_size for path in sorted(folder.iterdir())] for name, folder in found.items()}

    found, before = collect(study), files()
    waited, ended = in_state(found, "pruned"), in_state(found, "complete")
    assert waited and ended and set(before) == waited | ended and all(len(sizes) == 2 for sizes in before.values())
    would = clean_study(study.folder, dry_run=True)
    assert files() == before and would.removed == len(ended) and would.kept == len(waited)
    assert would.removed_bytes == sum(before[name][0] for name in ended) and would.kept_bytes > 0
    assert clean_study(study.folder) == would
    assert files() == {name: sizes if name in waited else sizes[1:] for name, sizes in before.items()}
    assert clean_study(study.folder).removed == 0, "nothing is left to do"

    gone = clean_study(study.folder, paused=True)
    assert (gone.removed, gone.waiting, gone.removed_bytes, gone.kept) == (len(waited),) * 2 + (would.kept_bytes, 0)
    assert all(len(sizes) == 1 for sizes in files().values())
    assert sum(map(sum, files().values())) < sum(before[name][1] for name in before) - would.kept_bytes / 2
    spec = load_search_spec(study.folder / "search.yaml", ["budget.trials=12"])
    study = create_study(spec, study.folder, out=study.folder)
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "two"))  # another machine, which trains all 6 to the end
    assert main([url]) == DONE
    further = [t for t in collect(study).completed if t.run_folder and t.run_folder.parent.name in waited]
    assert further, "one that had waited went on"
    assert all(trial.tokens == trial.repeated_tokens + 1536 > 1536 for trial in further)

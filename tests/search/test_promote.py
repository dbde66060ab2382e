"""Promotion: a trial of a search becomes a zoo entry that says where it came from."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from search_helpers import write_search
from tiny import run_cli
from typer.testing import CliRunner

import miniwin
from miniwin.search import StudyData, promote, read_study, run_search
from miniwin.search.creation import create_study
from miniwin.search.worker import DONE, work
from miniwin.specs import UserError, load_search_spec


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyData:
    folder = tmp_path_factory.mktemp("promote")
    spec = load_search_spec(write_search(folder, budget={"trials": 2}, constraints=[], seed=1))
    made = create_study(spec, folder, out=folder / "study")
    assert work(made.folder, "0") == DONE
    return read_study(made.folder)


def test_the_best_trial_becomes_an_entry_that_loads(study: StudyData, tmp_path: Path) -> None:
    best = study.best
    assert best is not None and best.run_folder is not None and best.spec is not None
    entry = promote(study.folder, name="winner", zoo=tmp_path, lengths=[160, 320], progress=False, tracking="off")
    assert entry.ref == "winner@1.0.0" and entry.spec.hash == best.spec.hash
    provenance = entry.provenance
    assert (provenance["study"], provenance["trial"], provenance["params"]) == ("small", best.number, best.params)
    assert provenance["trial_values"] == best.values and provenance["retrained"] is False
    assert provenance["seed"] == 0 and len(provenance["data_fingerprint"]) == 64
    assert provenance["search"]["objectives"] == ["minimize loss@64"]
    assert provenance["baseline"]["layout"] == "GGGG"
    assert set(entry.metrics["bits_per_byte"]) == {"160", "320"}
    ids = torch.arange(40).unsqueeze(0)
    with torch.no_grad():
        from_zoo, from_run = miniwin.load(str(entry.folder))(ids), miniwin.load(str(best.run_folder))(ids)
    assert torch.equal(from_zoo, from_run)


def test_a_trial_can_be_trained_longer_first(study: StudyData, tmp_path: Path) -> None:
    number = study.completed[-1].number
    options = ["promote", str(study.folder), "--name", "longer", "--trial", str(number), "--tokens", "3e3"]
    options += ["--set-train", "optimizer.lr=1e-3", "--lengths", "160", "--zoo", str(tmp_path), "--quiet"]
    for option, wrong in (("--lengths", "160,long"), ("--tokens", "many")):
        code, _, err = run_cli("search", *options, option, wrong)
        assert code == 2 and f"{option}: expected a number of tokens such as 2048, 16k or 1M, got" in err
    from miniwin.commands.search import app

    result = CliRunner().invoke(app, [*options, "--tracking", "off"])
    assert result.exit_code == 0, result.output
    assert "added longer@1.0.0: " in result.output and "miniwin generate longer@1.0.0" in result.output
    (run,) = (study.folder / "promoted").iterdir()
    assert miniwin.load_spec(run / "train.yaml").tokens == 3000
    assert miniwin.load_spec(run / "train.yaml").optimizer.lr == 1e-3
    assert miniwin.load_spec(run / "train.yaml").seq_len == 32  # the rest is as in the search
    # The same command finds the training done; the entry would be a new version.
    again = CliRunner().invoke(app, [*options, "--tracking", "off"])
    assert again.exit_code == 0 and "added longer@1.0.1" in again.output, again.output


def test_what_cannot_be_promoted(study: StudyData, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no trial 99; its trials are 0 to"):
        promote(study.folder, name="x", trial=99, zoo=tmp_path)
    with pytest.raises(UserError, match=r"trial 'bset': expected the number of a trial, or best"):
        promote(study.folder, name="x", trial="bset", zoo=tmp_path)
    with pytest.raises(UserError, match="there is no 'optimzer'"):
        promote(study.folder, name="x", set_train=["optimzer.lr=1"], zoo=tmp_path)
    with pytest.raises(UserError, match=r"^--set-train schedule.warmup=2: schedule.warmup: got 2; expected at most 1$"):
        promote(study.folder, name="x", set_train=["schedule.warmup=2"], zoo=tmp_path)
    with pytest.raises(UserError, match=r"diverged.*; try other --set-train"):
        changes = ["optimizer.lr=1e9", "schedule.warmup=0.0", "clip_grad_norm=null", "stop.patience=1"]
        promote(study.folder, name="x", set_train=changes, zoo=tmp_path, progress=False, tracking="off")
    assert not list(tmp_path.glob("x/*"))


def test_bits_and_nats_agree(study: StudyData) -> None:
    assert study.baseline is not None
    for length, loss in study.baseline.losses.items():
        assert study.baseline.bits_per_byte[length] == pytest.approx(loss / math.log(2))


def test_promotion_measures_on_the_study_s_own_data(study: StudyData, tmp_path: Path) -> None:
    text = study.folder.parent / "text.txt"
    before = text.read_text()
    text.write_text(before.replace("def", "let"))
    try:
        # Without a word about --data, which promote has not.
        with pytest.raises(UserError, match=r"was trained on other data than what is there now: .*put the data back$"):
            promote(study.folder, name="other", zoo=tmp_path, lengths=[64], progress=False, tracking="off")
        # Nor does the study go on with trials on it.
        with pytest.raises(UserError, match=r"its trials were trained on other data than what is there now .*--out"):
            work(study.folder, "0")
        search, options = text.parent / "search.yaml", {"tracking": "off", "progress": False, "workers": 1}
        with pytest.raises(UserError, match=r"its trials were trained on other data than what is there now"):
            run_search(search, out=study.folder, overrides=["budget.trials=3"], **options)  # type: ignore[arg-type]
    finally:
        text.write_text(before)

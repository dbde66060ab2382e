"""Every file of a study folder gone, cut, of another kind or unreadable, one at a time, for every command: an answer
that tells of it or one message that names it, never a traceback, and nothing else of the study is harmed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from search_helpers import write_search
from typer.testing import CliRunner, Result

from miniwin.cli import app
from miniwin.evaluation.result import Metrics
from miniwin.search import read_study
from miniwin.search.claims import Claim, take_work
from miniwin.search.creation import create_study
from miniwin.search.launchers.crew import Crew
from miniwin.search.study import Study
from miniwin.search.worker import DONE, work
from miniwin.specs import UserError, load_search_spec


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trials and a baseline, trained; and what a worker leaves behind when it is killed."""
    folder = tmp_path_factory.mktemp("damage")
    spec = load_search_spec(write_search(folder, budget={"trials": 2}, constraints=[], eval_tokens=64))
    study = create_study(spec, folder, out=folder / "study")
    assert work(study.folder, "0") == DONE
    (study.folder / "leases" / "0.json").write_text("{}")
    (study.folder / "logs" / "worker-0.log").write_text("trial 0\n")
    return study.folder


def gone(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other(path: Path) -> None:
    path.write_text('[{"name": 1}]\n')


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def unreadable(path: Path) -> None:
    """For whoever runs the test, root too."""
    path.unlink()
    path.symlink_to(path.name)


DAMAGE: tuple[Callable[[Path], None], ...] = (gone, cut, other, a_folder, unreadable)
ASKED = ("study.json", "search.yaml", "model.yaml", "train.yaml", "baseline.yaml", "journal.log")  # say what was asked


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers run in this process, nothing is measured, and nobody pulls the plug."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "zoo"))
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Crew, "run", lambda crew: work(crew.study.folder, "0"))
    metrics = Metrics("x", 1, {}, 1, {32: 1.0}, {32: 1.5}, {}, {}, {32: 1})
    monkeypatch.setattr("miniwin.evaluation.evaluate", lambda *_, **__: metrics)


@pytest.fixture
def untrained(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, and what is left to be trained has been at once."""

    def run_claim(study: Study, claim: Claim, *_: object) -> None:
        claim.outcome.values = {objective.name: 2.0 for objective in study.spec.parsed_objectives}
        claim.outcome.end("complete")

    monkeypatch.setattr("miniwin.search.measure.run_claim", run_claim)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    said = (UserError, OSError, SystemExit)  # of which the console script makes one message
    assert result.exception is None or isinstance(result.exception, said), result.exception
    return result


def damages(study: Path) -> list[tuple[str, ...]]:
    """What to damage at once: each file that commands read, of the best trial for all; and together what they do not
    read, or can do without."""
    data = read_study(study)
    assert data.best is not None and data.best.run_folder is not None
    names = sorted(str(path.relative_to(study)) for path in study.rglob("*") if path.is_file())
    best = str(data.best.run_folder.parent.relative_to(study))
    unread = tuple(name for name in names if name.startswith(("baseline/run", "leases", "logs", "trials", ".")))
    alone = [name for name in names if name not in unread or name.startswith(best)]
    return [*((name,) for name in alone), tuple(name for name in unread if not name.startswith(best))]


def damaged(made: Path, names: tuple[str, ...], damage: Callable[[Path], None], folder: Path) -> Path:
    study = shutil.copytree(made, folder / names[0].replace("/", "_"))
    for name in names:
        damage(study / name)
    return study


@pytest.mark.parametrize("damage", DAMAGE)
def test_looking_at_a_damaged_study(made: Path, damage: Callable[[Path], None], tmp_path: Path) -> None:
    for names in damages(made):
        study = damaged(made, names, damage, tmp_path)
        before, name = snapshot(study), names[0]
        for command in ("status", "report"):
            result = run("search", command, str(study))
            if result.exit_code:
                assert name in ASKED, (name, command, result.exception)
                assert name in str(result.exception), (name, command, result.exception)
            elif command == "status" and name.endswith("trial.json") and not (damage is gone and "base" in name):
                assert f"note: {'baseline' if 'baseline' in name else 'trial'}" in result.stdout, result.stdout
        after = snapshot(study)
        after.pop("report.html", None)
        assert after == before, f"{name}: looking changes nothing"


@pytest.mark.parametrize("damage", DAMAGE)
def test_going_on_with_a_damaged_study(
    made: Path, damage: Callable[[Path], None], environment: None, tmp_path: Path
) -> None:
    search = str(made.parent / "search.yaml")
    locks_and_log = [(".study.lock",), (".journal.log.lock",), ("logs/worker-0.log",)]
    for names in [*damages(made)[:-1], *locks_and_log]:
        study = damaged(made, names, damage, tmp_path)
        result = run("search", "run", search, "--out", str(study), "--tracking", "off", "--quiet")
        if result.exit_code:
            assert names[0] in (*ASKED, "baseline/trial.json") or names in locks_and_log, (names, result.exception)
            said = str(result.exception)
            assert Path(names[0]).name in said or (names[0] == "study.json" and "is not a study folder" in said), said
        else:
            assert "2 of 2 trials trained" in result.stdout, (names, result.stdout)


@pytest.mark.parametrize("damage", DAMAGE)
def test_promoting_from_a_damaged_study(
    made: Path, damage: Callable[[Path], None], environment: None, tmp_path: Path
) -> None:
    for names in damages(made):
        study = damaged(made, names, damage, tmp_path)
        result = run("search", "promote", str(study), "--name", "x", "--lengths", "32", "--quiet")
        if result.exit_code:
            assert names[0] in ASKED or (len(names) == 1 and names[0].startswith("trials")), (names, result.exception)


def test_a_trial_whose_folder_is_gone_is_still_known(made: Path, tmp_path: Path, untrained: None) -> None:
    study = shutil.copytree(made, tmp_path / "study")
    whole = read_study(study)
    assert whole.best is not None and whole.best.run_folder is not None
    shutil.rmtree(whole.best.run_folder.parent)
    data = read_study(study)
    lost = data.trial(whole.best.number)
    assert data.best == lost and (lost.values, lost.params) == (whole.best.values, whole.best.params)
    assert lost.layout == whole.best.layout and lost.spec is None and data.finished
    assert lost.problem is not None and lost.problem.endswith("trial.json is gone")
    status = run("search", "status", str(study)).stdout
    assert f"best: trial {lost.number}, loss@64" in status and f"note: trial {lost.number}: {lost.problem}" in status
    assert run("search", "report", str(study)).exit_code == 0
    assert lost.problem in (study / "report.html").read_text()
    refused = run("search", "promote", str(study), "--name", "x").exception
    assert f"trial {lost.number} cannot be promoted: {lost.problem}; put it back" in str(refused)
    others = [trial.number for trial in data.completed if trial != lost]
    kept = run("search", "promote", str(study), "--name", "x", "--trial", str(others[0]), "--lengths", "32", "--quiet")
    assert kept.exit_code == 0, kept.exception
    search = str(made.parent / "search.yaml")
    more = ("--set", "budget.trials=3", "--quiet", "--tracking", "off")
    assert "3 of 3 trials trained" in run("search", "run", search, "--out", str(study), *more).stdout


@pytest.mark.parametrize("name", ["id", "storage", "train_base", "tracking"])
def test_what_study_json_lacks_is_named(made: Path, name: str, tmp_path: Path, environment: None) -> None:
    study = shutil.copytree(made, tmp_path / "study")
    about = json.loads((study / "study.json").read_text())
    for other in ({**about, name: 5}, {key: value for key, value in about.items() if key != name}):
        (study / "study.json").write_text(json.dumps(other))
        search = ("run", str(made.parent / "search.yaml"), "--out", str(study), "--tracking", "off")
        for command in (("status", str(study)), ("report", str(study)), search):
            assert f"study.json: {name} is not what" in str(run("search", *command).exception)


def test_a_lost_journal_is_not_begun_anew(made: Path, tmp_path: Path, environment: None) -> None:
    study = shutil.copytree(made, tmp_path / "study")
    for text in (None, b"", b'{"op_code":0,'):
        (study / "journal.log").unlink() if text is None else (study / "journal.log").write_bytes(text)
        search = ("run", str(made.parent / "search.yaml"), "--out", str(study), "--tracking", "off")
        for command in (("status", str(study)), ("report", str(study)), ("promote", str(study), "--name", "x"), search):
            assert "journal.log is gone or has no trials in it" in str(run("search", *command).exception)
        assert (study / "journal.log").exists() == (text is not None)
        with pytest.raises(UserError, match=r"journal\.log is gone"):
            work(study, "0")


@pytest.mark.parametrize("journal", [None, b"", b'{"op_code":0,'])
def test_a_study_that_was_killed_as_it_was_made_has_no_trials_yet(
    journal: bytes | None, tmp_path: Path, untrained: None
) -> None:
    spec = write_search(tmp_path, budget={"trials": 1}, baseline=None)
    study = create_study(load_search_spec(spec), tmp_path, out=tmp_path / "study").folder
    (study / "journal.log").unlink()
    if journal is not None:
        (study / "journal.log").write_bytes(journal)
    for name in ("trials", "leases", "logs"):
        (study / name).rmdir()
    before = snapshot(study)
    assert "0 of 1 trials trained" in run("search", "status", str(study)).stdout
    assert snapshot(study) == before
    assert run("search", "report", str(study)).exit_code == 0
    assert "has no complete trial yet" in str(run("search", "promote", str(study), "--name", "x").exception)
    result = run("search", "run", str(spec), "--out", str(study), "--tracking", "off", "--quiet")
    assert "1 of 1 trials trained" in result.stdout, result.exception


def test_a_damaged_trial_is_taken_up_again(tmp_path: Path) -> None:
    """An orphan whose trial.json cannot be read, as after a power cut: its worker goes on, under its number."""
    spec = load_search_spec(write_search(tmp_path, baseline=None))
    study = create_study(spec, tmp_path, out=tmp_path / "study")
    claim = take_work(study, "0")
    assert isinstance(claim, Claim)
    study.lease_path(claim.number).write_text("not a lease")
    (claim.folder / "trial.json").write_text('{"format": 1, "number"')
    (running,) = read_study(study.folder).trials
    assert running.state == "running" and "not JSON" in str(running.problem)
    again = take_work(study, "1")
    assert isinstance(again, Claim) and again.number == claim.number
    (running,) = read_study(study.folder).trials
    assert running.alive and running.problem is None

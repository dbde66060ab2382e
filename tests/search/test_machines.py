"""A study in a storage that several machines join: what each needs, who holds what, and what a machine cannot do."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from halving_helpers import claimed
from search_helpers import change, make, tried, write_search

from miniwin.search import leases, read_study, stop_search
from miniwin.search.claims import Claim, finish, take_work
from miniwin.search.creation import create_study
from miniwin.search.entries import LeaseLost
from miniwin.search.records import collect
from miniwin.search.stopping import at_work, last_request
from miniwin.search.study import Study, find_study
from miniwin.search.worker import MISTAKE, UNWRITABLE, main
from miniwin.specs import UserError, load_search_spec

ELSEWHERE = "another/1/2"  # a host


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Study]:
    """Joins the study `small` in a.db, as a machine that sees nothing else."""

    def join(name: str) -> Study:
        monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / f"cache-{name}"))
        return Study(find_study(f"sqlite:///{tmp_path}/a.db"))

    return join


def begun(folder: Path, **changes: object) -> Study:
    return make(folder, f"sqlite:///{folder}/a.db", **changes)


def end(study: Study, claim: Claim, loss: float = 1.0) -> None:
    claim.outcome.values = {"loss@64": loss}
    claim.outcome.end("complete")
    finish(study, claim)


def test_machines_share_a_study_by_its_url_alone(tmp_path: Path, machine: Callable[[str], Study]) -> None:
    one = begun(tmp_path)
    two = machine("two")
    assert two.folder.is_relative_to(tmp_path / "cache-two") and two.spec == one.spec and two.train == one.train
    first, second = claimed(one), claimed(two)
    assert first.number != second.number
    assert list(at_work(two)) == list(at_work(one)) == [f"trial {first.number}", f"trial {second.number}"]
    assert [trial.number for trial in collect(two).trials if trial.alive] == [first.number, second.number]
    end(two, second)
    end(one, first, 0.5)
    assert at_work(one) == {} == at_work(two)
    data = collect(two)
    assert data == replace(collect(one), folder=two.folder) and data.best is not None
    assert data.best.number == first.number and data.best.spec == first.candidate.model
    assert not list(tmp_path.rglob("trial.json")) and not list((one.folder / "leases").iterdir())


def test_a_study_folder_that_is_the_place_may_move(tmp_path: Path) -> None:
    study = tried(begun(tmp_path))
    study.folder.rename(tmp_path / "moved")
    moved = Study(tmp_path / "moved")
    moved.check_place()
    assert moved.place.folder == moved.folder and len(collect(tried(moved)).completed) == 2


def test_a_larger_budget_is_known_everywhere(tmp_path: Path, machine: Callable[[str], Study]) -> None:
    one = begun(tmp_path, budget={"trials": 2}, constraints=[])
    two = tried(machine("two"), 2)
    assert take_work(two, "0").over  # type: ignore[union-attr]
    three = machine("three")
    spec = load_search_spec(three.folder / "search.yaml", ["budget.trials=3", "variables.window.choice=[4, 8, 16, 32]"])
    assert create_study(spec, three.folder, out=three.folder).spec.budget.trials == 3
    less = load_search_spec(three.folder / "search.yaml", ["budget.trials=2"])
    with pytest.raises(UserError, match=r"budget.trials: 3 there, 2 now"):  # though this machine has not heard of it
        create_study(less, one.folder, out=one.folder)
    assert isinstance(take_work(two, "0"), Claim) and two.spec.budget.trials == 3
    assert collect(one).spec == two.spec and one.about["choices"] == {"window": 3}
    assert "trials: 3" in (one.folder / "search.yaml").read_text()


def test_a_trial_of_a_dead_machine_goes_on_elsewhere_and_one_of_a_living_one_does_not(
    tmp_path: Path, machine: Callable[[str], Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = begun(tmp_path, budget={"trials": 1})
    two = machine("two")
    held = claimed(one)
    now = leases.time.time()
    monkeypatch.setattr(leases, "this_host", lambda: ELSEWHERE)
    monkeypatch.setattr(leases.time, "time", lambda: now + leases.STALE_SECONDS - 1)
    assert not isinstance(take_work(two, "1"), Claim), "its heartbeat is two minutes old, not more"
    monkeypatch.setattr(leases.time, "time", lambda: now + leases.STALE_SECONDS + 1)
    taken = claimed(two)
    assert taken.number == held.number and taken.outcome.attempts == 2
    for late in (held.write, lambda: end(one, held)):  # it was only asleep
        with pytest.raises(LeaseLost):
            late()
    end(two, taken, 0.25)
    with pytest.raises(LeaseLost):
        end(one, held)
    assert [trial.values for trial in collect(one).trained] == [{"loss@64": 0.25}]


def test_a_worker_that_was_taken_for_dead_stops(
    tmp_path: Path, machine: Callable[[str], Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.01)
    one = begun(tmp_path)
    held, told = claimed(one), []
    with leases.Holding(held.entry, held.lease, at_loss=lambda: told.append(1)) as holding:
        other = replace(held.lease, host=ELSEWHERE)
        while not holding.lost:  # a renewal at this very moment writes over it
            held.entry.hold(other)
            leases.time.sleep(0.02)
    assert told == [1] and held.entry.lease() == other


def test_stop_and_status_need_only_the_storage(tmp_path: Path, machine: Callable[[str], Study]) -> None:
    one = begun(tmp_path)
    tried(one)
    held = claimed(one)
    two, said = machine("two"), []
    known = last_request(one)
    holders = stop_search(f"sqlite:///{tmp_path}/a.db#small", wait=False, say=said.append)
    assert list(holders) == [f"trial {held.number}"] and last_request(one) != known and len(said) == 1
    one.folder.rename(tmp_path / "gone")
    assert len(read_study(f"sqlite:///{tmp_path}/a.db").completed) == 1
    assert main([str(two.folder)]) == MISTAKE, "the run folders are gone"


def test_which_study_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    url = f"sqlite:///{tmp_path}/a.db"
    with pytest.raises(UserError, match=r"a.db: there is no such file; expected the storage of a study"):
        find_study(url)
    begun(tmp_path)
    make(tmp_path, url, out="other", name="tiny")
    with pytest.raises(UserError, match=r"a.db: which study\? Write its name behind a #, such as .*a.db#small; its"):
        find_study(url)
    with pytest.raises(UserError, match=r"a.db has no study 'big': its studies are small, tiny"):
        find_study(f"{url}#big")
    assert Study(find_study(f"{url}#tiny")).spec.name == "tiny"
    with pytest.raises(UserError, match="already has a study named 'tiny'"):
        make(tmp_path, url, out="third", name="tiny")


def test_the_place_has_to_be_there_and_to_be_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    url, share = f"sqlite:///{tmp_path}/a.db", tmp_path / "share"
    spec = load_search_spec(write_search(tmp_path, baseline=None))
    study = create_study(spec, tmp_path, out=tmp_path / "study", storage=url, place=str(share))
    kept = study.place.folder
    assert kept.parent == share and study.trial_folder("0" * 64).is_relative_to(kept)
    with pytest.raises(UserError, match=r"--place /tmp: the run folders of the study 'small' are not there"):
        create_study(spec, tmp_path, out=tmp_path / "study", place="/tmp")

    share.rename(tmp_path / "mounted")  # another machine sees it there
    share.mkdir()  # and here nothing is mounted
    assert main([url]) == MISTAKE
    assert "which is not there as seen from this machine: give the place with --place" in capsys.readouterr().err
    assert main([url, "--place", str(share)]) == MISTAKE
    assert "there is no place.json of it" in capsys.readouterr().err
    assert not list(share.iterdir())
    for named in (tmp_path / "mounted", tmp_path / "mounted" / kept.name):
        folder = find_study(url, str(named))
        assert Study(folder).place.folder == tmp_path / "mounted" / kept.name
    assert Study(find_study(url)).place.folder.is_dir(), "it is remembered"
    with pytest.raises(UserError, match="--place x: with a journal file, run folders are in the study folder"):
        create_study(spec, tmp_path, out=tmp_path / "journal", place="x")
    assert not (tmp_path / "journal").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder where nobody can write")
def test_a_place_that_cannot_be_written_to_harms_nothing(
    tmp_path: Path, machine: Callable[[str], Study], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = begun(tmp_path)

    def full(**where: object) -> None:
        raise OSError(28, os.strerror(28))

    before = study.optuna.get_trials()
    with monkeypatch.context() as patch:
        patch.setattr("miniwin.search.places.TemporaryFile", full)
        assert main([str(study.folder)]) == UNWRITABLE
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "No space left on device" in said and str(study.folder) in said
    assert study.optuna.get_trials() == before


def test_a_study_of_an_older_miniwin_goes_on_with_its_files(tmp_path: Path, machine: Callable[[str], Study]) -> None:
    study = begun(tmp_path)
    for name in ("miniwin_files", "miniwin_place"):
        study.optuna.set_user_attr(name, None)
    change(study.folder, format=1)
    old = tried(Study(study.folder))
    assert len(list(tmp_path.rglob("trial.json"))) == 1 and len(collect(old).completed) == 1
    held = claimed(old)
    assert old.lease_path(held.number).is_file() and list(at_work(old)) == [f"trial {held.number}"]
    with pytest.raises(UserError, match="an older miniwin made it, which kept specs in the study folder alone"):
        machine("two")

"""Where a study is kept: paths that stay, passwords that are not kept, databases that only are read, or go away."""

from __future__ import annotations

import pickle
import shutil
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal._base import BaseJournalSnapshot
from search_helpers import change, make, tried, write_search

from miniwin.search import creation, database, read_study, storage
from miniwin.search.claims import take_work
from miniwin.search.creation import create_study
from miniwin.search.records import collect
from miniwin.search.study import Study
from miniwin.search.worker import MISTAKE, main
from miniwin.specs import UserError, load_search_spec


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study in an SQLite file beside it, which has a trial. Making the tables takes half a second."""
    folder = tmp_path_factory.mktemp("made")
    study = tried(make(folder, f"sqlite:///{folder}/a.db"))
    study.storage._backend.engine.dispose()
    return folder


@pytest.fixture
def kept(made: Path, tmp_path: Path) -> Study:
    """A copy of it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    change(tmp_path / "study", storage=f"sqlite:///{tmp_path}/a.db")
    return Study(tmp_path / "study")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another folder to be in than the one the study was made from."""
    (tmp_path / "start").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "start")
    return tmp_path / "elsewhere"


# -- one study in one place


def test_a_relative_path_stays_the_file_that_it_was(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = elsewhere.with_name("start")
    study = tried(make(start, "sqlite:///a.db"))
    assert study.about["storage"] == f"sqlite:///{start}/a.db"
    monkeypatch.chdir(elsewhere)
    assert len(read_study(study.folder).completed) == 1
    assert len(collect(tried(make(start))).completed) == 2  # goes on in the same one
    assert len(collect(tried(make(start, "sqlite:///../start/a.db"))).completed) == 3
    with pytest.raises(UserError, match=r"keeps its study in sqlite:///.*/start/a.db, not in sqlite:///a.db: leave"):
        make(start, "sqlite:///a.db")
    assert not list(elsewhere.iterdir())


def test_a_study_that_kept_a_relative_path_is_found_again(
    made: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = elsewhere.with_name("start")
    folder = start / "runs/searches/small"
    shutil.copytree(made / "study", folder)
    shutil.copy(made / "a.db", start)
    change(folder, storage="sqlite:///a.db")
    assert len(read_study(folder).completed) == 1
    monkeypatch.chdir(elsewhere)  # the search was started above its study folder
    before = files(folder)
    assert len(read_study(folder).completed) == 1 and files(folder) == before
    make(start, out="runs/searches/small")
    assert Study(folder).about["storage"] == f"sqlite:///{start}/a.db"

    change(folder, storage="sqlite:///a.db")
    (start / "a.db").unlink()
    before = files(folder)
    lost = (
        r"keeps its trials in sqlite:///a.db, a path from where the search was started, but there is no such file: put"
    )
    for use in (lambda: read_study(folder), lambda: make(start, out="runs/searches/small")):
        with pytest.raises(UserError, match=lost):
            use()
    assert files(folder) == before and not list(elsewhere.iterdir()) and not list(start.glob("*.db"))


def test_a_study_folder_may_move_with_the_file_in_it(kept: Study, tmp_path: Path) -> None:
    change(kept.folder, storage=f"sqlite:///{kept.folder}/a.db")
    shutil.move(tmp_path / "a.db", kept.folder)
    shutil.move(kept.folder, tmp_path / "two")
    assert len(read_study(tmp_path / "two").completed) == 1
    assert not kept.folder.exists()


@pytest.mark.parametrize("other", ["nothing", "no tables", "another study", "no file", "no database"])
def test_a_storage_that_lacks_the_study_is_refused_and_stays_as_it_is(kept: Study, tmp_path: Path, other: str) -> None:
    path = tmp_path / "a.db"
    if other == "another study":
        change(kept.folder, id="another")
    elif other == "nothing":
        optuna.delete_study(study_name="small", storage=f"sqlite:///{path}")
    else:
        path.unlink()
    if other == "no tables":
        sqlite3.connect(path).execute("create table mine (a)").connection.close()
    elif other == "no database":
        path.write_text("shopping list")
    before = files(tmp_path)
    for use in (lambda: read_study(kept.folder), lambda: make(tmp_path), lambda: take_work(Study(kept.folder), "0")):
        with pytest.raises(UserError) as caught:
            use()
        assert f"{kept.folder} keeps its trials in sqlite:///{path}" in str(caught.value)
        assert "\n" not in str(caught.value)
    changed = {name for name, text in files(tmp_path).items() if before.get(name) != text}
    assert all(name.endswith(".lock") for name in changed), changed


def test_storages_that_only_one_process_would_see_are_refused(tmp_path: Path) -> None:
    for url in ("sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"):
        with pytest.raises(UserError, match="a study needs a file that all workers see"):
            make(tmp_path, url)
    with pytest.raises(UserError, match=rf"there is no folder {tmp_path}/none; make it"):
        make(tmp_path, f"sqlite:///{tmp_path}/none/a.db")
    assert not (tmp_path / "study").exists()


def test_braces_and_percent_signs_are_part_of_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "50%25 {x} é"
    folder.mkdir()
    study = tried(make(folder, f"sqlite:///{folder}/a.db".replace("%", "%25")))
    assert len(read_study(study.folder).completed) == 1 and (folder / "a.db").exists()


# -- making one


def test_a_study_does_not_write_over_the_search_that_it_is_of(tmp_path: Path) -> None:
    path = write_search(tmp_path)
    before = files(tmp_path)
    with pytest.raises(UserError, match="holds the search itself, and a study would write over it: choose another"):
        create_study(load_search_spec(path), tmp_path, out=tmp_path)
    assert files(tmp_path) == before
    (tmp_path / "empty").mkdir()
    shipped = load_search_spec("demo").model_copy(update={"train": "demo", "base": "miniwin-tiny", "baseline": None})
    assert create_study(shipped, tmp_path / "empty", out=tmp_path / "empty").folder == tmp_path / "empty"


def test_a_first_storage_that_fails_binds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("postgresql+nothing://me:secret@x/db", f"sqlite:///{tmp_path}", "nonsense"):
        with pytest.raises(
            UserError, match=r"cannot be opened: .*; expected an Optuna storage URL such as sqlite:////"
        ):
            make(tmp_path, url)
        assert not (tmp_path / "study").exists()

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "psycopg", None)
        with pytest.raises(UserError, match=r"cannot be opened: .*psycopg.* \(pip install 'miniwin\[postgres\]'\)"):
            make(tmp_path, "postgresql://me@x/db")

    def broken(*arguments: Any, **named: Any) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(optuna, "create_study", broken)
        with pytest.raises(OSError, match="no space left"):
            make(tmp_path, f"sqlite:///{tmp_path}/a.db")
    assert not (tmp_path / "study" / "study.json").exists()
    assert tried(make(tmp_path, f"sqlite:///{tmp_path}/b.db")).about["storage"].endswith("b.db")


def test_a_study_whose_making_was_cut_off_is_made(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    study = make(tmp_path, url)
    change(study.folder, ready=False)  # killed between study.json and the storage, and after
    before = files(study.folder)
    assert not read_study(study.folder).trials and files(study.folder) == before
    again = tried(make(tmp_path, url))
    assert "ready" not in again.about and again.about["id"] == study.about["id"]
    change(study.folder, ready=False)
    with pytest.raises(UserError, match="already has a study named 'small', which belongs to another study folder"):
        make(tmp_path, url, out="second")
    assert not (tmp_path / "second").exists()
    assert make(tmp_path, None).about["storage"] is None  # what never was made is bound to nothing


def test_a_study_that_nobody_claims_is_taken_while_it_has_no_trials(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "OWNER_TRIES", 1)
    url = f"sqlite:///{tmp_path}/a.db"
    shutil.copy(made / "a.db", tmp_path)
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("delete from study_user_attributes")
    connection.close()
    with pytest.raises(UserError, match="already has a study named 'small'"):
        make(tmp_path, url)
    optuna.delete_study(study_name="small", storage=url)
    optuna.create_study(study_name="small", storage=url)
    assert tried(make(tmp_path, url))


def test_tables_that_another_process_makes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = optuna.storages._rdb.models.BaseModel.metadata
    true, calls = metadata.create_all, []

    def late(engine: Any) -> None:
        calls.append(engine)
        true(engine)
        if len(calls) == 1:
            true(engine, checkfirst=False)  # as if they had not been there when we looked

    monkeypatch.setattr(metadata, "create_all", late)
    assert tried(make(tmp_path, f"sqlite:///{tmp_path}/a.db"))
    assert len(calls) == 2


def test_two_first_starts_at_once(tmp_path: Path) -> None:
    url, ends = f"sqlite:///{tmp_path}/a.db", []
    spec = load_search_spec(write_search(tmp_path, baseline=None))

    def start(name: str) -> None:
        try:
            ends.append(create_study(spec, tmp_path, out=tmp_path / name, storage=url).folder.name)
        except Exception as error:
            ends.append(error)

    starts = [threading.Thread(target=start, args=(name,)) for name in ("one", "two", "three")]
    for thread in starts:
        thread.start()
    for thread in starts:
        thread.join()
    made = [end for end in ends if isinstance(end, str)]
    refused = [str(end) for end in ends if isinstance(end, UserError)]
    assert len(made) == 1 and len(refused) == 2, ends
    assert all("already has a study named 'small', which belongs to another study folder" in text for text in refused)
    assert tried(Study(tmp_path / made[0])) and not (tmp_path / "none").exists()


# -- only reading


def test_looking_at_a_study_writes_nothing(kept: Study, tmp_path: Path) -> None:
    journal = tried(make(tmp_path, out="journal"))
    before = files(tmp_path)
    for study in (kept, journal):
        assert len(read_study(study.folder).completed) == 1
    looking = Study(kept.folder, reading=True)
    with pytest.raises(optuna.exceptions.StorageInternalError) as caught:
        looking.optuna.set_user_attr("mine", 1)
    assert "readonly database" in str(caught.value.__cause__)
    assert files(tmp_path) == before


def test_looking_at_a_study_by_a_uri_makes_no_file(kept: Study, tmp_path: Path) -> None:
    folder = shutil.copytree(kept.folder, tmp_path / "copy")
    change(folder, storage=f"sqlite:///file:{tmp_path}/a.db?uri=true")
    assert len(read_study(folder).completed) == 1
    for mode in ("", "&mode=rwc"):
        change(folder, storage=f"sqlite:///file:{tmp_path}/none.db?uri=true{mode}")
        with pytest.raises(UserError, match="which cannot be read"):
            read_study(folder)
        assert not (tmp_path / "none.db").exists()


def test_looking_at_a_study_whose_file_has_a_write_ahead_log(kept: Study, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path)
    connection.execute("pragma journal_mode=wal")
    connection.close()
    assert path.read_bytes()[18:20] == b"\x02\x02" and not path.with_name("a.db-wal").exists()
    before = files(tmp_path)
    assert len(read_study(kept.folder).completed) == 1
    assert files(tmp_path) == before


def test_looking_at_a_study_whose_writer_was_killed_in_the_middle(kept: Study, tmp_path: Path) -> None:
    path, live = tmp_path / "a.db", tmp_path / "live.db"
    path.rename(live)
    with closing(sqlite3.connect(live)) as writer:
        writer.execute("pragma cache_size = 1")
        writer.execute("create table long (text)")
        for number in range(200):
            writer.execute("insert into long values (?)", ("x" * 3000 + str(number),))
        writer.commit()
        writer.execute("update trials set state = 'FAIL'")
        writer.execute("update long set text = text || 'y'")
        for end in ("", "-journal"):
            shutil.copy(f"{live}{end}", f"{path}{end}")
    before = files(tmp_path)
    assert path.with_name("a.db-journal").stat().st_size
    assert len(read_study(kept.folder).completed) == 1
    assert files(tmp_path) == before
    assert len(collect(tried(make(tmp_path))).completed) == 2  # going on mends it
    assert not path.with_name("a.db-journal").exists()


def test_looking_at_a_study_with_a_log_that_nobody_is_writing(kept: Study, tmp_path: Path) -> None:
    path, live = tmp_path / "a.db", tmp_path / "live.db"
    path.rename(live)
    with closing(sqlite3.connect(live)) as writer:
        writer.execute("pragma journal_mode = wal")
        writer.execute("create table mine (a)")
        for end in ("", "-wal"):
            shutil.copy(f"{live}{end}", f"{path}{end}")
    before = files(tmp_path)
    assert len(read_study(kept.folder).completed) == 1
    assert files(tmp_path) == before


def test_looking_at_a_study_of_another_schema_upgrades_nothing(kept: Study, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("update alembic_version set version_num = 'v2.6.0.a'")
    connection.close()
    before = files(tmp_path)
    with pytest.raises(UserError, match=r"cannot be read: .*optuna storage upgrade"):
        read_study(kept.folder)
    assert files(tmp_path) == before


# -- a database that is away


class Gone(Exception):
    """What a driver raises."""


def away(study: Study, times: int) -> Callable[[], int]:
    """The database of a study does not answer so many times. Returns how often it has been asked."""
    from sqlalchemy import event, exc

    asked = 0

    def ask(*arguments: Any) -> None:
        nonlocal asked
        asked += 1
        if asked <= times:
            raise exc.OperationalError("select", {}, Gone("server closed the connection\nunexpectedly"))

    event.listen(study.storage._backend.engine, "before_cursor_execute", ask)
    return lambda: asked


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The seconds that were slept, instead of sleeping."""
    slept: list[float] = []
    monkeypatch.setattr(database.time, "sleep", slept.append)
    monkeypatch.setattr(database.time, "monotonic", lambda: sum(slept))
    yield slept


def test_a_database_that_is_restarted_is_waited_for(
    kept: Study, tmp_path: Path, waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    away(kept, 5)
    tried(kept, 2)
    assert len(waits) == 5 and waits[4] > waits[0]
    assert len(collect(kept).completed) == 3
    (record,) = caplog.records
    assert record.getMessage() == (
        f"the storage sqlite:///{tmp_path}/a.db does not answer, waiting: server closed the connection"
    )


def test_a_database_that_stays_away_is_one_message(kept: Study, waits: list[float]) -> None:
    away(kept, 10**6)
    with pytest.raises(database.StorageLost, match=r"does not answer: server closed the connection; nothing is lost"):
        take_work(kept, "0")
    assert database.PATIENCE_SECONDS < sum(waits) < 2 * database.PATIENCE_SECONDS


def test_other_failures_of_a_database_are_not_waited_for(kept: Study, tmp_path: Path, waits: list[float]) -> None:
    assert kept.optuna
    kept.storage._backend.engine.dispose()
    (tmp_path / "a.db").write_bytes(b"x" * 9000)
    with pytest.raises(optuna.exceptions.StorageInternalError):
        take_work(kept, "0")
    assert not waits


def test_a_database_that_stays_away_is_no_fault_of_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make(tmp_path, budget={"trials": 1})

    def lost(*arguments: Any) -> None:
        raise database.StorageLost("the storage does not answer")

    with monkeypatch.context() as patch:
        patch.setattr("miniwin.search.measure.run_claim", lost)
        assert main([str(study.folder)]) == MISTAKE
    assert capsys.readouterr().err == "error: the storage does not answer\n"
    assert [trial.state for trial in collect(study).trials] == ["running"]
    tried(study)
    assert [trial.state for trial in collect(study).trials] == ["complete"]


def test_what_did_arrive_before_the_connection_broke_is_not_told_twice(kept: Study, waits: list[float]) -> None:
    from sqlalchemy import event, exc

    trial = kept.optuna.ask()
    broken: list[bool] = []

    def breaks(connection: Any) -> None:
        if not broken:
            broken.append(True)
            connection.connection.commit()
            raise exc.OperationalError("commit", {}, Gone("server closed the connection"))

    event.listen(kept.storage._backend.engine, "commit", breaks)
    assert kept.storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.COMPLETE, [1.0])
    assert broken and kept.optuna.trials[1].value == 1.0


def test_redis_urls_are_opened_by_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna.storages.journal as journal

    given: list[str] = []

    class Backend(journal.BaseJournalBackend, BaseJournalSnapshot):
        """Where somebody has put a snapshot, which Optuna would unpickle."""

        def __init__(self, url: str) -> None:
            given.append(url)

        def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
            return []

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            raise AssertionError

        def load_snapshot(self) -> bytes:
            return pickle.dumps(Unpickled())

        def save_snapshot(self, snapshot: bytes) -> None:
            raise AssertionError

    monkeypatch.setattr(journal, "JournalRedisBackend", Backend)
    opened = storage.make_storage("redis://:***@host:6379", "secret")
    assert given == ["redis://:secret@host:6379"] and opened.get_all_studies() == []


class Unpickled:
    def __reduce__(self) -> Any:
        return pytest.fail, ("unpickled",)

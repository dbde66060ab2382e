"""A full disk, a read-only place, a kill in the middle of writing: one message, nothing lost, nothing half-written.

A limit on the size of a file makes the system refuse what is beyond it, to Python, torch and Rust alike.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
import torch
from filelock import FileLock
from foreign import toy_folder, use_toys
from forked import Command, kill, start
from paths import ROOT
from search_helpers import write_search
from tiny import run_cli
from tiny_runs import tiny_model, tiny_train, write_text
from zoo_processes import appear_and_stop, wait_for
from zoo_runs import make_run

from miniwin.checkpoint import save_checkpoint
from miniwin.data import prepare
from miniwin.files.tensor_files import save_tensors
from miniwin.files.writing import Unwritable, check_writable, named, replacing, write_json
from miniwin.search import read_study, worker
from miniwin.search.storage import open_journal
from miniwin.specs import UserError, dump_yaml, load_train_spec
from miniwin.tokenizer import load_tokenizer
from miniwin.training.launch import train
from miniwin.zoo.importing.writing import appearing

resource = pytest.importorskip("resource", reason="no limits on this system")


@contextmanager
def full_beyond(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes, here and in processes that are started meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "zoo"))
    monkeypatch.setenv("MINIWIN_HOME", str(tmp_path / "home"))
    return tmp_path


def refused(*arguments: str) -> str:
    """The one message of a command that ends with exit code 2."""
    return message_of(run_cli(*arguments))


def message_of(answer: tuple[int, str, str]) -> str:
    code, _, err = answer
    assert code == 2 and "Traceback" not in err, (code, err)
    notes, _, message = err.rpartition("error: ")
    assert "error" not in notes and message.count("\n") == 1, err
    return message


# -- one file


def test_torchs_complaint_of_a_position_is_a_disk_that_is_full(here: Path) -> None:
    path = here / "checkpoint.pt"
    save_checkpoint(path, {"step": 1})
    before = path.read_bytes()
    with (
        full_beyond(20_000),
        pytest.raises(Unwritable, match=r"checkpoint\.pt: could not be written \(File too large\)"),
    ):
        save_checkpoint(path, {"weights": torch.zeros(20_000)})
    assert everything(here) == {"checkpoint.pt": before}


def test_the_words_of_safetensors_are_those_of_the_system(here: Path) -> None:
    with full_beyond(1000), pytest.raises(OSError, match="File too large") as error:
        save_tensors({"a": torch.zeros(5000)}, here / "a.safetensors")
    assert error.value.errno == 27


def test_an_error_that_names_no_file_is_of_the_one_that_is_written(here: Path) -> None:
    full = OSError(28, "No space left on device")
    assert str(named(full, here)).startswith(f"{here}: could not be written (No space left on device); make room")
    for other in (OSError(28, "No space left on device", "a"), Unwritable(here, full), OSError(104, "reset by peer")):
        assert named(other, here / "b") is other


def test_a_disk_that_is_full_says_to_make_room(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(here / "a.json", 1)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError) as error:
        write_json(here / "a.json", 2)
    said = "could not be written (No space left on device); make room there, or choose another place"
    assert str(error.value) == f"{here / 'a.json'}: {said}"
    assert everything(here) == {"a.json": b"1\n"}


def test_a_folder_that_cannot_be_flushed_is_no_reason_to_fail(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.fsync

    def only_files(descriptor: int) -> None:
        if os.path.isdir(f"/dev/fd/{descriptor}"):
            raise OSError(22, "Invalid argument")
        before(descriptor)

    monkeypatch.setattr("os.fsync", only_files)
    write_json(here / "a.json", 2)
    assert everything(here) == {"a.json": b"2\n"}


def test_leftovers_of_dead_processes_are_removed_and_of_no_others(here: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    old = time.time() - 7200
    dead, alive, young, other = (
        here / f".a.json.{name}.tmp" for name in (ended.pid, os.getppid(), ended.pid + 10**6, "x")
    )
    for path in (dead, alive, young, other):
        path.write_text("half")
        if path != young:
            os.utime(path, (old, old))
    write_json(here / "a.json", 1)
    assert set(everything(here)) == {"a.json", alive.name, young.name, other.name}


# -- commands


def test_training_on_a_full_disk_is_one_message_and_goes_on_afterwards(here: Path) -> None:
    write_text(here)
    Path("m.yaml").write_text(dump_yaml(tiny_model()), encoding="utf-8")
    Path("t.yaml").write_text(dump_yaml(tiny_train()), encoding="utf-8")
    train(tiny_model(), tiny_train(), out="whole", progress=False, tracking="off", device="cpu")  # the cache, too
    command = [
        "train",
        "m.yaml",
        "--train",
        "t.yaml",
        "--out",
        "run",
        "--tracking",
        "off",
        "--device",
        "cpu",
        "--quiet",
    ]
    with full_beyond(50_000):
        assert "run/checkpoint.pt: could not be written (File too large)" in refused(*command)
    with full_beyond(1_000):
        refused(*command)
    assert not [name for name in everything(Path("run")) if name.endswith(".tmp") or name == "checkpoint.pt"]
    assert run_cli(*command)[0] == 0
    assert Path("run/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


def test_metrics_that_cannot_be_written_end_a_run_in_one_message(here: Path) -> None:
    write_text(here)
    train(tiny_model(), tiny_train(), out="whole", progress=False, tracking="off", device="cpu")
    spec = tiny_train(tokens=200 * 128)
    with full_beyond(20_000), pytest.raises(Unwritable, match=r"long/metrics\.jsonl: could not be written"):
        train(tiny_model(), spec, out="long", progress=False, tracking="off", device="cpu")
    with full_beyond(100), pytest.raises(Unwritable):  # and again, with less room than the record of the run needs
        train(tiny_model(), spec, out="long", progress=False, tracking="off", device="cpu")


@pytest.mark.parametrize(
    "line",
    [
        "zoo add run --name mine --no-evaluate",
        "export run --to made",
        "import exported --to made",
        "explain miniwin-tiny --html made",
        "generate run -n 2 --save-session made",
        "zoo index zoo",
    ],
)
def test_a_full_disk_leaves_a_message_and_nothing_else(line: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(here / "run")
    assert run_cli("zoo", "add", "run", "--name", "first", "--no-evaluate")[0] == 0
    if line.startswith("import"):
        use_toys(monkeypatch)
        toy_folder(here / "exported")
    run_cli("generate", "run", "-n", "1")  # whatever is remembered of a model is remembered now
    before = everything(here)
    with full_beyond(600):
        message = refused(*line.split())
    assert "File too large" in message
    assert any(f"{place}: " in message for place in ("made", here / "zoo", "zoo/index.json")), message
    after = {name: raw for name, raw in everything(here).items() if not name.endswith(".lock")}
    assert after == {name: raw for name, raw in before.items() if not name.endswith(".lock")}
    assert run_cli(*line.split())[0] == 0


def test_a_search_on_a_full_disk_ends_with_the_reason_and_goes_on(here: Path) -> None:
    spec = write_search(here, budget={"trials": 1}, baseline=None, rungs=[])
    asked = load_train_spec(here / "train.yaml")
    for data in (asked.data, asked.resolved(here).data):
        prepare(data, load_tokenizer("byte"), here)
    command = ["search", "run", str(spec), "--out", "study", "--tracking", "off", "--quiet", "--workers", "1"]
    message = message_of(Command(*command, told=here / "told", file_limit=30_000).ends())
    assert "could not be written (File too large)" in message and "the same command goes on" in message
    code, _, err = Command(*command, told=here / "told").ends()
    assert code == 0, err
    assert [trial.state for trial in read_study("study").trials] == ["complete"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_output_that_cannot_be_written_is_a_message() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    kept = "cli.app = lambda: sys.exit(print('kept until the end')); cli.without_torch.install(); cli.main()"
    for command in (["-m", "miniwin", "check", "miniwin-1m"], ["-c", f"import sys, miniwin.cli as cli; {kept}"]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [sys.executable, *command], stdout=full, stderr=subprocess.PIPE, cwd=ROOT, env=environment
            )
        assert done.returncode == 2 and done.stderr == b"error: standard output: No space left on device\n"


def test_a_place_that_may_only_be_read_is_a_message(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root may write anywhere, the system's answer is imitated."""
    write_text(here)
    Path("m.yaml").write_text(dump_yaml(tiny_model()), encoding="utf-8")
    Path("t.yaml").write_text(dump_yaml(tiny_train()), encoding="utf-8")
    train(tiny_model(), tiny_train(), out="run", progress=False, tracking="off", device="cpu")
    make = os.mkdir

    def read_only(path: str, *rest: object, **options: object) -> None:
        if "made" in os.fspath(path):
            raise OSError(30, "Read-only file system", path)
        make(path, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("os.mkdir", read_only)
    spec = write_search(here, budget={"trials": 1})
    for line in (
        "train m.yaml --train t.yaml --out made/run --quiet --tracking off",
        "export run --to made/x",
        f"search run {spec} --out made/study --quiet --tracking off",
        "zoo add run --name mine --no-evaluate --zoo made",
    ):
        assert "Read-only file system" in refused(*line.split())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(28, "No space left on device", "x")])
def test_a_worker_names_what_is_full(
    error: OSError, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object) -> int:
        raise error

    monkeypatch.setattr("miniwin.search.study.find_study", lambda ref, place: Path(ref))
    monkeypatch.setattr(worker, "work", full)
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    assert worker.main(["study"]) == worker.UNWRITABLE
    said = capsys.readouterr().err
    assert said.startswith("error: study: could not be written (No space left on device)") or "'x'" in said


def test_a_journal_that_cannot_be_written_is_named(here: Path) -> None:
    storage = open_journal(here / "journal.log")
    with full_beyond(50), pytest.raises(Unwritable, match=rf"{here}/journal\.log: could not be written"):
        optuna.create_study(storage=storage)


def test_a_pull_names_the_disk_that_is_full(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(here / "run")
    assert run_cli("zoo", "add", "run", "--name", "mine", "--no-evaluate", "--zoo", "theirs")[0] == 0
    assert run_cli("zoo", "index", "theirs")[0] == 0
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", "theirs/index.json")
    with full_beyond(1_700):
        message = refused("zoo", "pull", "mine")
    assert re.search(rf"{here}/zoo/\S*: could not be written \(File too large\)", message), message


# -- folders that appear as a whole


def test_what_a_killed_command_left_goes_with_the_next_one(here: Path) -> None:
    process = start(appear_and_stop, here / "made", here / "there")
    wait_for(here / "there", process)
    (here / "there").unlink()
    left = [path.name for path in here.iterdir() if ".made." in path.name]
    with appearing(here / "other"):
        pass
    assert [path.name for path in here.iterdir() if ".made." in path.name] == left, "its owner lives"
    kill(process)
    with appearing(here / "another") as part:
        (part / "a").write_text("a")
    assert {path.name for path in here.iterdir()} == {"other", "another"} and len(left) == 2


def test_only_what_is_certainly_left_over_is_removed(here: Path) -> None:
    for name in (".a.0123abcd.part", ".mine.part", ".a.0123abcd.part.d"):
        (here / name).mkdir()
    (here / ".held.00000000.part").mkdir()
    with FileLock(here / ".held.00000000.part.lock"), appearing(here / "a"):
        pass
    kept = {".a.0123abcd.part", ".mine.part", ".a.0123abcd.part.d", ".held.00000000.part"}
    assert kept <= {path.name for path in here.iterdir()}, "a folder without a lock may be anybody's"


def test_a_report_cannot_take_the_place_of_a_folder(here: Path) -> None:
    (here / "folder").mkdir()
    with pytest.raises(UserError, match="cannot write there"):
        check_writable(here / "folder")
    with pytest.raises(Unwritable), replacing(here / "folder") as temporary:
        temporary.write_text("a")
    assert [path.name for path in here.iterdir()] == ["folder"]

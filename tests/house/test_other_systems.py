"""Windows and macOS, imitated: what they lack is taken away here, and what they refuse is refused.

Nothing of this runs on them. It holds what was learnt by reading: which calls differ, and that none of them is needed.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import fcntl
import io
import nturl2path
import os
import platform
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from search_helpers import write_search
from tiny_runs import tiny_model, tiny_train, write_text

import miniwin
from miniwin import provenance
from miniwin.data.sources import list_source
from miniwin.files.writing import flush, move, remove_tree
from miniwin.files.writing import write_text as write_file
from miniwin.machine import processes
from miniwin.runs import read_run
from miniwin.search import read_study, worker
from miniwin.search.creation import create_study
from miniwin.search.leases import STALE_SECONDS, Lease
from miniwin.specs import UserError, load_search_spec
from miniwin.specs.data import TextData
from miniwin.training import signals
from miniwin.training.launch import train
from miniwin.zoo import add, locations, verify
from miniwin.zoo.exporting import export_model


def imitate(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine, as the system would answer."""
    windows = system == "win32"
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "system", lambda: "Windows" if windows else "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "AMD64" if windows else "arm64")
    lacking = ["sched_getaffinity", "fdatasync", "posix_fallocate"]
    lacking += ["getuid", "geteuid", "sysconf", "getloadavg", "fork"] if windows else []
    for name in lacking:
        monkeypatch.delattr(os, name, raising=False)
    read, link = Path.read_text, os.readlink

    def no_proc(path: Path, *rest: Any, **options: Any) -> str:
        if str(path).startswith("/proc"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return read(path, *rest, **options)

    def no_links(path: Any, **options: Any) -> Any:
        if str(path).startswith("/proc"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return link(path, **options)

    monkeypatch.setattr(Path, "read_text", no_proc)
    monkeypatch.setattr(os, "readlink", no_links)
    if not windows:
        return
    for name in ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGALRM", "SIGQUIT"):
        monkeypatch.delattr(signal, name)
    sync, opened, replace, text, sleep = os.fsync, os.open, os.replace, io.open, time.sleep
    in_the_way: set[str] = set()

    def only_for_writing(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        sync(descriptor)

    def no_folders(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if os.path.isdir(path) and "rmtree" not in {frame.f_code.co_name for frame in _frames()}:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return opened(path, flags, *rest, **options)

    def at_the_second_try(source: Any, target: Any, **options: Any) -> None:
        if str(target) not in in_the_way:
            in_the_way.add(str(target))
            raise PermissionError(errno.EACCES, "The process cannot access the file", source, None, target)
        in_the_way.discard(str(target))
        replace(source, target, **options)

    def with_its_line_ends(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if "b" not in mode and set("wax") & set(mode) and len(rest) < 4 and options.get("newline") is None:
            options["newline"] = "\r\n"
        elif len(rest) == 4 and rest[3] is None and "b" not in mode and set("wax") & set(mode):
            rest = (*rest[:3], "\r\n")
        return text(file, mode, *rest, **options)

    def ends_processes(pid: int, number: int) -> None:
        raise AssertionError("on Windows os.kill ends the process, whatever the signal")

    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.001)))  # each file waits for its second try
    monkeypatch.setattr(os, "fsync", only_for_writing)
    monkeypatch.setattr(os, "open", no_folders)
    monkeypatch.setattr(os, "replace", at_the_second_try)
    monkeypatch.setattr(io, "open", with_its_line_ends)
    monkeypatch.setattr(builtins, "open", with_its_line_ends)
    monkeypatch.setattr(os, "kill", ends_processes)
    monkeypatch.setattr(processes, "_is_running_on_windows", lambda pid: pid == os.getpid())


def _frames() -> list[Any]:
    found, frame = [], sys._getframe(1)
    while frame is not None:
        found.append(frame)
        frame = frame.f_back  # type: ignore[assignment]
    return found


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_training_search_zoo_and_generation(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "zoo"))
    write_text(tmp_path)
    spec = tiny_train(tokens=4 * 128)
    options: dict[str, Any] = {"progress": False, "tracking": "off", "device": "cpu"}
    train(tiny_model(), spec, out="here", **options)
    shutil.rmtree("cache")
    (tmp_path / "asked").mkdir()
    path = write_search(tmp_path / "asked", budget={"trials": 1}, rungs=[0.5])
    imitate(system, monkeypatch)

    assert train(tiny_model(), spec, out="run", stop_after_tokens=256, **options).status == "interrupted"
    assert train(tiny_model(), spec, out="run", **options).status == "complete"
    assert Path("run/model.safetensors").read_bytes() == Path("here/model.safetensors").read_bytes()
    assert read_run("run")["machine"]["os"].startswith("Windows" if system == "win32" else "Darwin")
    entry = add("run", name="mine")
    assert verify(entry) == [] and miniwin.load("mine").generate("the ", max_new_tokens=4, seed=0)
    export_model("mine", tmp_path / "exported")
    create_study(load_search_spec(path), path.parent, out=tmp_path / "study")
    assert worker.work(tmp_path / "study", "0") == worker.DONE
    assert [trial.state for trial in read_study("study").trials] == ["complete"]

    texts = [found for found in tmp_path.rglob("*") if found.suffix in (".json", ".jsonl", ".yaml", ".md", ".py")]
    changed = [found.name for found in texts if found.is_file() and b"\r" in found.read_bytes()]
    assert len(texts) > 25 and changed == [], "hashes go by bytes"
    assert not [found for found in tmp_path.rglob("*") if found.name.endswith((".tmp", ".part"))]


# -- files


def test_a_file_that_is_open_elsewhere_is_replaced_a_moment_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, tries = os.replace, []

    def busy(source: Path, target: Path) -> None:
        tries.append(target)
        if len(tries) < 3:
            raise PermissionError(errno.EACCES, "in use")
        replace(source, target)

    (tmp_path / "a").write_text("new", encoding="utf-8")
    (tmp_path / "b").write_text("old", encoding="utf-8")
    monkeypatch.setattr(os, "replace", busy)
    with pytest.raises(PermissionError):
        move(tmp_path / "a", tmp_path / "b")
    monkeypatch.setattr(sys, "platform", "win32")
    move(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text(encoding="utf-8") == "new" and len(tries) == 3
    monkeypatch.setattr("miniwin.files.writing.PATIENCE_SECONDS", 0.0)
    tries.clear()
    with pytest.raises(UserError, match="could not be written"):
        write_file(tmp_path / "b", "newer")
    assert [found.name for found in tmp_path.iterdir()] == ["b"]


def test_only_a_file_that_is_open_for_writing_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imitate("win32", monkeypatch)
    (tmp_path / "a").write_text("a", encoding="utf-8")
    flush(tmp_path / "a")
    flush(tmp_path)


def test_files_that_may_only_be_read_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "entry").mkdir()
    (tmp_path / "entry" / "a").touch()
    (tmp_path / "entry" / "a").chmod(0o444)
    unlink = os.unlink

    def only_writable(path: Any, **options: Any) -> None:
        if not os.stat(path, **options).st_mode & stat.S_IWRITE:
            raise PermissionError(errno.EACCES, "Access is denied", path)
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", only_writable)
    remove_tree(tmp_path / "entry")
    assert (tmp_path / "entry").exists()
    monkeypatch.setattr(sys, "platform", "win32")
    remove_tree(tmp_path / "entry")
    assert not (tmp_path / "entry").exists()


def test_a_file_spelt_in_two_ways_is_one_file_where_case_is_ignored(tmp_path: Path) -> None:
    """Two names of one file that differ in case only. macOS and Windows have them anyway; here a link makes the
    second."""
    (tmp_path / "text.txt").write_text("some text\n" * 50, encoding="utf-8")
    os.link(tmp_path / "text.txt", tmp_path / "Text.txt")
    both = TextData(source="text", paths=("text.txt", "Text.txt"))
    assert len(list_source(both, tmp_path).files) == 1
    leak = TextData(source="text", paths=("Text.txt",), valid_paths=("text.txt",))
    with pytest.raises(UserError, match="named by both paths and valid_paths"):
        list_source(leak, tmp_path)


def test_two_files_whose_names_differ_in_case_are_two_files_here(tmp_path: Path) -> None:
    for name in ("text.txt", "Text.txt"):
        (tmp_path / name).write_text(f"{name}\n" * 50, encoding="utf-8")
    both = TextData(source="text", paths=("text.txt", "Text.txt"))
    assert len(list_source(both, tmp_path).files) == 2


@pytest.mark.parametrize("name", ["con", "nul", "aux", "prn", "com1", "lpt9"])
def test_no_entry_is_called_like_a_device_of_windows(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"zoo name '{name}' is a device on Windows.*choose another"):
        add(tmp_path, name=name)


def test_a_file_url_names_a_drive(monkeypatch: pytest.MonkeyPatch) -> None:
    assert locations.index_location("file:///a%20b/%ff.json") == Path(os.fsdecode(b"/a b/\xff.json"))
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(locations, "url2pathname", nturl2path.url2pathname)
    assert str(locations.index_location("file:///C:/a%20b/index.json")) == r"C:\a b\index.json"


def test_the_machine_is_described_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    imitate("win32", monkeypatch)
    about = provenance.machine()
    assert about["cores"] == os.cpu_count() and about["memory_gb"] is None and isinstance(about["cpu"], str)


# -- processes and signals


@pytest.mark.parametrize(
    ("handle", "error", "code", "there"), [(0, 87, 0, False), (0, 5, 0, True), (7, 0, 259, True), (7, 0, 1, False)]
)
def test_windows_is_asked_in_its_own_way_whether_a_process_lives(
    handle: int, error: int, code: int, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No such process, somebody else's process, a running process, and an ended one that is still held."""

    class Function:
        def __init__(self, answer: Any) -> None:
            self.answer = answer

        def __call__(self, *given: Any) -> int:
            return int(self.answer(*given))

    class Kernel:
        def __init__(self, name: str, use_last_error: bool) -> None:
            assert name == "kernel32" and use_last_error
            self.OpenProcess = Function(lambda access, inherit, pid: handle)
            self.GetExitCodeProcess = Function(self.exit_code)
            self.CloseHandle = Function(lambda given: 1)

        def exit_code(self, given: Any, into: Any) -> int:
            into._obj.value = code
            return 1

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "kill", lambda *given: pytest.fail("this would end it"))
    monkeypatch.setattr(ctypes, "WinDLL", Kernel, raising=False)
    monkeypatch.setattr(ctypes, "get_last_error", lambda: error, raising=False)
    assert processes.is_running(42) is there


def test_a_lease_without_a_start_lives_as_long_as_it_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a process id that is used again would hold a trial for ever."""
    imitate("darwin", monkeypatch)
    mine = Lease.mine("0")
    assert mine.started is None and mine.alive()
    assert not Lease(mine.host, mine.pid, None, "0", time.time() - 2 * STALE_SECONDS).alive()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not Lease(mine.host, ended.pid, None, "0", time.time()).alive()


def test_windows_is_asked_to_stop_by_ctrl_break(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    class Process:
        def send_signal(self, number: int) -> None:
            sent.append(number)
            if len(sent) > 1:
                raise OSError(6, "The handle is invalid")

        def terminate(self) -> None:
            sent.append("terminate")

    process: Any = Process()
    assert signals.stop_signals() == [signal.SIGINT, signal.SIGTERM] and signals.own_group() == {
        "start_new_session": True
    }
    signals.ask_to_stop(process)
    assert sent.pop() == "terminate"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(signal, "SIGBREAK", 21, raising=False)
    monkeypatch.setattr(signal, "CTRL_BREAK_EVENT", 1, raising=False)
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)
    assert signals.stop_signals() == [signal.SIGINT, signal.SIGTERM, 21] and signals.own_group() == {
        "creationflags": 512
    }
    signals.ask_to_stop(process)
    assert sent == [1]
    signals.ask_to_stop(process)  # no console is shared
    assert sent == [1, 1, "terminate"]


def test_a_worker_sees_that_its_parent_is_gone_though_it_stays_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[int] = []
    monkeypatch.setattr(os, "getppid", lambda: 42)
    monkeypatch.setattr(worker, "is_running", lambda pid: False)
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    monkeypatch.setattr(os, "kill", lambda *given: pytest.fail("on Windows this ends the process at once"))
    monkeypatch.setattr(worker, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(os, "_exit", lambda code: raised.append(code))
    worker._watch(42)
    assert raised == [signal.SIGTERM, worker.STOPPED]

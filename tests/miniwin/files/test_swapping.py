"""A folder that is replaced is the old one or the new one, whatever happens."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from pathlib import Path

import pytest

from miniwin.files import swapping
from miniwin.files.swapping import replacing_folder


def write(target: Path, text: str) -> None:
    with replacing_folder(target) as staged:
        (staged / "deep").mkdir()
        (staged / "deep" / "file").write_text(text)


def read(target: Path) -> str:
    return (target / "deep" / "file").read_text()


@pytest.fixture(params=["exchanged", "renamed"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "renamed":
        monkeypatch.setattr(swapping, "_exchange", lambda one, other: False)
    elif sys.platform != "linux":
        pytest.skip("only Linux exchanges names")
    return str(request.param)


def test_a_folder_is_made_and_replaced_and_nothing_is_left(tmp_path: Path, how: str) -> None:
    target = tmp_path / "site"
    for text in ("one", "two", "three"):
        write(target, text)
        assert read(target) == text and os.listdir(tmp_path) == ["site"]
    assert target.stat().st_mode & 0o777 == 0o777 & ~umask()  # a web server may read it


def umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


def test_an_error_leaves_the_old_folder(tmp_path: Path, how: str) -> None:
    target = tmp_path / "site"
    write(target, "one")
    with pytest.raises(ZeroDivisionError), replacing_folder(target) as staged:
        (staged / "file").write_text("half")
        raise ZeroDivisionError
    assert read(target) == "one" and os.listdir(tmp_path) == ["site"]


def test_where_the_new_folder_cannot_be_named_the_old_one_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "site"
    write(target, "one")
    monkeypatch.setattr(swapping, "_exchange", lambda one, other: False)
    rename, calls = swapping.move, []

    def second_fails(source: Path, to: Path) -> None:
        calls.append(to)
        if len(calls) == 2:
            raise PermissionError("in use")
        rename(source, to)

    monkeypatch.setattr(swapping, "move", second_fails)
    with pytest.raises(PermissionError):
        write(target, "two")
    assert read(target) == "one" and os.listdir(tmp_path) == ["site"]


def killed_while_it_writes(point: str, target: Path, there: Path) -> None:
    """A process that makes the file `there` at `point`, waits, and is killed. It computes nothing: a fork will do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of threads that may hold locks
        child = os.fork()
    if child == 0:
        put = swapping._put

        def stop(staged: Path, to: Path) -> None:
            if point == "removal":  # once the names are exchanged
                put(staged, to)
            there.touch()
            time.sleep(600)

        swapping._put = stop
        write(target, "two")
        os._exit(1)
    while not there.exists():
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended before it was killed"
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(("point", "expected"), [("exchange", "one"), ("removal", "two")])
def test_kill_9_leaves_one_of_the_two(point: str, expected: str, tmp_path: Path) -> None:
    target = tmp_path / "place" / "site"
    target.parent.mkdir()
    write(target, "one")
    killed_while_it_writes(point, target, tmp_path / "there")
    assert read(target) == expected
    (left,) = [path for path in target.parent.iterdir() if path != target]
    write(target, "three")  # what was left does not stand in the way
    assert read(target) == "three" and left.exists()
    os.utime(left, (0, 0))
    write(target, "four")
    assert read(target) == "four" and os.listdir(target.parent) == ["site"]

"""Real processes for the tests of the zoo, to be killed or to race each other.

A server process imports PyTorch once and forks the rest from itself, so that each costs milliseconds. A child takes
its environment as an argument: the server's own is that of the moment it was started.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from zoo_runs import tiny_spec

import miniwin.zoo

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["zoo_processes"])

with torch.device("meta"):
    tiny_spec().build()  # PyTorch imports hundreds of modules for the first tensor without memory


def start(target: Callable[..., None], *arguments: Any) -> Any:
    """`target(*arguments)` in a process of its own, with the environment of now."""
    process = _context.Process(target=_run, args=(dict(os.environ), target, arguments), daemon=True)
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):  # for the server: it knows no other way
        process.start()
    return process


def wait_for(path: Path, process: Any) -> None:
    while not path.exists():
        assert process.is_alive(), f"the process ended with exit code {process.exitcode}"
        time.sleep(0.01)


def kill(process: Any) -> None:
    process.kill()  # SIGKILL: nothing of it runs any more
    process.join()
    assert process.exitcode == -signal.SIGKILL


def add_and_stop(run: Path, point: str, there: Path) -> None:
    """Add the run, but stand still at `point` for ever, having made the file `there`."""
    from miniwin.zoo import adding, store

    def stop(*arguments: Any, **options: Any) -> None:
        there.touch()
        time.sleep(600)

    rename = store.move

    def rename_and_stop(source: Path, target: Path) -> None:
        rename(source, target)
        stop()

    if point == "weights":
        adding._copy_weights = stop
    elif point == "reference":
        adding.write_reference = stop
    elif point == "rename":
        store.move = stop
    elif point == "after":
        store.move = rename_and_stop
    miniwin.zoo.add(run, name="tiny")


def add_together(run: Path, go: Path, version: str | None) -> None:
    """Add the run as soon as `go` is there, all checks that come before the lock being done; write down the answer."""
    from miniwin.zoo import adding

    write = adding.write_reference

    def wait(*arguments: Any) -> None:
        write(*arguments)
        (run / "ready").touch()
        while not go.exists():
            time.sleep(0.002)

    adding.write_reference = wait
    try:
        answer = miniwin.zoo.add(run, name="tiny", version=version).version
    except miniwin.zoo.ZooError as error:
        answer = str(error)
    (run / "answer").write_text(answer, encoding="utf-8")


def pull(ref: str) -> None:
    from miniwin.zoo.pull import pull

    pull(ref, progress=False)


def _run(environment: dict[str, str], target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    target(*arguments)

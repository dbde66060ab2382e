"""What processes do that the tests of the zoo kill, or let race."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import miniwin.zoo


def wait_for(path: Path, process: Any) -> None:
    while not path.exists():
        assert process.is_alive(), f"the process ended with exit code {process.exitcode}"
        time.sleep(0.01)


def add_and_stop(run: Path, point: str, there: Path) -> None:
    """Add the run, but make the file `there` at `point` and wait there for ever."""
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
    """Do all checks that come before the lock, wait for the file `go`, then add the run and write down the answer."""
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


def publish(folder: Path, to: Path) -> None:
    from miniwin.zoo.publishing.publish import publish

    publish(folder, str(to), logits=False)


def appear_and_stop(folder: Path, there: Path) -> None:
    """Begin a folder that appears as a whole, make the file `there`, and wait for ever."""
    from miniwin.zoo.importing.writing import appearing

    with appearing(folder) as part:
        (part / "weights").write_bytes(bytes(1000))
        there.touch()
        time.sleep(600)

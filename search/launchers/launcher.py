"""What a launcher is: its options, and a way to start a worker and to learn how it ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from miniwin.specs.base import Strict, UserError


@dataclass(frozen=True)
class Order:
    """A worker that is to be started.

    folder, study: the study folder, and the id of its study. url: of its storage, with the study's name, if a machine
    that does not see the folder can join the study there. known: the request to stop that is not for this worker.
    cwd: where relative paths start. secrets: environment variables that the worker needs and the study does not keep.
    They may hold passwords, so a launcher writes them to no file.
    """

    folder: Path
    study: str
    url: str | None
    number: int
    threads: int
    known: str
    cwd: Path
    secrets: dict[str, str]

    @property
    def log(self) -> Path:
        return self.folder / "logs" / f"worker-{self.number}.log"


@dataclass(frozen=True)
class Ended:
    """How a worker ended. code: as worker.py has them; negative: a signal killed it. said: the end of what it printed.
    how: what killed it, where the code does not say."""

    code: int
    said: str = ""
    how: str | None = None


class Started(Protocol):
    """A worker that was started."""

    def poll(self) -> Ended | None:
        """How it ended; None if it has not."""

    def ask_to_stop(self) -> None:
        """Ask it to write a checkpoint and end. Returns at once."""

    def kill(self) -> None:
        """End it at once, if it has not ended."""


class Launcher(Strict, ABC):
    """The options of a launcher. `type` is its name."""

    type: str

    @abstractmethod
    def threads(self, workers: int) -> int:
        """PyTorch threads of each of so many workers."""

    @abstractmethod
    def check(self) -> None:
        """UserError if no worker can be started from here, as far as that is known at once."""

    @abstractmethod
    def opened(self, folder: Path, note: Callable[[str], None]) -> AbstractContextManager[Callable[[Order], Started]]:
        """While the block runs, the function that it gives starts workers. folder: of the study. note: says a line.

        Raises:
            UserError: workers cannot be started here, and why.
        """


def needed(launcher: str, package: str, extra: str) -> Any:
    """The module that a launcher needs. UserError, with the extra that installs it, if it is not there."""
    try:
        return import_module(package)
    except ImportError:
        raise UserError(
            f"--launcher {launcher} needs {package}, which is not installed: pip install 'miniwin[{extra}]'"
        ) from None

"""What a launcher is: its options, and a way to start a worker and to learn how it ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from miniwin.specs.base import Strict


@dataclass(frozen=True)
class Order:
    """A worker that is to be started.

    folder, study: the study folder, and the id of its study. known: the request to stop that is not for this worker.
    secrets: environment variables that the worker needs and the study does not keep. They may hold passwords, so a
    launcher writes them to no file.
    """

    folder: Path
    study: str
    number: int
    threads: int
    known: str
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
    def opened(self, folder: Path) -> AbstractContextManager[Callable[[Order], Started]]:
        """While the block runs, the function that it gives starts workers. folder: of the study.

        Raises:
            UserError: workers cannot be started here, and why.
        """

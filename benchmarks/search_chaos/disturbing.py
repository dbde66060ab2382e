"""Disturbing a search: kills, a restart of its server, a full disk."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.search_chaos.disk import Disk

if TYPE_CHECKING:
    from forked import Command

PATIENCE = 1200.0  # seconds; only a hang takes that long
OF_THE_COMMAND = 0.1  # the share of kills that hit the command and not a worker
TRIES = 20  # of the command, after the last kill
NO_ROOM = "could not be written"
EXPECTED = ("workers were killed", NO_ROOM)  # what may end the command before the search is done


@dataclass(frozen=True)
class Plan:
    """kills: how many. gap: seconds between two, on average. restart, full: after how many kills the server is
    restarted, and the disk is full; None: never."""

    kills: int
    gap: float
    restart: int | None
    full: int | None


@dataclass
class Disturbed:
    """What was done to a search, and what it said."""

    workers_killed: int = 0
    commands_killed: int = 0
    restarts: int = 0
    full_disks: int = 0
    commands: int = 0
    ends: list[tuple[int, str]] = field(default_factory=list)  # exit codes and errors of commands that ended themselves
    seconds: float = 0.0

    @property
    def kills(self) -> int:
        return self.workers_killed + self.commands_killed


class Disturbing:
    """Runs a command until its search is done, and disturbs it. begin: begins the command; with a limit, in bytes, on
    the files that it writes, if there is one."""

    def __init__(
        self,
        begin: Callable[[int | None], Command],
        plan: Plan,
        draw: random.Random,
        disk: Disk,
        restart: Callable[[], object],
    ) -> None:
        self._begin, self._plan, self._draw, self._disk, self._restart = begin, plan, draw, disk, restart
        self.done = Disturbed()

    def run(self) -> Disturbed:
        """The search is done when this returns, or its command has failed too often."""
        began = time.monotonic()
        command = self._again()
        for number in range(self._plan.kills):
            if number == self._plan.restart:
                command = self._wait(command, 0)  # one that has only just begun would say that the server is away
                self._restart()
                self.done.restarts += 1
            if number == self._plan.full:
                command = self._fill(command)
            command = self._wait(command, self._draw.uniform(0, 2 * self._plan.gap))
            if self._over:
                break
            command = self._kill(command)
        for _ in range(TRIES):
            self._ended(command)
            if self._over:
                break
            command = self._again()
        self.done.seconds = time.monotonic() - began
        return self.done

    @property
    def _over(self) -> bool:
        """Whether the search is done."""
        return bool(self.done.ends) and self.done.ends[-1][0] == 0

    def _again(self, file_limit: int | None = None) -> Command:
        self.done.commands += 1
        return self._begin(file_limit)

    def _wait(self, command: Command, seconds: float) -> Command:
        """Let a command work for a while, from when it has workers. One that ends is begun again, unless the search is
        done."""
        until: float | None = None
        while until is None or time.monotonic() < until:
            if not command.running():
                self._ended(command)
                if self._over:
                    break
                command = self._again()
            elif until is None and children(command.process.pid):
                until = time.monotonic() + seconds
            time.sleep(0.005)
        return command

    def _kill(self, command: Command) -> Command:
        """Kill a worker, which the command replaces, or the command itself, which is begun again."""
        there = children(command.process.pid)
        if there and self._draw.random() >= OF_THE_COMMAND:
            with suppress(ProcessLookupError):  # it ended in the meantime
                os.kill(self._draw.choice(there), signal.SIGKILL)
                self.done.workers_killed += 1
            return command
        if command.running():
            command.process.kill()
            command.process.join()
            self.done.commands_killed += 1
        return self._again()

    def _fill(self, command: Command) -> Command:
        """Let the command find the disk full, and make room once it has ended."""
        if (limit := self._disk.file_limit) is not None:
            command.process.kill()
            command.process.join()
            command = self._again(limit)
        with self._disk.full():
            self._ended(command)
            if NO_ROOM not in self.done.ends[-1][1] and not self._over:  # it ended for another reason: killed too often
                self._ended(self._again(limit))
        self.done.full_disks += NO_ROOM in self.done.ends[-1][1]
        return self._again()

    def _ended(self, command: Command) -> None:
        """Wait for the end of a command, and note what it said."""
        code, _, error = command.ends(PATIENCE)
        self.done.ends.append((code, error.rpartition("error: ")[2].strip()))


def children(process: int) -> list[int]:
    """The processes that a process has started and that are still there."""
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii")
        return [int(one) for one in text.split()]
    except (OSError, ValueError):
        return []

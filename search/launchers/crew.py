"""The workers of one `search run`: started, watched, replaced if they were killed, and stopped without losing work."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

from miniwin.blocks.messages.passwords import has_secret
from miniwin.search import worker
from miniwin.search.launchers.launcher import Ended, Launcher, Order, Started
from miniwin.search.live_table import SearchDisplay
from miniwin.search.records import collect
from miniwin.search.stopping import at_work, last_request
from miniwin.search.storage_trust import NAMED
from miniwin.search.storage_url import PASSWORD, sqlite_path, without_password
from miniwin.search.study import Study
from miniwin.specs import UserError
from miniwin.tracking import OFF

POLL_SECONDS = 0.2
REFRESH_SECONDS = 1.0
STOP_SECONDS = 60.0  # for workers to write their checkpoints
LINGER_SECONDS = 5.0  # for other workers, once one has found that nothing is left to do
RESTARTS = 25  # of killed workers, together


class Crew:
    """The workers that a launcher starts for a study."""

    def __init__(
        self, study: Study, count: int, display: SearchDisplay, launcher: Launcher, tracking: str = OFF
    ) -> None:
        self.study, self.count, self.display, self.launcher = study, count, display, launcher
        # What a study does not keep, and its workers need.
        self.secrets = {PASSWORD: study.password} if study.password else {}
        if storage := study.about["storage"]:  # this process has opened the storage, and so may its workers
            self.secrets[NAMED] = without_password(storage)
        self.secrets |= {"MLFLOW_TRACKING_URI": tracking} if has_secret(tracking) else {}
        anywhere = study.stored and sqlite_path(storage) is None  # a database that is a file is on this machine alone
        self.url = f"{without_password(storage)}#{study.spec.name}" if anywhere else None
        self.threads = launcher.threads(count)
        self.working: dict[int, Started] = {}
        self.restarts = 0
        self.gave_up: str | None = None
        self.known = last_request(study)  # no request to stop from before is for these workers
        self.stopped = False
        self.over: float | None = None  # since when it is known that nothing is left to do

    def run(self) -> None:
        """Run workers until each has found that nothing is left to do."""
        with self.launcher.opened(self.study.folder.resolve(), self.display.note) as start:
            try:
                for number in range(self.count):
                    self.working[number] = start(self._order(number))
                self._watch(start)
            finally:
                self._stop()
        if self.stopped and not collect(self.study).finished:
            self.display.note(f"{self.study.spec.name}: miniwin search stop has stopped it")
            raise KeyboardInterrupt
        if self.gave_up is not None:
            raise UserError(f"the search {self.study.spec.name} ended before its budget was spent: {self.gave_up}")

    def _watch(self, start: Callable[[Order], Started]) -> None:
        shown = 0.0
        while self.working and not self._lingered():
            for number, started in list(self.working.items()):
                if (ended := started.poll()) is not None:
                    del self.working[number]
                    if self._goes_on(number, ended):
                        self.working[number] = start(self._order(number))
            if time.monotonic() - shown >= REFRESH_SECONDS:
                self.display.update(collect(self.study))
                shown = time.monotonic()
            time.sleep(POLL_SECONDS)

    def _lingered(self) -> bool:
        """Whether the workers that are left have had time to end. Some may wait for a place in a cluster."""
        if self.stopped and not at_work(self.study):
            self.over = self.over or time.monotonic()
        return self.over is not None and time.monotonic() - self.over > LINGER_SECONDS

    def _order(self, number: int) -> Order:
        folder, id = self.study.folder.resolve(), self.study.about["id"]
        return Order(folder, id, self.url, number, self.threads, self.known, Path.cwd(), self.secrets)

    def _goes_on(self, number: int, ended: Ended) -> bool:
        """Whether another worker takes the place of one that has ended. UserError if that ends the search."""
        code, said = ended.code, ended.said
        if code in (worker.DONE, worker.GAVE_UP):
            self.over = self.over or time.monotonic()
        if code == worker.DONE:
            return False
        if code == worker.ALL_STOPPED:  # the others have heard it too, and end by themselves
            self.stopped = True
            return False
        if code == worker.MISTAKE:
            raise UserError(said.rpartition("error: ")[2].strip())
        if code == worker.UNWRITABLE:
            reason = said.rpartition("error: ")[2].strip() or f"{self.study.folder}: could not be written"
            raise UserError(f"{reason}; nothing that was written is lost: the same command goes on")
        if code == worker.GAVE_UP:
            self.gave_up = said.rpartition("gave up: ")[2].strip()
            return False
        if code > 0 and code != worker.STOPPED:
            last = next((line for line in reversed(said.splitlines()) if line.strip()), "it printed nothing")
            raise UserError(f"worker {number} failed: {last}; what it printed is in {self._order(number).log}")
        self.restarts += 1
        if self.restarts > RESTARTS:
            raise UserError(
                f"workers were killed {self.restarts} times; is there enough memory for {self.count} of them? "
                "The same command goes on, with fewer --workers if you like"
            )
        self.display.note(f"worker {number} was killed ({ended.how or _named(code)}); another one takes its place")
        return True

    def _stop(self) -> None:
        """Ask the remaining workers to stop, and wait for their checkpoints."""
        for started in self.working.values():
            started.ask_to_stop()
        deadline = time.monotonic() + STOP_SECONDS
        try:
            while time.monotonic() < deadline and any(one.poll() is None for one in self.working.values()):
                time.sleep(POLL_SECONDS / 10)
        finally:  # also when a second Ctrl-C ends the waiting
            for started in self.working.values():
                started.kill()
            self.working.clear()


def _named(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"

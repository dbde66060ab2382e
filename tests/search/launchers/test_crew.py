"""What is said of workers that have ended, and what local workers are given."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from search_helpers import make

from miniwin.search.claims import Claim, take_work
from miniwin.search.launchers import local
from miniwin.search.launchers.crew import Crew
from miniwin.search.launchers.launcher import Ended, Order
from miniwin.search.launchers.local import Local
from miniwin.search.launchers.process import ChildWorker
from miniwin.search.live_table import SearchDisplay
from miniwin.search.worker import ALL_STOPPED, DONE, GAVE_UP, MISTAKE, STOPPED, UNWRITABLE
from miniwin.specs import UserError


def crew(folder: Path) -> Crew:
    return Crew(make(folder), 1, SearchDisplay(enabled=False), Local())


def test_how_workers_that_end_badly_are_told_of(tmp_path: Path) -> None:
    one = crew(tmp_path)
    with pytest.raises(UserError, match=r"^the disk is full\nof text$"):
        one._goes_on(0, Ended(MISTAKE, "trial 1\nerror: the disk is full\nof text"))
    with pytest.raises(UserError, match=r"worker 0 failed: KeyError: 'x'; what it printed is in .*worker-0.log"):
        one._goes_on(0, Ended(1, "Traceback\nKeyError: 'x'\n"))
    with pytest.raises(UserError, match=r"^no space; nothing that was written is lost: the same command goes on$"):
        one._goes_on(0, Ended(UNWRITABLE, "error: no space"))
    assert not one._goes_on(0, Ended(GAVE_UP, "gave up: nothing holds\n"))
    assert one.gave_up == "nothing holds"
    assert not one._goes_on(0, Ended(DONE)) and not one.stopped
    assert not one._goes_on(0, Ended(ALL_STOPPED)) and one.stopped


def test_killed_workers_are_replaced_so_many_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = crew(tmp_path)
    one.display = SearchDisplay()
    with one.display:
        assert one._goes_on(0, Ended(-9)) and one._goes_on(0, Ended(-9, how="its node is gone"))
        assert one._goes_on(0, Ended(STOPPED))  # not by us: by hand, or by whoever owns the machine
    said = capsys.readouterr().err
    assert "worker 0 was killed (SIGKILL); another one takes its place" in said
    assert "worker 0 was killed (its node is gone); another" in said
    with pytest.raises(UserError, match="workers were killed 26 times"):
        for _ in range(23):
            assert one._goes_on(0, Ended(-9))


def test_a_local_worker_is_quoted_from_where_its_own_output_begins(tmp_path: Path) -> None:
    log = tmp_path / "worker-0.log"
    log.write_text("error: of the worker before\n")
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(3)"])
    worker = ChildWorker(process, log, log.stat().st_size)
    with open(log, "a") as file:
        file.write("gave up: now\n")
    process.wait()
    assert worker.poll() == Ended(3, "gave up: now\n")


def test_workers_take_turns_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert local._gpu(3) is None
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [local._gpu(number) for number in range(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 6")
    assert [local._gpu(number) for number in range(3)] == ["4", "6", "4"]


class Fake:
    """A worker that ends as it is told, or never."""

    def __init__(self, ended: Ended | None) -> None:
        self.ended, self.asked, self.killed, self.polled = ended, 0, 0, 0

    def poll(self) -> Ended | None:
        self.polled += 1
        assert self.polled < 1000, "somebody waits for ever"
        return self.ended

    def ask_to_stop(self) -> None:
        self.asked, self.ended = self.asked + 1, Ended(STOPPED)

    def kill(self) -> None:
        self.killed += 1


def test_nobody_waits_for_a_worker_that_waits_for_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a cluster that is full: it has not begun when the others are done."""
    monkeypatch.setattr("miniwin.search.launchers.crew.LINGER_SECONDS", 0.0)
    monkeypatch.setattr("miniwin.search.launchers.crew.POLL_SECONDS", 0.001)
    orders: list[Order] = []

    @contextmanager
    def opened(self: Local, folder: Path, note: object) -> Iterator[Callable[[Order], Fake]]:
        yield lambda order: (orders.append(order), fakes[order.number])[1]  # type: ignore[func-returns-value]

    monkeypatch.setattr(Local, "opened", opened)
    one = Crew(make(tmp_path), 2, SearchDisplay(enabled=False), Local())
    fakes = [Fake(Ended(DONE)), Fake(None)]
    one.run()
    assert fakes[0].asked == 0 and fakes[1].asked == 1
    fakes = [Fake(Ended(ALL_STOPPED)), Fake(None)]
    with pytest.raises(KeyboardInterrupt):
        Crew(one.study, 2, SearchDisplay(enabled=False), Local()).run()
    assert fakes[1].asked == 1
    # A worker that may end its trial first (search stop --finish) is waited for.
    claim = take_work(one.study, "1")
    assert isinstance(claim, Claim)
    one.stopped, one.over = True, None
    assert not one._lingered() and one.over is None
    claim.entry.let_go()
    one._lingered()
    assert one.over is not None
    assert [order.number for order in orders] == [0, 1, 0, 1] and orders[0].folder == one.study.folder.resolve()

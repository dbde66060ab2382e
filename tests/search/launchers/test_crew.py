"""What is said of workers that have ended, and what local workers are given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from search_helpers import make

from miniwin.search.launchers import local
from miniwin.search.launchers.crew import Crew
from miniwin.search.launchers.launcher import Ended
from miniwin.search.launchers.local import Local, LocalWorker
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
    worker = LocalWorker(process, log, log.stat().st_size)
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

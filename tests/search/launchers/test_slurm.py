"""A search as jobs of submitit's local executor, the stand-in for Slurm; and what is written into a job of Slurm."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from forked import workers_forked
from processes import parent_of
from search_helpers import make, write_search

from miniwin.runs import read_metrics
from miniwin.search import read_study, run_search
from miniwin.search.launchers import on_slurm, process
from miniwin.search.launchers.choosing import choose
from miniwin.search.launchers.crew import Crew
from miniwin.search.launchers.launcher import Ended, Order
from miniwin.search.launchers.local import Local
from miniwin.search.launchers.on_slurm import Slurm, SlurmTask
from miniwin.search.live_table import SearchDisplay
from miniwin.search.stopping import NEVER, at_work
from miniwin.search.storage_url import PASSWORD
from miniwin.search.study import Study
from miniwin.search.worker import MISTAKE
from miniwin.specs import UserError

pytest.importorskip("submitit")


def save(result: object, path: Path) -> None:
    from submitit.core.utils import cloudpickle_dump

    cloudpickle_dump(result, path)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """A process that was started in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_a_search_survives_the_death_of_a_worker_the_end_of_its_time_and_ctrl_c(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_slurm, "LAG_SECONDS", 0.2)
    changes: dict[str, Any] = {"baseline": None, "constraints": [], "budget": {"trials": 2}}
    spec = write_search(tmp_path, train={"tokens": 32_768, "checkpoint_seconds": 0.2}, **changes)
    study, main = tmp_path / "study", threading.main_thread().ident
    assert main is not None

    def holder() -> int:
        while not (study / "leases").is_dir():
            time.sleep(0.02)
        opened = Study(study)
        while not (held := at_work(opened)):
            time.sleep(0.02)
        return next(iter(held.values())).pid

    def another(than: int) -> int:
        while (found := holder()) == than:
            time.sleep(0.02)
        return found

    def disturb() -> None:
        os.kill(first := holder(), signal.SIGKILL)
        second = another(first)
        os.kill(parent_of(second), signal.SIGUSR2)  # what Slurm sends to a job when its time is nearly over
        another(second)  # of the same job, out of the queue again
        signal.pthread_kill(main, signal.SIGINT)

    disturber = Thread(target=disturb, daemon=True)
    disturber.start()
    with pytest.raises(KeyboardInterrupt):
        run_search(spec, out=study, workers=1, tracking="off", launcher=Slurm(cluster="local"))
    disturber.join()
    assert "worker 0 was killed (SIGKILL); another one takes its place" in capfd.readouterr().err
    while at_work(Study(study)):  # submitit's local executor does not wait for the worker, which writes its checkpoint
        time.sleep(0.02)
    assert not read_study(study).finished
    with workers_forked():
        data = run_search(spec, out=study, workers=1, tracking="off", progress=False)
    assert data.finished and len(data.completed) == 2
    assert sum(trial.attempts for trial in data.completed) >= 4
    for trial in data.completed:
        assert trial.run_folder is not None
        assert [line["step"] for line in read_metrics(trial.run_folder)] == list(range(1, 257))


class FakeSlurm:
    """Programs of the names of Slurm's, which record what they are told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        for name, does in {
            "sbatch": f'cp "$1" {folder}/job.sh; env > {folder}/env; echo Submitted batch job 7',
            "srun": "",
            "sacct": f"cat {folder}/state",
            "scancel": f'echo "$@" >> {folder}/cancelled',
        }.items():
            (folder / name).write_text(f"#!/bin/sh\n{does}\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        self.becomes("PENDING")

    def becomes(self, state: str) -> None:
        (self.folder / "state").write_text(f"JobID|State|NodeList\n7|{state}|node-1\n")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.setattr(on_slurm, "ASK_SECONDS", 0.0)
    monkeypatch.setattr(on_slurm, "LAG_SECONDS", 0.0)
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


def ordered(made: Study, **changes: Any) -> Order:
    given = {"folder": made.folder, "study": made.about["id"], "url": None, "number": 0, "threads": 1, "known": NEVER}
    return Order(**(given | {"cwd": made.folder, "secrets": {PASSWORD: "secret-word"}} | changes))


def test_what_a_job_of_slurm_is_told(tmp_path: Path, slurm: FakeSlurm) -> None:
    study = make(tmp_path)
    site = tmp_path / "site.yaml"
    site.write_text(
        "type: slurm\npartition: gpu\ntime_min: 90\nsetup: [module load cuda]\nsbatch: {reservation: mine}\n"
    )
    launcher = choose(site, ["gpus=1", "cpus=4", "mem_gb=8"])
    assert isinstance(launcher, Slurm) and launcher.threads(2) == 4
    with launcher.opened(study.folder, print) as start:
        job = start(ordered(study))
    told = (slurm.folder / "job.sh").read_text()
    for line in ("--partition=gpu", "--time=90", "--cpus-per-task=4", "--gpus-per-node=1", "--mem=8GB", "--nodes=1"):
        assert f"#SBATCH {line}\n" in told
    assert "#SBATCH --reservation=mine\n" in told and "\nmodule load cuda\n" in told and "--signal=USR2@90" in told
    assert f"{PASSWORD}=secret-word" in (slurm.folder / "env").read_text()
    for path in (study.folder / "logs" / "slurm").iterdir():
        assert b"secret-word" not in path.read_bytes(), "submitit's files are there for others to read"
    assert PASSWORD not in os.environ
    assert job.job.submission().function.given == {}
    with Slurm().opened(study.folder, print) as start:
        assert start(ordered(study)).job.submission().function.given == {"CUDA_VISIBLE_DEVICES": ""}
    assert job.poll() is None
    job.ask_to_stop()
    assert (slurm.folder / "cancelled").read_text() == "7\n"


def test_how_a_job_ended(tmp_path: Path, slurm: FakeSlurm) -> None:
    study = make(tmp_path)
    with Slurm().opened(study.folder, print) as start:
        job = start(ordered(study))
        assert job.poll() is None
        slurm.becomes("NODE_FAIL")
        while (ended := job.poll()) is None:  # the result may still come: a shared file system is slow
            time.sleep(0.01)
        assert ended == Ended(on_slurm.KILLED, how="job 7: NODE_FAIL")
        save(("success", Ended(0, "done")), job.job.paths.result_pickle)
        assert job.poll() == Ended(0, "done")
        save(("error", "Traceback\nModuleNotFoundError: no miniwin\n"), job.job.paths.result_pickle)
        ended = job.poll()
    assert ended is not None and ended.code == MISTAKE
    assert ended.said.startswith("error: job 7 of Slurm failed: ModuleNotFoundError: no miniwin; see /")


def test_slurm_that_takes_no_job(tmp_path: Path, slurm: FakeSlurm) -> None:
    study = make(tmp_path)
    (slurm.folder / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    with Slurm().opened(study.folder, print) as start, pytest.raises(UserError, match="a job could not be submitted"):
        start(ordered(study))


def test_a_machine_that_does_not_see_the_study(tmp_path: Path) -> None:
    study = make(tmp_path)
    for change, words in (({"folder": tmp_path / "none"}, "sees no study"), ({"study": "other"}, "has another study")):
        ended = SlurmTask(ordered(study, **change), {})()
        assert ended.code == MISTAKE and f"that machine {words} in " in ended.said and "--out" in ended.said


def test_a_machine_that_sees_only_the_database_joins_the_study_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    study = make(tmp_path, f"sqlite:///{tmp_path}/studies.db")
    crew = Crew(study, 1, SearchDisplay(enabled=False), Local())
    assert crew.url is None, "a file is not joined from another machine"
    study.about["storage"] = "postgresql://me:***@host/studies"
    assert Crew(study, 1, SearchDisplay(enabled=False), Local()).url == "postgresql://me@host/studies#small"
    order = ordered(study, folder=tmp_path / "none", url=f"sqlite:///{tmp_path}/studies.db#small", secrets={"A_B": "c"})
    joined = process._as_seen_here(order)
    assert joined.folder.is_relative_to(tmp_path / "cache") and joined.log.parent.is_dir()
    assert Study(joined.folder).about["id"] == study.about["id"] and os.environ.pop("A_B") == "c"

"""A search on a real Ray cluster of two machines (both are this one), of which one dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from processes import parent_of
from search_helpers import write_search

from miniwin.runs import read_metrics
from miniwin.search import run_search
from miniwin.search.launchers import on_ray
from miniwin.search.launchers.launcher import Ended
from miniwin.search.launchers.on_ray import KILLED, RayWorker
from miniwin.search.stopping import at_work
from miniwin.search.study import Study
from miniwin.search.worker import MISTAKE, STOPPED


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, list[Any]]]:
    """A head that runs no tasks, and two raylets with a core each. Ray's usage report is off."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "300")
    from ray.cluster_utils import Cluster

    # Not 127.0.0.1, for which Ray takes an address that others can reach.
    small = {"object_store_memory": 80 * 2**20, "node_ip_address": "127.0.0.2"}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
    try:
        yield made, [made.add_node(num_cpus=1, **small) for _ in range(2)]
    finally:
        made.shutdown()


def test_a_search_survives_the_death_of_a_machine(
    tmp_path: Path, cluster: tuple[Any, list[Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    changes: dict[str, Any] = {"baseline": None, "constraints": [], "budget": {"trials": 3}}
    spec = write_search(tmp_path, train={"tokens": 32_768, "checkpoint_seconds": 0.05}, **changes)
    study, (head, machines) = tmp_path / "study", cluster

    def kill_a_machine() -> None:
        while not (study / "leases").is_dir() or len(held := at_work(Study(study)).values()) < 2:  # both work
            time.sleep(0.02)
        raylet = machines[0].all_processes["raylet"][0].process.pid
        for lease in held:
            if parent_of(parent_of(lease.pid)) == raylet:
                os.kill(lease.pid, signal.SIGKILL)
                killed.append(lease.pid)
        head.remove_node(machines[0], allow_graceful=False)

    killed: list[int] = []
    killer = Thread(target=kill_a_machine, daemon=True)
    killer.start()
    launcher = {"launcher": "ray", "launcher_options": [f"address={head.address}"]}
    data = run_search(spec, out=study, workers=2, tracking="off", **launcher)  # type: ignore[arg-type]
    killer.join()
    assert len(killed) == 1
    assert "was killed (Ray says " in capfd.readouterr().err
    assert data.finished and len(data.completed) == 3
    assert sorted(path.name for path in (study / "trials").iterdir()) == sorted(str(t.hash)[:12] for t in data.trained)
    for trial in data.completed:
        assert trial.run_folder is not None
        assert [line["step"] for line in read_metrics(trial.run_folder)] == list(range(1, 257))


class FakeRay:
    """What a launcher asks of Ray: one task, which has failed with an error, or is still running."""

    class exceptions:
        RayError = type("RayError", (Exception,), {})
        TaskCancelledError = type("TaskCancelledError", (RayError,), {})
        RayTaskError = type("RayTaskError", (RayError,), {})
        RuntimeEnvSetupError = type("RuntimeEnvSetupError", (RayError,), {})
        NodeDiedError = type("NodeDiedError", (RayError,), {})

    def __init__(self, error: Exception | None) -> None:
        self.error, self.cancelled = error, list[bool]()

    def wait(self, tasks: list[str], timeout: float) -> tuple[list[str], list[str]]:
        return ([], tasks) if self.error is None else (tasks, [])

    def get(self, task: str) -> None:
        assert self.error is not None
        raise self.error

    def cancel(self, task: str, force: bool) -> None:
        self.cancelled.append(force)
        self.error = FakeRay.exceptions.TaskCancelledError()


def test_how_a_task_of_ray_ended() -> None:
    said = FakeRay.exceptions
    assert RayWorker(FakeRay(said.NodeDiedError()), "task").poll() == Ended(KILLED, how="Ray says NodeDiedError")
    ended = RayWorker(FakeRay(said.RayTaskError("Traceback\nModuleNotFoundError: No module miniwin")), "task").poll()
    assert ended is not None and ended.code == MISTAKE
    assert ended.said.startswith("error: a worker could not be started by Ray: ModuleNotFoundError: No module miniwin")
    ray = FakeRay(None)
    worker = RayWorker(ray, "task")
    assert worker.poll() is None
    worker.ask_to_stop()
    assert worker.poll() == Ended(STOPPED) and ray.cancelled == [False]
    worker.kill()
    assert ray.cancelled == [False], "it has ended"


def test_a_task_of_ray_gets_what_a_process_here_would_inherit(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MINIWIN_PLUGINS", "PGPASSWORD", "MLFLOW_TRACKING_URI", "SOMETHING"):
        monkeypatch.setenv(name, name.lower())
    given = on_ray._settings()
    assert given["MINIWIN_PLUGINS"] == "miniwin_plugins" and given["PGPASSWORD"] == "pgpassword"
    assert "MLFLOW_TRACKING_URI" in given and not {"SOMETHING", "PATH", "CUDA_VISIBLE_DEVICES"} & set(given)

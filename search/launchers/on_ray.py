"""Workers as tasks of a Ray cluster: placed by the CPUs and the share of a GPU that each asks for.

Ray does not retry a task by itself. A worker whose machine is gone is replaced as any killed worker is, so that there
is one count of restarts, and each is said.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from miniwin.search.launchers.launcher import Ended, Launcher, Order, needed
from miniwin.search.launchers.process import HereUntilTheEnd
from miniwin.search.storage_trust import SENT
from miniwin.search.worker import MISTAKE, STOPPED
from miniwin.specs.base import Fraction, PositiveReal, UserError

KILLED = -int(signal.SIGTERM)
KILL_SECONDS = 5.0
REACH_SECONDS = 10.0


class Ray(Launcher):
    """Tasks of a Ray cluster. address: `auto`, the cluster that this machine is in (or $RAY_ADDRESS); HOST:PORT; or
    `local`, a Ray of this machine alone for as long as the search runs. cpus, gpus: of each worker."""

    type: Literal["ray"] = "ray"
    address: str = "auto"
    cpus: PositiveReal = 1.0
    gpus: Fraction = 0.0

    @field_validator("address")
    @classmethod
    def _is_address(cls, address: str) -> str:
        if "://" in address:
            raise ValueError(
                f"got {address}; expected auto, local or HOST:PORT; with Ray's client the study folder would be on "
                "another machine than the cluster: run the search on a machine of the cluster"
            )
        return address

    def check(self) -> None:
        needed("ray", "ray", "ray")

    def threads(self, workers: int) -> int:
        return max(1, int(self.cpus))

    @contextmanager
    def opened(self, folder: Path, note: Callable[[str], None]) -> Iterator[Callable[[Order], RayWorker]]:
        ray = needed("ray", "ray", "ray")
        with _connected(ray, self.address):
            here = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            if not any(has.get("CPU", 0) >= self.cpus and has.get("GPU", 0) >= self.gpus for has in here):
                note(
                    f"no machine of the Ray cluster has {self.cpus:g} CPUs and {self.gpus:g} GPUs: "
                    "the workers wait until one joins"
                )
            yield lambda order: self._start(ray, order)

    def _start(self, ray: Any, order: Order) -> RayWorker:
        # A task that asks for no GPU must not use those of others.
        given = {} if self.gpus else {"CUDA_VISIBLE_DEVICES": ""}
        secrets = _settings() | order.secrets
        # max_calls: each worker gets a new process of Ray, which the one before cannot have spoiled.
        task = ray.remote(max_retries=0, max_calls=1)(_run)
        named = task.options(num_cpus=self.cpus, num_gpus=self.gpus, name=f"miniwin worker {order.number}")
        return RayWorker(ray, named.remote(replace(order, secrets=secrets), given))


@dataclass(frozen=True)
class RayWorker:
    """task: the future of what `_run` returns."""

    ray: Any
    task: Any

    def poll(self) -> Ended | None:
        if not self.ray.wait([self.task], timeout=0)[0]:
            return None
        errors = self.ray.exceptions
        try:
            ended: Ended = self.ray.get(self.task)
            return ended
        except errors.TaskCancelledError:
            return Ended(STOPPED)
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as error:  # such as: it cannot import miniwin
            last = str(error).strip().splitlines()[-1]
            reason = f"{last}; every machine of the Ray cluster needs the same version of miniwin and ray"
            return Ended(MISTAKE, f"error: a worker could not be started by Ray: {reason}")
        except errors.RayError as error:
            return Ended(KILLED, how=f"Ray says {type(error).__name__}")

    def ask_to_stop(self) -> None:
        self.ray.cancel(self.task, force=False)

    def kill(self) -> None:
        """Its process notices within a second that Ray's is gone, and stops too."""
        if self.poll() is None:
            self.ray.cancel(self.task, force=True)
            self.ray.wait([self.task], timeout=KILL_SECONDS)


def _run(order: Order, given: dict[str, str]) -> Ended:
    return HereUntilTheEnd(order, given)()


def _settings() -> dict[str, str]:
    """What a process of this machine would inherit, and one that Ray has started elsewhere does not."""
    passed = (*SENT, "MLFLOW_TRACKING_URI")
    return {name: value for name, value in os.environ.items() if name.startswith("MINIWIN_") or name in passed}


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """This process as a driver of the cluster, unless it is one already."""
    if ray.is_initialized():
        yield
        return
    _check_reachable(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a Ray that we start
    own: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    with _sigterm_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of Ray, about GPUs of tasks that ask for none
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise _no_cluster(address, said.strip()) from None
    try:
        yield
    finally:
        with suppress(Exception), _sigterm_kept():  # the search has ended, well or badly, and that is what is said
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """UserError at once if nothing listens at HOST:PORT. Ray itself tries for a quarter of an hour."""
    asked = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    host, _, port = asked.rpartition(":")
    if not host or "://" in asked or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(asked, str(error)) from None


def _no_cluster(address: str, said: str) -> UserError:
    return UserError(
        f"--launcher ray: this process cannot join a cluster at address={address}: {said.removesuffix('.')}. Start one "
        "with `ray start --head`, name one with --set-launcher address=HOST:PORT, or use address=local"
    )


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Ray takes over SIGTERM; for us it is Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

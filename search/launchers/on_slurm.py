"""Workers as jobs of Slurm, submitted with submitit: a job is a worker.

A job that runs out of time, or that others push aside, writes a checkpoint first. submitit then puts it into the queue
again, also when the search that submitted it is gone. A job that died is replaced as any killed worker is.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from miniwin.search.launchers.launcher import Ended, Launcher, Order, needed
from miniwin.search.launchers.process import HereUntilTheEnd, python_path
from miniwin.search.worker import MISTAKE
from miniwin.specs.base import Count, PositiveInt, PositiveReal, UserError

KILLED = -15
ASK_SECONDS = 15.0  # between two questions to Slurm; a result is a file, and seen at once
LAG_SECONDS = 5.0  # for a shared file system to show the result of a job that has ended
REQUEUES = 1000  # of a job that runs out of time: as often as it takes
# Options of sbatch that a field says, or that submitit or the launcher needs.
OURS = {
    "account",
    "array",
    "constraint",
    "cpus-per-task",
    "error",
    "gpus-per-node",
    "job-name",
    "mem",
    "no-requeue",
    "nodes",
    "ntasks",
    "ntasks-per-node",
    "open-mode",
    "output",
    "partition",
    "qos",
    "requeue",
    "signal",
    "time",
}

GPUS = ("gpus", "gpus-per-task", "gpus-per-socket", "cpus-per-gpu", "mem-per-gpu")


class Slurm(Launcher):
    """Jobs of Slurm. cpus, gpus: of each worker. time_min: minutes until a job goes to the end of the queue, and later
    on from its checkpoint. setup: lines of shell before the worker, such as `module load cuda`. sbatch: more options of
    sbatch, such as {reservation: mine}. cluster: `local` is submitit's own stand-in, to try this without Slurm."""

    type: Literal["slurm"] = "slurm"
    cpus: PositiveInt = 1
    gpus: Count = Field(default=0, le=1)
    mem_gb: PositiveReal | None = None
    time_min: PositiveInt = Field(default=60, ge=5)
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    setup: tuple[str, ...] = Field(default=(), strict=False)
    sbatch: dict[str, str | int | bool] = {}
    cluster: Literal["slurm", "local"] = "slurm"

    @field_validator("sbatch")
    @classmethod
    def _is_not_ours(cls, sbatch: dict[str, Any], others: ValidationInfo) -> dict[str, Any]:
        for name, value in sbatch.items():
            plain = name.replace("_", "-")
            if plain in OURS:
                raise ValueError(f"got {name}, which the launcher sets; expected other options of sbatch")
            asks = plain in GPUS or (plain == "gres" and "gpu" in str(value))
            if asks and not others.data.get("gpus"):  # the worker would be told to use none
                raise ValueError(f"got {name}: {value}, and gpus is 0, so no worker would use a GPU; add gpus: 1")
        return sbatch

    @field_validator("cluster")
    @classmethod
    def _can_be_honoured(cls, cluster: str, others: ValidationInfo) -> str:
        # With a `setup`, submitit's local executor could not be asked to stop: the signal would go to the shell.
        asked = [name for name in ("gpus", "mem_gb", *_SLURM, "setup", "sbatch") if others.data.get(name)]
        if cluster == "local" and asked:
            raise ValueError(f"got local beside {asked[0]}, which submitit's local executor cannot honour")
        return cluster

    def check(self) -> None:
        needed("slurm", "submitit", "slurm")
        if self.cluster == "slurm" and not (shutil.which("srun") and shutil.which("sbatch")):
            raise UserError(
                "--launcher slurm: there are no srun and sbatch here; run the search where jobs are submitted, such as "
                "a login node, or try it with --set-launcher cluster=local"
            )

    def threads(self, workers: int) -> int:
        return self.cpus

    @contextmanager
    def opened(self, folder: Path, note: Callable[[str], None]) -> Iterator[Callable[[Order], SlurmWorker]]:
        self.check()
        submitit = needed("slurm", "submitit", "slurm")
        again: dict[str, Any] = {f"{self.cluster}_max_num_timeout": REQUEUES}
        executor = submitit.AutoExecutor(folder / "logs" / "slurm", cluster=self.cluster, **again)
        executor.update_parameters(**self._parameters(f"miniwin-{folder.name}"))
        clock = Clock()
        yield lambda order: self._start(submitit, executor, order, clock)

    def _parameters(self, name: str) -> dict[str, Any]:
        """As submitit's AutoExecutor calls them."""
        given: dict[str, Any] = {
            "name": name,
            "nodes": 1,
            "tasks_per_node": 1,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus or None,
            "mem_gb": self.mem_gb,
            "timeout_min": self.time_min,
            "slurm_setup": list(self.setup) or None,
        }
        given |= {f"slurm_{option}": getattr(self, option) for option in _SLURM}
        given["slurm_additional_parameters"] = {key.replace("_", "-"): self.sbatch[key] for key in self.sbatch} or None
        return {key: value for key, value in given.items() if value is not None}

    def _start(self, submitit: Any, executor: Any, order: Order, clock: Clock) -> SlurmWorker:
        # A job that asks for no GPU must not use those of others.
        given = {} if self.gpus else {"CUDA_VISIBLE_DEVICES": ""}
        # submitit writes what it is given into a file; the environment is Slurm's to keep.
        with _environment({**order.secrets, "PYTHONPATH": python_path()}):
            try:
                job = executor.submit(SlurmTask(replace(order, secrets={}), given, group=False))
            except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
                raise UserError(f"--launcher slurm: a job could not be submitted: {_last_line(error)}") from None
        return SlurmWorker(submitit, job, clock)


_SLURM = ("partition", "account", "qos", "constraint")


class SlurmTask(HereUntilTheEnd):
    """What a job runs. Signals reach the worker by way of Slurm, as the processes of a job are one group."""

    def checkpoint(self) -> Any:
        """submitit calls this before the job goes back to the queue: what is to be run then."""
        from submitit.helpers import DelayedSubmission

        self.stop()
        return DelayedSubmission(SlurmTask(self.order, self.given, self.group))


@dataclass
class Clock:
    """When Slurm was asked last, for all jobs at once."""

    asked: float = field(default_factory=time.monotonic)

    def is_time(self) -> bool:
        if time.monotonic() - self.asked < ASK_SECONDS:
            return False
        self.asked = time.monotonic()
        return True


@dataclass
class SlurmWorker:
    submitit: Any
    job: Any
    clock: Clock
    gone: float | None = None  # since when the job is over, without a result that can be seen

    def poll(self) -> Ended | None:
        if not self.job.done(force_check=self.clock.is_time()):
            return None
        if not self.job.paths.result_pickle.exists():
            self.gone = self.gone or time.monotonic()
            lagging = time.monotonic() - self.gone < LAG_SECONDS
            return None if lagging else Ended(KILLED, how=f"job {self.job.job_id}: {self.job.state}")
        try:
            ended: Ended = self.job.result()
            return ended
        except self.submitit.core.utils.UncompletedJobError as error:
            last = _last_line(error.__cause__ or error)
            return Ended(MISTAKE, f"error: job {self.job.job_id} of Slurm failed: {last}; see {self.job.paths.stderr}")

    def ask_to_stop(self) -> None:
        self.job.cancel(check=False)

    def kill(self) -> None:
        """Slurm kills what does not end in time, once it has been asked."""
        if self.poll() is None:
            self.job.cancel(check=False)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" -")]
    told = [line for line in lines if not line.startswith("You can check full logs")]
    return next((line for line in reversed(told) if not line.startswith("- /")), type(error).__name__)


@contextmanager
def _environment(given: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(given)
    try:
        yield
    finally:
        for name in given:
            os.environ.pop(name, None)
        os.environ.update({name: before[name] for name in given if name in before})

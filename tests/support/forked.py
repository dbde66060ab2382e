"""Real processes that start in milliseconds, for tests that kill them, stop them or let them race.

A server process imports PyTorch and MiniWin once, and forks all others from itself. A child gets its environment and
its folder as arguments, since the server's own may be old.
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any
from unittest.mock import patch

from tiny import run_cli

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["preloaded"])


def start(target: Callable[..., object], *arguments: Any) -> Any:
    """`target(*arguments)` in a new process, with the environment and the folder of now."""
    process = _context.Process(target=_run, args=(dict(os.environ), os.getcwd(), target, arguments), daemon=True)
    with path_for_the_server():
        process.start()
    return process


def path_for_the_server() -> Any:
    """While the block runs, a server that starts imports from our `sys.path`."""
    return patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))


def kill(process: Any) -> None:
    process.kill()  # SIGKILL: nothing of it runs any more
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it ended before it was killed"


def _run(environment: dict[str, str], folder: str, target: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    os.environ.update(environment)
    for name in [name for name in os.environ if name.startswith("MINIWIN_") and name not in environment]:
        del os.environ[name]
    os.chdir(folder)
    return target(*arguments)


# The command line


class Command:
    """`miniwin` with these arguments, in a new process. The workers of a search are forked from that process."""

    def __init__(self, *arguments: str, told: Path, file_limit: int | None = None, step_seconds: float = 0.0) -> None:
        """told: a file for what the command prints. file_limit: the most bytes of any file that the command writes.
        step_seconds: a step of training takes so much longer, so that it can be stopped in time."""
        self.told = told
        self.process = start(_command, arguments, told, file_limit, step_seconds)

    def running(self) -> bool:
        return bool(self.process.is_alive())

    def ends(self, timeout: float = 900) -> tuple[int, str, str]:
        """The exit code, standard output and standard error."""
        self.process.join(timeout)
        assert not self.running(), f"it did not end within {timeout:g} seconds"
        assert self.process.exitcode == 0, f"it was killed: {self.process.exitcode}"
        code, out, err = json.loads(self.told.read_text(encoding="utf-8"))
        return code, out, err


def _command(arguments: tuple[str, ...], told: Path, file_limit: int | None, step_seconds: float) -> None:
    import resource

    from miniwin.search.launchers import process

    _look_often()
    if step_seconds:
        _slow_down(step_seconds)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process.subprocess = SimpleNamespace(Popen=_Worker, DEVNULL=subprocess.DEVNULL)  # type: ignore[assignment]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, before[1]))
    answer = run_cli(*arguments)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    told.write_text(json.dumps(answer), encoding="utf-8")


def _look_often() -> None:
    """What a search of hours looks at each second, one that lasts a second looks at all the time."""
    from miniwin.search import stopping, worker
    from miniwin.search.launchers import crew

    worker.PARENT_SECONDS = 0.1  # after which an orphan notices that its parent is gone
    worker.WAIT_SECONDS = stopping.WAIT_SECONDS = 0.05
    crew.POLL_SECONDS = 0.02


def _slow_down(seconds: float) -> None:
    from miniwin.training import gradients

    shares = gradients.shares  # called once for each batch

    def slow(*of: Any) -> Any:
        time.sleep(seconds)
        return shares(*of)

    gradients.shares = slow


@contextmanager
def workers_forked() -> Iterator[None]:
    """While the block runs, the workers of a search of this process are forked from the server."""
    from miniwin.search.launchers import process

    served = SimpleNamespace(Popen=_ServedWorker, DEVNULL=subprocess.DEVNULL)
    with patch.object(process, "subprocess", served):
        yield


def torchrun(*arguments: str) -> tuple[int, str, str]:
    """`torchrun -m miniwin ...` with forked processes. Returns the answer of the first, or of one that fails."""
    from torch.distributed import run

    asked = run.parse_args(["--standalone", *arguments])
    answers: dict[int, tuple[int, str, str]] = {}

    def launch(config: Any, entrypoint: str) -> Callable[..., None]:
        def go(*command: str) -> None:
            assert (entrypoint, command[0]) == (sys.executable, "-u")
            config.start_method = "forkserver"
            given = (dict(os.environ), os.getcwd(), _until_the_exit, asked.training_script_args)
            answers.update(elastic_launch(config, _run)(*given))

        return go

    elastic_launch = run.elastic_launch
    with _agent(), path_for_the_server(), patch.object(run, "elastic_launch", launch):
        run.run(asked)
    assert [rank for rank, (_, out, _) in sorted(answers.items()) if out] == [0], "one of them speaks for all"
    return max((answers[rank] for rank in sorted(answers)), key=lambda answer: answer[0])  # the first of the largest


def together(target: Callable[..., object], *arguments: Any, processes: int = 2, restarts: int = 0) -> dict[int, Any]:
    """`target(*arguments)` in several processes, as torchrun starts them. Returns what each gives back, by its rank."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=restarts,
        monitor_interval=0.02,
        start_method="forkserver",
    )
    given = (dict(os.environ), os.getcwd(), _watched, (target, arguments))
    with _agent(), path_for_the_server():
        answers: dict[int, Any] = elastic_launch(config, _run)(*given)
    return answers


def _watched(target: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    faulthandler.dump_traceback_later(240, exit=True)  # processes that wait for one another would do so for ever
    return target(*arguments)


@contextmanager
def _agent() -> Iterator[None]:
    """torchrun takes over the handling of signals, for the time of the block.

    For each line of a log that nobody reads, it looks up the source of each function that is running, among all the
    modules of all tests: a second of computing for each start. Here it gets the name that it wants.
    """
    from torch.distributed.elastic.rendezvous import dynamic_rendezvous

    def caller(depth: int = 2) -> str:
        return sys._getframe(depth).f_code.co_name

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        with patch.object(dynamic_rendezvous, "get_method_name", caller):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _until_the_exit(*arguments: str) -> tuple[int, str, str]:
    """The command line, and what is to be done at the exit, which forked processes leave out."""
    known: list[Callable[[], object]] = []
    with patch.object(atexit, "register", known.append):
        answer = run_cli(*arguments)
    for function in reversed(known):
        function()
    return answer


class _Worker:
    """A worker of a search, forked from its parent. It has what the launcher needs of subprocess.Popen."""

    def __init__(self, command: list[str], *, stdout: IO[bytes], env: dict[str, str], **rest: Any) -> None:
        assert command[:3] == [sys.executable, "-m", "miniwin.search.worker"] and rest["start_new_session"]
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _work(command[3:], stdout.fileno(), env)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float = 900) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("worker", timeout)
            time.sleep(0.005)
        return code

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


class _ServedWorker:
    """A worker of a search, forked from the server. It has what the launcher needs of subprocess.Popen."""

    def __init__(self, command: list[str], *, stdout: IO[bytes], env: dict[str, str], **rest: Any) -> None:
        assert command[:3] == [sys.executable, "-m", "miniwin.search.worker"] and rest["start_new_session"]
        self.process = start(_serve, command[3:], stdout.name, env)
        self.pid = self.process.pid

    def poll(self) -> int | None:
        code: int | None = self.process.exitcode
        return code

    def wait(self) -> int:
        self.process.join()
        return int(self.process.exitcode)

    def terminate(self) -> None:
        self.process.terminate()

    def kill(self) -> None:
        self.process.kill()


def _serve(arguments: list[str], log: str, environment: dict[str, str]) -> None:
    _look_often()
    arguments[arguments.index("--parent") + 1] = str(os.getppid())  # the server
    with open(log, "ab") as file:
        _work(arguments, file.fileno(), environment)


def _work(arguments: list[str], log: int, environment: dict[str, str]) -> None:
    """Runs in the fork, which ends here."""
    code = 1
    try:
        from miniwin.search import worker

        os.setsid()
        os.environ.clear()
        os.environ.update(environment)
        with open(log, "w", encoding="utf-8", closefd=False, buffering=1) as stream:
            sys.stdout = sys.stderr = stream
            try:
                code = worker.main(arguments)
            except BaseException:
                traceback.print_exc()
    finally:
        os._exit(code)

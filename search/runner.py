"""Running a search: make or open the study, start workers, watch them, and stop them without losing work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from miniwin.blocks.messages.passwords import has_secret, masked
from miniwin.search import worker
from miniwin.search.claims import retry_failed
from miniwin.search.confirm.scores import check_test
from miniwin.search.creation import create_study
from miniwin.search.live_table import SearchDisplay
from miniwin.search.measure import check_corpus, check_same_data
from miniwin.search.records import StudyData, collect
from miniwin.search.space import Space, check_space
from miniwin.search.spec_errors import placed
from miniwin.search.stopping import last_request
from miniwin.search.storage_trust import NAMED
from miniwin.search.storage_url import PASSWORD, without_password
from miniwin.search.study import Study
from miniwin.search.warming import check_sources, warm_start
from miniwin.specs import SearchSpec, UserError, load_search_spec, resolve_spec_path, user_path
from miniwin.tracking import OFF
from miniwin.training.signals import ask_to_stop, own_group

if TYPE_CHECKING:
    from miniwin.data import Corpus

POLL_SECONDS = 0.2
REFRESH_SECONDS = 1.0
STOP_SECONDS = 60.0  # for workers to write their checkpoints
RESTARTS = 25  # of killed workers, together


def run_search(
    search: SearchSpec | str | Path,
    *,
    workers: int | None = None,
    storage: str | None = None,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    tracking: str | None = None,
    progress: bool = True,
    base_folder: str | Path | None = None,
) -> StudyData:
    """Run a search, or go on with it. The study folder is `out`, or searches/<name> under $MINIWIN_HOME or ./runs.

    search: a spec, a YAML file, or the name of a shipped search. base_folder: where relative paths in a SearchSpec
    start; for a file, its own folder. storage: an Optuna storage URL in place of a journal file in the study folder.
    tracking: an MLflow tracking URI, or "off". On Ctrl-C (KeyboardInterrupt) the workers first write checkpoints; the
    same call goes on. `miniwin search stop` ends the call in the same way.
    """
    path = None
    if isinstance(search, SearchSpec):
        if overrides:
            raise UserError("overrides go with a YAML file; a SearchSpec is changed with model_copy(update=...)")
        spec = search
    else:
        path = resolve_spec_path(search, "search")
        spec = load_search_spec(path, overrides)
        base_folder = path.resolve().parent if base_folder is None else base_folder
    workers = spec.workers if workers is None else workers
    if workers < 1:
        raise UserError(f"workers: got {workers}; expected at least 1")
    with placed(path, overrides):
        study = create_study(
            spec,
            user_path(base_folder or "."),
            out=None if out is None else user_path(out),
            storage=storage,
            check=_check,
        )
    with SearchDisplay(progress) as display, _terminating():
        if not collect(study).finished:
            display.note(f"{spec.name}: {check_space(study.space)}")
            display.note(f"{spec.name}: study in {study.folder}")
            corpus = _prepare(study.space, study.train_base)
            check_same_data(study, corpus)
            for line in warm_start(study, corpus.fingerprint):
                display.note(f"{spec.name}: {line}")
            if again := retry_failed(study):
                display.note(f"{spec.name}: {again} failed trials are tried again")
            tracker = _track(study, tracking)
            status = "failed"
            try:
                _Crew(study, workers, display, tracker.uri).run()
                status = "complete"
            except KeyboardInterrupt:
                status = "interrupted"
                raise
            finally:
                tracker.set_status(status)
                tracker.close()
        data = collect(study)
        display.update(data)
    return data


def _check(space: Space, train_base: Path) -> None:
    """UserError if the search cannot run. Then no study is made: the mended spec would be one of another search."""
    check_sources(space.spec)
    check_space(space)
    _prepare(space, train_base)


def _prepare(space: Space, train_base: Path) -> Corpus:
    """Tokenise once, before the workers ask for the corpus. UserError if it is too short to measure on."""
    from miniwin.data import prepare
    from miniwin.tokenizer import load_tokenizer
    from miniwin.training.validation import check_validation

    tokenizer = load_tokenizer(space.train.tokenizer, train_base)
    corpus = prepare(space.train.data, tokenizer, train_base)
    check_corpus(space.spec, space.train, corpus)
    check_test(space.spec, space.train, corpus)
    check_validation(space.train, tokenizer, corpus.texts)
    return corpus


def _track(study: Study, uri: str | None) -> Any:
    """The MLflow run whose children the trials are. A study that goes on keeps its run."""
    from miniwin.tracking import Tracker

    before = study.about["tracking"] or {}
    tracker = Tracker.open(
        uri,
        experiment=f"search/{study.spec.name}",
        run_name=study.spec.name,
        resume=before.get("run"),
        tags={"kind": "search", "study": study.about["id"]},
    )
    tracker.log_params({"search": study.spec.model_dump(mode="json")})
    study.about["tracking"] = {"uri": masked(tracker.uri) if tracker.run_id else "off", "run": tracker.run_id}
    study.write_about()
    return tracker


class _Crew:
    """The worker processes of this machine."""

    def __init__(self, study: Study, count: int, display: SearchDisplay, tracking: str = OFF) -> None:
        self.study, self.count, self.display = study, count, display
        # What a study does not keep, and its workers need.
        self.secrets = {PASSWORD: study.password} if study.password else {}
        if storage := study.about["storage"]:  # this process has opened the storage, and so may its workers
            self.secrets[NAMED] = without_password(storage)
        self.secrets |= {"MLFLOW_TRACKING_URI": tracking} if has_secret(tracking) else {}
        self.working: dict[int, subprocess.Popen[bytes]] = {}
        self.began: dict[int, int] = {}  # the offset in a worker's log where its own output begins
        self.restarts = 0
        self.gave_up: str | None = None
        self.known = last_request(study)  # no request to stop from before is for these workers
        self.stopped = False

    def run(self) -> None:
        """Run workers until each has found that nothing is left to do."""
        try:
            for number in range(self.count):
                self._start(number)
            shown = 0.0
            while self.working:
                for number, process in list(self.working.items()):
                    if process.poll() is not None:
                        del self.working[number]
                        self._ended(number, process.returncode)
                if time.monotonic() - shown >= REFRESH_SECONDS:
                    self.display.update(collect(self.study))
                    shown = time.monotonic()
                time.sleep(POLL_SECONDS)
        finally:
            self._stop()
        if self.stopped and not collect(self.study).finished:
            self.display.note(f"{self.study.spec.name}: miniwin search stop has stopped it")
            raise KeyboardInterrupt
        if self.gave_up is not None:
            raise UserError(f"the search {self.study.spec.name} ended before its budget was spent: {self.gave_up}")

    def _start(self, number: int) -> None:
        threads = max(1, _cores() // self.count)
        environment = {**os.environ, **self.secrets, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
        # A checkout that is not installed is importable here only because of the folder this process was started in.
        root = str(Path(sys.modules["miniwin"].__path__[0]).parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        if (gpu := _gpu(number)) is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        command = [sys.executable, "-m", "miniwin.search.worker", str(self.study.folder.resolve())]
        command += ["--worker-id", str(number), "--threads", str(threads), "--parent", str(os.getpid())]
        command += ["--known", self.known]
        with open(self._log(number), "ab") as log:
            self.began[number] = log.seek(0, os.SEEK_END)
            self.working[number] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                **own_group(),
            )

    def _ended(self, number: int, code: int) -> None:
        if code == worker.DONE:
            return
        if code == worker.ALL_STOPPED:  # the others have heard it too, and end by themselves
            self.stopped = True
            return
        said = _tail(self._log(number), self.began.get(number, 0))
        if code == worker.MISTAKE:
            raise UserError(said.rpartition("error: ")[2].strip())
        if code == worker.UNWRITABLE:
            reason = said.rpartition("error: ")[2].strip() or f"{self.study.folder}: could not be written"
            raise UserError(f"{reason}; nothing that was written is lost: the same command goes on")
        if code == worker.GAVE_UP:
            self.gave_up = said.rpartition("gave up: ")[2].strip()
            return
        if code > 0 and code != worker.STOPPED:
            last = next((line for line in reversed(said.splitlines()) if line.strip()), "it printed nothing")
            raise UserError(f"worker {number} failed: {last}; what it printed is in {self._log(number)}")
        self.restarts += 1
        if self.restarts > RESTARTS:
            raise UserError(
                f"workers were killed {self.restarts} times; is there enough memory for {self.count} of them? "
                "The same command goes on, with fewer --workers if you like"
            )
        self.display.note(f"worker {number} was killed ({_named(code)}); another one takes its place")
        self._start(number)

    def _stop(self) -> None:
        """Ask the remaining workers to stop, and wait for their checkpoints."""
        for process in self.working.values():
            ask_to_stop(process)
        deadline = time.monotonic() + STOP_SECONDS
        try:
            for process in self.working.values():
                process.wait(timeout=max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            pass
        finally:  # also when a second Ctrl-C ends the waiting
            for process in self.working.values():
                process.kill()
                process.wait()
            self.working.clear()

    def _log(self, number: int) -> Path:
        return self.study.folder / "logs" / f"worker-{number}.log"


@contextmanager
def _terminating() -> Iterator[None]:
    """SIGTERM is Ctrl-C while the block runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _cores() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(available, int(asked)) if asked.isdigit() and int(asked) > 0 else available


def _gpu(number: int) -> str | None:
    """The GPU of a worker: workers take turns on several GPUs. None leaves the choice to PyTorch."""
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(index) for index in range(count)]
    return names[number % count].strip() if count > 1 else None


def _tail(path: Path, start: int, size: int = 8192) -> str:
    """The end of a log, from `start` on."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(start, end - size))
        return file.read().decode(errors="replace")


def _named(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"

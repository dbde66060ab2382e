"""A worker process: takes trials from a study until there are none left.

    python -m miniwin.search.worker STUDY --worker-id 0

`miniwin search run` starts workers on its own machine. More can be started with `miniwin search worker`, on any machine
that sees the study folder, or the storage and the place for run folders.
Exit codes: 0 nothing is left to do, 2 a mistake the user can mend, 3 the search gave up, 4 the system refused something
(a full disk), 5 `miniwin search stop` asked every worker to stop, 130 this one was asked to.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from miniwin.blocks.messages.passwords import MASK, masked
from miniwin.display.console import any_console
from miniwin.files.writing import named
from miniwin.machine.processes import is_running
from miniwin.quick_imports import look_seldom
from miniwin.search.storage_url import sqlite_path
from miniwin.specs import UserError
from miniwin.training.signals import requests, stop_signals

if TYPE_CHECKING:
    from miniwin.data import Corpus
    from miniwin.search.claims import Claim
    from miniwin.search.stopping import Listening
    from miniwin.search.study import Study

DONE, MISTAKE, GAVE_UP, UNWRITABLE, ALL_STOPPED, STOPPED = 0, 2, 3, 4, 5, 130
WAIT_SECONDS = 0.5  # before the next look: another worker may die, and its trial is free then
PARENT_SECONDS = 1.0
GRACE_SECONDS = 60.0  # for the last step and the checkpoint


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m miniwin.search.worker", description="Work on a study.")
    parser.add_argument("study", help="name or folder of a study, or the URL of its storage")
    parser.add_argument("--place", default=None, help="where this machine sees the run folders of the study")
    parser.add_argument("--worker-id", default="0", help="a name for this worker, shown in leases")
    parser.add_argument("--threads", type=int, default=None, help="PyTorch threads")
    parser.add_argument("--parent", type=int, default=None, help="stop when this process, our parent, is gone")
    parser.add_argument("--known", default=None, help="id of the last request to stop that is not for this worker")
    options = parser.parse_args(arguments)
    folder = Path(masked(options.study))
    for number in stop_signals():
        signal.signal(number, _stop)
    if options.parent is not None:
        threading.Thread(target=_watch, args=(options.parent,), daemon=True).start()
    try:
        from miniwin.search.study import find_study

        with any_console():
            folder = find_study(options.study, options.place)
            return work(folder, options.worker_id, options.threads, options.known)
    except OSError as error:  # an Unwritable is one, too
        with suppress(OSError):  # the log may lie on the disk that is full
            print(f"error: {named(error, folder)}", file=sys.stderr, flush=True)
        return UNWRITABLE
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return MISTAKE
    except KeyboardInterrupt:
        return STOPPED


def work(folder: Path, worker: str, threads: int | None = None, known: str | None = None) -> int:
    """Claim trials and work on them until there are none left, or all are asked to stop. Returns the exit code.

    known: the request to stop that was there before this worker, if any.
    """
    import torch

    from miniwin.search.first_weights import prepared
    from miniwin.search.measure import check_same_data
    from miniwin.search.stopping import Listening

    if threads is not None:
        torch.set_num_threads(threads)
    study = _opened(folder)
    study.check_place()
    _, corpus = prepared(study.train, study.train_base, study.weights)
    check_same_data(study, corpus)
    with Listening(study, known) as listening:
        try:
            return _claim_and_work(study, worker, corpus, listening)
        except KeyboardInterrupt:
            if listening.heard:
                return ALL_STOPPED
            raise


def _opened(folder: Path) -> Study:
    """The study. A worker may be started while the database is restarted, and waits for it as the others do."""
    from miniwin.search.database import PATIENCE_SECONDS, StorageLost
    from miniwin.search.study import Study

    began = time.monotonic()
    while True:
        study = Study(folder)
        try:
            _ = study.optuna
            return study
        except StorageLost as error:
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise
            print(f"waiting: {error}", file=sys.stderr, flush=True)
            time.sleep(WAIT_SECONDS)


def _claim_and_work(study: Study, worker: str, corpus: Corpus, listening: Listening) -> int:
    from miniwin.search.claims import Claim, take_work
    from miniwin.search.entries import LeaseLost

    while not listening.heard:
        claim = take_work(study, worker)
        if isinstance(claim, Claim):
            try:
                _work_on(study, claim, corpus)
            except LeaseLost:
                print(f"{claim.label}: another worker took over", flush=True)
        elif claim.over:
            if claim.reason:
                print(f"gave up: {claim.reason}", file=sys.stderr, flush=True)
            return GAVE_UP if claim.reason else DONE
        else:
            time.sleep(WAIT_SECONDS)
    return ALL_STOPPED


def _work_on(study: Study, claim: Claim, corpus: Corpus) -> None:
    """Train and measure one claim. An error is its outcome: `failed`. A request to stop is no outcome."""
    from miniwin.search.claims import finish
    from miniwin.search.confirm.training import run_training
    from miniwin.search.database import StorageLost
    from miniwin.search.entries import LeaseLost
    from miniwin.search.leases import Holding
    from miniwin.search.measure import Interrupted, Tracking, run_claim
    from miniwin.search.outcome import TRAINED
    from miniwin.tracking import OFF

    about = study.about["tracking"] or {"uri": "off", "run": None}
    if study.stored and (file := sqlite_path(about["uri"])) is not None and not Path(file).is_file():
        about = {"uri": "off", "run": None}  # a file of another machine
    # A URI with a password is in the environment, not in the study.
    uri = os.environ.get("MLFLOW_TRACKING_URI", OFF) if MASK in about["uri"] else about["uri"]
    tracking = Tracking(uri, about["run"], f"search/{study.spec.name}")
    name, run = claim.label, run_training if claim.training else run_claim
    before = requests()
    with Holding(claim.entry, claim.lease, at_loss=lambda: signal.raise_signal(signal.SIGTERM)) as holding:
        print(f"{name}: {claim.candidate.model.layout} {claim.outcome.params}", flush=True)
        try:
            study.place.fetch(claim.folder)
            run(study, claim, corpus, tracking)
        except (Interrupted, KeyboardInterrupt):
            if holding.lost:
                raise LeaseLost from None
            print(f"{name}: stopped", flush=True)
            raise KeyboardInterrupt from None
        except (
            LeaseLost,
            StorageLost,
            OSError,
        ):  # no fault of the trial: its checkpoint stays, and the next attempt goes on
            raise
        except Exception as error:  # of any kind: an architecture that cannot be trained must not end the search
            traceback.print_exc()
            claim.outcome.end("failed", f"{type(error).__name__}: {error}")
        over = claim.outcome.state in TRAINED
        if claim.folder.is_dir():  # a trial without training leaves no files, unless its outcome is one
            study.place.push(claim.folder, over=over)
        holding.end()  # or it could renew what `finish` gives up
        finish(study, claim)
        holding.given_up = study.stored  # by `finish`
        if over:
            study.place.forget(claim.folder)
        print(f"{name}: {claim.outcome.state} {claim.outcome.reason or ''} {claim.outcome.values}", flush=True)
    if requests() != before:  # it came when the training was ending anyway
        raise KeyboardInterrupt


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _watch(parent: int) -> None:
    """Stop this worker, as if asked to, once its parent is gone."""
    while os.getppid() == parent and is_running(parent):  # on Windows a dead parent stays the parent
        time.sleep(PARENT_SECONDS)
    signal.raise_signal(signal.SIGTERM)  # not os.kill, which ends the process at once on Windows
    time.sleep(GRACE_SECONDS)
    os._exit(STOPPED)


if __name__ == "__main__":
    look_seldom()
    sys.exit(main())

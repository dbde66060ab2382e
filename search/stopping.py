"""A request to stop, which every worker of a study hears, whatever machine it is on.

The request is an attribute of the Optuna study: whoever sees the storage sees the request. Each request has an id. A
worker knows the id that stood there when its search was started, and stops once there is another. So a request is for
the workers of its own time. The next run takes the old id for granted, and nobody has to take the request back.
"""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miniwin.blocks.messages.escaping import escaped_line
from miniwin.search.entries import LEASE
from miniwin.search.leases import Lease, lease_of, live, read_lease
from miniwin.search.study import Study, find_study

if TYPE_CHECKING:
    from types import TracebackType

STOP = "miniwin_stop"  # attribute of the Optuna study: the last request
NEVER = "never"  # in place of an id
LISTEN_SECONDS = 1.0
WAIT_SECONDS = 0.5


def stop_search(
    study: str | Path,
    *,
    finish: bool = False,
    wait: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Lease]:
    """Ask every worker of a study to stop, and wait until none holds a trial. Each writes a checkpoint first.

    study: its folder or its name. finish: workers end the trials that they hold, and take no others. wait: if not,
    return at once. say: called with a line when there is something to tell. Returns who held which trial.

    Raises:
        UserError: there is no such study, it has not begun, or its storage cannot be written to.
    """
    opened = Study(find_study(study))
    holders = at_work(opened)
    opened.optuna.set_user_attr(STOP, {"id": uuid.uuid4().hex, "finish": finish, "at": time.time()})
    for trial, lease in holders.items():
        say(f"asked to stop{' after it' if finish else ''}: {_described(trial, lease)}")
    left = holders
    while wait and left:
        time.sleep(WAIT_SECONDS)
        left = at_work(opened)
    return holders


def at_work(study: Study) -> dict[str, Lease]:
    """Who holds which trial of a study, by `trial 3`, `baseline`, or `confirm-` and a hash."""
    found = _stored_leases(study) if study.stored else _leases_in(study.folder / "leases")
    return {
        f"trial {name}" if name.isdigit() else name: lease
        for name in sorted(found, key=_order)
        if (lease := live(found[name])) is not None
    }


def _leases_in(folder: Path) -> dict[str, Lease | None]:
    return {path.stem: read_lease(path) for path in folder.glob("*.json")}


def _stored_leases(study: Study) -> dict[str, Lease | None]:
    of_trials = study.optuna.get_trials(deepcopy=False)
    found = {str(one.number): study.lease_seen(one) for one in of_trials if not one.state.is_finished()}
    others = study.optuna.user_attrs.items()
    return {
        **found,
        **{name.removeprefix(f"{LEASE}:"): lease_of(said) for name, said in others if name.startswith(f"{LEASE}:")},
    }


def last_request(study: Study) -> str:
    """The id of the last request to stop, or NEVER."""
    return str(_request(study).get("id", NEVER))


class Listening:
    """Hears a request to stop while the block runs: then `heard` is true, and unless the trial in hand is to be ended
    first, this process gets SIGTERM. known: the id of a request that is not for this worker."""

    def __init__(self, study: Study, known: str | None = None) -> None:
        self.heard = False
        self._study = study
        self._known = last_request(study) if known is None else known
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="listening", daemon=True)

    def __enter__(self) -> Listening:
        self.heard = last_request(self._study) != self._known  # it came while this process was starting
        if not self.heard:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()

    def _listen(self) -> None:
        while not self._over.wait(LISTEN_SECONDS):
            request: Mapping[str, Any] = {}
            with suppress(Exception):  # a storage that is away is the business of whoever works with it
                request = _request(self._study)
            if request.get("id", self._known) != self._known:
                self._known, self.heard = str(request["id"]), True
                if not request.get("finish") and not self._over.is_set():
                    signal.raise_signal(signal.SIGTERM)  # not os.kill, which ends the process at once on Windows
                    return


def _request(study: Study) -> Mapping[str, Any]:
    request = study.optuna.user_attrs.get(STOP)
    return request if isinstance(request, dict) else {}


def _order(name: str) -> tuple[int, str]:
    return int(name) if name.isdigit() else -1, name


def _described(trial: str, lease: Lease) -> str:
    return f"{trial}, worker {escaped_line(str(lease.worker))} ({escaped_line(lease.host)}, process {lease.pid})"

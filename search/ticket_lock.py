"""A lock for a storage of which only Optuna's own calls are known: a proxy, Redis, MySQL.

A second study, `NAME (lock)`, has a trial for each time that the lock was asked for: a ticket. Optuna numbers trials
without gaps and one after the other. The ticket with the lowest number that is not over holds the lock, and its holder
ends it. A ticket says who drew it, as a lease does. Anyone ends the ticket of a process that is gone.
"""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from miniwin.search.leases import RENEW_SECONDS, STALE_SECONDS, Lease, lease_of
from miniwin.search.locks import LockInServer, LockLost

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

FIRST_WAIT, LONGEST_WAIT = 0.01, 0.2
HOLDER = "holder"


class TicketLock(LockInServer):
    """name: of the study that is locked."""

    def __init__(self, storage: BaseStorage, name: str) -> None:
        super().__init__()
        self._storage, self._name = storage, f"{name} (lock)"
        self._study: int | None = None
        self._threads = threading.local()

    def take(self) -> None:
        wait = FIRST_WAIT
        try:
            self._draw()
            while (ahead := self._ahead()) is not None:
                self._end_dead(ahead)
                self.check()
                time.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
        except BaseException:
            with suppress(Exception):
                self.give_back()  # a ticket of a living process keeps all others waiting
            raise

    def check(self) -> None:
        """Renew the ticket, if that is due. A ticket that others have ended, or may have, is lost."""
        asleep = time.monotonic() - self._mine.renewed
        if asleep > STALE_SECONDS:
            raise LockLost
        if asleep > RENEW_SECONDS:
            self._renew()

    def give_back(self) -> None:
        from optuna.trial import TrialState

        for ticket in self._waiting():
            if self._is_mine(ticket):
                self._end(ticket._trial_id, TrialState.PRUNED)

    def _draw(self) -> None:
        """Make a ticket. Where the answer of the storage was lost, and it was asked again, there are two: the first
        counts."""
        from optuna.trial import TrialState, create_trial

        self._mine.renewed = time.monotonic()
        made = create_trial(state=TrialState.RUNNING, user_attrs={HOLDER: self._holder()})
        self._mine.ticket = self._storage.create_new_trial(self._study_id(), made)

    def _ahead(self) -> list[FrozenTrial] | None:
        """The tickets before this thread's own; None if there are none."""
        waiting = self._waiting()
        mine = next((one for one in waiting if self._is_mine(one)), None)
        if mine is None:
            raise LockLost  # ended by others, who took this process for dead
        self._mine.ticket = mine._trial_id
        return [one for one in waiting if one.number < mine.number] or None

    def _end_dead(self, tickets: list[FrozenTrial]) -> None:
        from optuna.trial import TrialState

        for ticket in tickets:
            said = dict(ticket.user_attrs.get(HOLDER) or {})
            said.pop("thread", None)
            lease = lease_of(said)
            if lease is None or not lease.alive():
                self._end(ticket._trial_id, TrialState.FAIL)

    def _renew(self) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        began = time.monotonic()
        try:
            self._storage.set_trial_user_attr(self._mine.ticket, HOLDER, self._holder())
        except UpdateFinishedTrialError:
            raise LockLost from None
        self._mine.renewed = began

    def _end(self, ticket: int, state: Any) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_state_values(ticket, state)

    def _waiting(self) -> list[FrozenTrial]:
        from optuna.trial import TrialState

        return self._storage.get_all_trials(self._study_id(), deepcopy=False, states=(TrialState.RUNNING,))

    def _holder(self) -> dict[str, Any]:
        if not hasattr(self._threads, "id"):
            self._threads.id = uuid.uuid4().hex
            self._threads.lease = Lease.mine("lock")
        return {**asdict(replace(self._threads.lease, heartbeat=time.time())), "thread": self._threads.id}

    def _is_mine(self, ticket: FrozenTrial) -> bool:
        return bool((ticket.user_attrs.get(HOLDER) or {}).get("thread") == self._threads.id)

    def _study_id(self) -> int:
        from optuna.exceptions import DuplicatedStudyError
        from optuna.study import StudyDirection

        if self._study is None:
            with suppress(DuplicatedStudyError):
                self._storage.create_new_study([StudyDirection.MINIMIZE], self._name)
            self._study = self._storage.get_study_id_from_name(self._name)
        return self._study

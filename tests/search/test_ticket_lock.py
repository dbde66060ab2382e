"""The lock that is made of tickets, in any storage; and a study behind a gRPC proxy, which has only that lock."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from halving_helpers import claimed
from optuna.trial import TrialState
from search_helpers import make, tried, write_search

from miniwin.search import ticket_lock
from miniwin.search.creation import create_study
from miniwin.search.leases import Lease
from miniwin.search.locks import LockLost, check_held, under
from miniwin.search.records import collect
from miniwin.search.stopping import at_work
from miniwin.search.study import Study, find_study
from miniwin.search.ticket_lock import HOLDER, TicketLock
from miniwin.specs import UserError, load_search_spec


@pytest.fixture
def storage() -> optuna.storages.BaseStorage:
    return optuna.storages.InMemoryStorage()


def tickets(storage: optuna.storages.BaseStorage, *states: TrialState) -> list[optuna.trial.FrozenTrial]:
    number = storage.get_study_id_from_name("small (lock)")
    return storage.get_all_trials(number, states=states or None)


def drawn(storage: optuna.storages.BaseStorage, lease: Lease) -> int:
    """A ticket that somebody else has drawn."""
    lock = TicketLock(storage, "small")
    said = {**vars(lease), "thread": "another"}
    made = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs={HOLDER: said})
    return storage.create_new_trial(lock._study_id(), made)


def test_one_holds_it_at_a_time_and_may_take_it_again(storage: optuna.storages.BaseStorage) -> None:
    inside, most, done = [0], [0], []

    def work() -> None:
        lock = TicketLock(storage, "small")
        for _ in range(5):
            with lock, lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.001)
                inside[0] -= 1
                done.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and len(done) == 20 and not tickets(storage, TrialState.RUNNING)


def test_the_ticket_of_the_dead_is_ended_and_that_of_the_living_is_waited_for(
    storage: optuna.storages.BaseStorage,
) -> None:
    mine = Lease.mine("lock")
    dead = [
        drawn(storage, replace(mine, started=-1)),  # this host's, and its process is gone
        drawn(storage, replace(mine, host="another", heartbeat=time.time() - 121)),
    ]
    with TicketLock(storage, "small"):
        assert [storage.get_trial(ticket).state for ticket in dead] == [TrialState.FAIL] * 2
    living = drawn(storage, replace(mine, host="another", heartbeat=time.time() - 60))
    entered = threading.Event()

    def enter() -> None:
        with TicketLock(storage, "small"):
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    assert not entered.wait(0.3)
    storage.set_trial_state_values(living, TrialState.PRUNED)
    assert entered.wait(60)
    thread.join()


def test_a_lock_that_others_took_back_lets_nothing_be_written(
    storage: optuna.storages.BaseStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, tries = TicketLock(storage, "small"), []

    def work() -> int:
        tries.append(1)
        if len(tries) == 1:
            (ticket,) = tickets(storage, TrialState.RUNNING)
            storage.set_trial_state_values(ticket._trial_id, TrialState.FAIL)
            monkeypatch.setattr(ticket_lock, "RENEW_SECONDS", -1.0)  # it is time to renew it
        check_held()
        return len(tries)

    assert under(lock, work) == 2
    monkeypatch.setattr(ticket_lock, "STALE_SECONDS", -1.0)  # as if this process had slept
    with pytest.raises(LockLost), lock:
        check_held()
    assert not tickets(storage, TrialState.RUNNING)


def test_a_ticket_that_was_drawn_twice_is_one(storage: optuna.storages.BaseStorage) -> None:
    """The answer of the storage was lost, and the call was made again."""
    create = storage.create_new_trial
    storage.create_new_trial = lambda *given: [create(*given), create(*given)][1]  # type: ignore[method-assign]
    with TicketLock(storage, "small"):
        assert len(tickets(storage, TrialState.RUNNING)) == 2
    assert not tickets(storage, TrialState.RUNNING)


# -- a proxy


class Proxy:
    """A server of Optuna's proxy, before an SQLite file."""

    def __init__(self, folder: Path) -> None:
        self.storage = optuna.storages.get_storage(f"sqlite:///{folder}/behind.db")
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"grpc://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        from optuna.storages._grpc.server import make_server

        self.server: Any = make_server(self.storage, "127.0.0.1", self.port)
        self.server.start()

    def stop(self) -> None:
        self.server.stop(0).wait()


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    pytest.importorskip("grpc")
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    running = Proxy(tmp_path)
    yield running
    running.stop()


def test_a_study_behind_a_proxy(proxy: Proxy, tmp_path: Path) -> None:
    one = make(tmp_path, proxy.url, constraints=[])
    two = Study(find_study(f"{proxy.url}#small"))
    tried(one)
    tried(two)
    held = claimed(two)
    assert list(at_work(one)) == [f"trial {held.number}"]
    assert [trial.state for trial in collect(one).trials] == ["complete", "complete", "running"]
    later = threading.Timer(0.5, proxy.start)
    proxy.stop()
    later.start()
    held.entry.let_go()  # it waits for the proxy
    later.join()
    assert claimed(one).number == held.number
    spec = load_search_spec(write_search(tmp_path, baseline=None, constraints=[]))
    with pytest.raises(UserError, match="already has a study named 'small'"):
        create_study(spec, tmp_path, out=tmp_path / "other", storage=proxy.url)
    assert [one.study_name for one in one.storage.get_all_studies()] == ["small", "small (lock)"]


def test_a_proxy_that_is_not_there_or_not_named_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from miniwin.search import database

    monkeypatch.setattr(database, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    for url in ("grpc://host", "grpc://me:secret-word@host:1", "grpc://host:port"):
        with pytest.raises(UserError, match=r"expected grpc://host:port of Optuna's proxy") as caught:
            make(tmp_path, url)
        assert "secret-word" not in str(caught.value)
    pytest.importorskip("grpc")
    with pytest.raises(UserError, match=r"grpc://127.0.0.1:1 does not answer: .*"):
        make(tmp_path, "grpc://127.0.0.1:1")
    assert not (tmp_path / "study").exists()

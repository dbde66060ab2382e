"""Importing without looking for garbage: what the collector does meanwhile and afterwards."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest

from miniwin.quick_imports import nothing_is_garbage


class Ring:
    """An object that only the collector can remove."""

    def __init__(self) -> None:
        self.ring = self


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """What is frozen, such as by conftest.py, is thawed and frozen again."""
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    gc.unfreeze()
    yield
    gc.enable()
    gc.set_threshold(*before)
    if frozen:
        gc.freeze()


def test_garbage_stays_while_the_block_runs_and_goes_later() -> None:
    gc.set_threshold(50)
    with nothing_is_garbage():
        ring = weakref.ref(Ring())
        many = [[] for _ in range(1000)]
        assert ring() is not None and not gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count() == 0
    gc.collect(1)
    assert ring() is not None, "what came in the block is old, and looked at with the old"
    gc.collect()
    assert ring() is None and len(many) == 1000


def test_an_error_of_the_import_leaves_the_collector_on() -> None:
    with pytest.raises(ImportError), nothing_is_garbage():
        raise ImportError
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off() -> None:
    gc.disable()
    with nothing_is_garbage():
        pass
    assert not gc.isenabled()


def test_what_somebody_froze_stays_frozen() -> None:
    gc.freeze()
    count = gc.get_freeze_count()
    with nothing_is_garbage():
        pass
    assert gc.get_freeze_count() > 0.9 * count > 0, "a few that were frozen may have died since"


def test_a_process_of_ours_does_not_look_at_its_end() -> None:
    """The last collection of a process would be one of everything. What is registered for the exit still runs."""
    code = (
        "import atexit, gc\n"
        "gc.callbacks.append(lambda phase, info: seen.append(gc.get_freeze_count()))\n"
        "seen = []\n"
        "atexit.register(lambda: (gc.collect(), print(seen[-1] > 1000)))\n"
        "from miniwin.quick_imports import look_seldom\n"
        "look_seldom()\n"
        "atexit.register(print, 'registered later, runs first')\n"
        "print(gc.get_threshold()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["20000", "registered later, runs first", "True"], done.stderr

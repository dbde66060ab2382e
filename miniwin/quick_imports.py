"""Importing and ending without looking for garbage.

PyTorch brings a million objects, and none of them is garbage. While they come, Python's collector looks through all of
them three times, and through the young ones hundreds of times: a quarter of the time that loading a small model takes.
When a process ends it looks through all of them again, for longer.
"""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

FEWER_LOOKS = 20_000  # new objects between two looks; Python's own number is 700 or 2,000


@contextmanager
def nothing_is_garbage() -> Iterator[None]:
    """While the block runs, nothing is collected. What it made counts as old afterwards, as if it had been looked at.

    A collector that somebody else has switched off, or told to leave objects alone, stays as it is.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count() == 0:
            gc.freeze()  # all objects go to a place of their own, and from there
            gc.unfreeze()  # to the oldest generation
        gc.enable()


def look_seldom() -> None:
    """For a process that is all ours: look for garbage less often, and not at all at the end."""
    gc.set_threshold(FEWER_LOOKS)
    atexit.register(gc.freeze)

"""States of conversations, kept in memory between requests, so that what was read is not read again.

A state is a cache and the ids that it holds. A request whose ids begin with those goes on from there:

    at the end of what the state holds      always
    before the answer (its mark)            always: a mark holds what the answer overwrote in the rings
    anywhere                                where every layer keeps every token: a ring has lost what was written over

At least one id of the prompt is always computed, since the next token is drawn from its logits. Going on from the end
takes the state; from elsewhere, a copy of it. The states used longest ago go to disk when memory is full.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from miniwin.blocks import Cache
from miniwin.blocks.cache import GrowingCache, storage
from miniwin.blocks.cache.rollback import Mark
from miniwin.serving.disk import DiskStates, common


class State:
    """ids (N,) int32: what the cache holds. nbytes: of memory, with room that is not used yet."""

    def __init__(self, ids: np.ndarray, cache: Cache, mark: Mark | None = None) -> None:
        self.ids, self.cache, self.mark = ids, cache, mark
        stored = [t for part in cache.parts for t in part.stored]
        self.nbytes = ids.nbytes + sum(t.untyped_storage().nbytes() for t in stored)
        self.nbytes += 0 if mark is None else mark.nbytes
        self.keeps_all = all(isinstance(part, GrowingCache) for part in cache.parts)


class KeptStates:
    """`put` keeps a state, `take` finds one to go on from. Belongs to the thread of a model."""

    def __init__(self, memory: int, disk: DiskStates | None = None) -> None:
        self.memory, self.disk = memory, disk
        self.states: list[State] = []  # the one used last is the last

    @property
    def nbytes(self) -> int:
        return sum(state.nbytes for state in self.states)

    def take(self, ids: Sequence[int]) -> Cache | None:
        """A cache that holds the longest known beginning of the ids, but not all of them."""
        wanted = np.array(ids, dtype=np.int32)
        best, length = None, 0
        for state in self.states:
            usable = _usable(state, wanted)
            if usable > length:
                best, length = state, usable
        if self.disk is not None:
            found = self.disk.longest(wanted, length)
            if found is not None and (cache := self.disk.read(found)) is not None:
                return cache
        if best is None:
            return None
        self.states.remove(best)
        if length == len(best.ids):
            return best.cache
        self.states.append(best)
        return _copy(best, length)

    def put(self, ids: Sequence[int], cache: Cache, mark: Mark | None) -> None:
        """Keep the state of a cache that holds these ids."""
        if cache.halfway or cache.length == 0:
            return
        for part in cache.parts:
            _trim(part)
        state = State(np.array(ids[: cache.length], dtype=np.int32), cache, mark)
        same = [one for one in self.states if np.array_equal(one.ids, state.ids)]
        self.states = [one for one in self.states if one not in same] + [state]
        over = self.nbytes - self.memory
        while self.states and over > 0:
            over -= self.states[0].nbytes
            self._write(self.states.pop(0))

    def close(self) -> None:
        """Write every state to disk."""
        for state in self.states:  # the one used last is the last to be written, and the last to be dropped
            self._write(state)
        self.states = []

    def _write(self, state: State) -> None:
        if self.disk is not None:
            self.disk.write(state.ids, state.cache)


def _usable(state: State, wanted: np.ndarray) -> int:
    """How many of the wanted ids, from the first on, the state gives."""
    same = min(common(state.ids, wanted), len(wanted) - 1)
    if same == len(state.ids) or state.keeps_all:
        return same
    return state.mark.length if state.mark is not None and state.mark.length <= same else 0


def _copy(state: State, length: int) -> Cache:
    """A copy of the cache that holds the first `length` ids only."""
    cache = state.cache.clone()
    if state.mark is not None and state.mark.length == length:
        mark = copy.copy(state.mark)
        mark.cache = cache
        mark.rollback()
    else:
        cache.set_length(length)
    return cache


def _trim(part: object) -> None:
    """Give back the room of a growing cache that is not used."""
    if isinstance(part, GrowingCache) and part.capacity > part.length + part.length // 4:
        for i, old in enumerate(part.stored):
            part.stored[i] = storage(old[:, :0], part.length)
            part.stored[i][:] = old[:, : part.length]

"""Attention dispatch: which backend answers a call.

The order below is the preference; the first backend that does not decline runs. A backend forced by name that cannot
honour the call is refused with its reason, never used anyway, and never quietly replaced. A new backend is one module
with `NAME`, `declines(call) -> reason | None` and `run(call)`, and one entry in `BACKENDS`. It names the features that
it honours and declines the rest (`call.beyond`), those too that are added to AttentionCall later.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType

from torch import Tensor

from miniwin.blocks.attention_ops import (
    block_local,
    by_document,
    cpu_banded,
    cpu_causal,
    cpu_chunked,
    cpu_native,
    flex,
    reference,
    sdpa,
    tiled,
    xformers,
)
from miniwin.blocks.attention_ops.call import AttentionCall
from miniwin.blocks.registry import near
from miniwin.blocks.spec import UserError

BACKENDS: tuple[ModuleType, ...] = (
    xformers,
    by_document,
    cpu_native,
    cpu_banded,
    cpu_causal,
    cpu_chunked,
    block_local,
    flex,
    sdpa,
    tiled,
    reference,
)

LARGE_MASK = 1 << 26  # numbers: 256 MiB in float32

FORCED = "MINIWIN_ATTENTION"  # in the environment: the backend to use, as by `use_backend`

_forced: ContextVar[str | None] = ContextVar("attention_backend", default=os.environ.get(FORCED) or None)


def choose(call: AttentionCall) -> ModuleType:
    """The backend that answers this call."""
    forced = _forced.get()
    if forced is None:
        for backend in BACKENDS:
            if backend.declines(call) is None and ill_suited(backend, call) is None:
                return backend
        raise UserError(f"no attention backend can answer this call: {reference.declines(call)}")
    backend = _by_name(forced)
    reason = backend.declines(call)
    if reason is not None:
        raise UserError(f"attention backend '{forced}' cannot answer this call: {reason}")
    return backend


def may_use(backend: ModuleType) -> bool:
    """Whether nobody has forced another one."""
    return _forced.get() in (None, backend.NAME)


def steps_by_sdpa(call: AttentionCall) -> bool:
    """Whether `choose` gives sdpa for the one query of a decoding step. Asked at every token, so by a short way."""
    return (call.q.device.type == "cpu" and _forced.get() is None) or choose(call) is sdpa


def ill_suited(backend: ModuleType, call: AttentionCall) -> str | None:
    """Why a later backend will do better than this one, which could; `tiled` is able wherever any is."""
    if call.q.shape[1] == 1 and backend in (cpu_banded, cpu_causal, cpu_chunked, block_local, flex):
        return "one query needs no cutting up: its window is already cut out of the keys"
    if backend is xformers and call.q.shape[1] == 1 and call.pad is not None and call.q.dtype not in xformers.FLASH:
        return "its float32 kernel has padding packed away: a copy of the cache for one query"
    if backend is xformers and call.k.dtype != call.q.dtype:  # as a cache stores them
        return f"it would have a cache in {call.k.dtype} widened whole; sdpa reads it as it is, or a part at a time"
    if backend is cpu_native and not cpu_native.gains(call):
        return "on a global layer in bfloat16 torch's products are faster, but for training"
    if backend is cpu_causal and not cpu_causal.gains(call):
        return "it gains in training in bfloat16, with narrow heads; sdpa does the rest as well"
    if backend is flex and call.q.device.type == "cpu":
        return "on a CPU it must be asked for: it takes seconds to compile"
    if backend is flex and sdpa.declines(call) is None and sdpa.mask_size(call) == 0:
        return "sdpa needs no mask for it"
    if backend is sdpa and sdpa.mask_size(call) > LARGE_MASK:
        return f"its mask would have {sdpa.mask_size(call):,} numbers"
    return None


def attend(call: AttentionCall) -> Tensor:
    """Attention of q (B, N, H, Dk) over k (B, M, Hkv, Dk) and v (B, M, Hkv, Dv) -> (B, N, H, Dv)."""
    backend = choose(call)
    if backend is by_document:
        with use_backend(None):
            return by_document.join(call, [attend(part) for part in by_document.split(call)])
    return backend.run(call)  # type: ignore[no-any-return]


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Force a backend by name inside the block; None leaves the choice to the dispatch.

    Raises:
        UserError: nobody has that name, or (on the call itself) the backend cannot honour it.
    """
    if name is not None:
        _by_name(name)
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def _by_name(name: str) -> ModuleType:
    known = {b.NAME: b for b in BACKENDS}
    if name not in known:
        raise UserError(f"unknown attention backend '{name}': {near(name, list(known))}")
    return known[name]

"""Attention dispatch: choose the backend that answers a call.

`BACKENDS` is in order of preference. The first backend that neither declines the call nor is ill suited to it runs. A
backend may be forced by name. If it declines the call, its reason is raised as an error: no other backend takes over. A
new backend is one module with `NAME` and three functions, and one entry in `BACKENDS`:

    declines(call) -> reason | None     why the backend cannot answer. It lists the features that it honours and
                                        declines all others (`call.beyond`), also those added to AttentionCall later
    ill_suited(call) -> reason | None   why a later backend does better, though this one could answer
    run(call) -> answer
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
from miniwin.blocks.messages.nearest import near
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

FORCED = "MINIWIN_ATTENTION"  # in the environment: the backend to use, as by `use_backend`

_forced: ContextVar[str | None] = ContextVar("attention_backend", default=os.environ.get(FORCED) or None)


def choose(call: AttentionCall) -> ModuleType:
    """The backend that answers this call.

    Raises:
        UserError: the forced backend declines the call or does not exist, or all backends decline.
    """
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
    """Whether no other backend is forced."""
    return _forced.get() in (None, backend.NAME)


def steps_by_sdpa(call: AttentionCall) -> bool:
    """Whether `choose` gives sdpa for the one query of a decoding step. A shortcut, as it is asked for every token."""
    return (call.q.device.type == "cpu" and _forced.get() is None) or choose(call) is sdpa


def ill_suited(backend: ModuleType, call: AttentionCall) -> str | None:
    """Why a later backend does better than this one, though this one could answer; None if none does."""
    return backend.ill_suited(call)  # type: ignore[no-any-return]


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
        UserError: no backend has this name. A call inside the block also raises it if the backend declines the call.
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

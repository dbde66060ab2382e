"""Attention dispatch: which backend answers a call.

The order below is the preference; the first backend that neither declines the call nor is ill suited to it runs. A
backend forced by name that cannot honour the call is refused with its reason, never used anyway, and never quietly
replaced. A new backend is one module with `NAME` and three functions, and one entry in `BACKENDS`:

    declines(call) -> reason | None     it names the features that it honours and declines the rest (`call.beyond`),
                                        those too that are added to AttentionCall later
    ill_suited(call) -> reason | None   why a later backend does better, where this one could answer
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
    """Why a later backend will do better than this one, which could answer."""
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

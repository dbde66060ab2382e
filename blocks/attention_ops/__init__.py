"""Attention dispatch: which backend answers a call.

The order below is the preference; the first backend that does not decline runs. A backend forced by name that cannot
honour the call is refused with its reason, never used anyway, and never quietly replaced. A new backend is one module
with `NAME`, `declines(call) -> reason | None` and `run(call)`, and one entry in `BACKENDS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType

from torch import Tensor

from miniwin.blocks.attention_ops import cpu_banded, cpu_chunked, reference, sdpa, xformers
from miniwin.blocks.attention_ops.call import AttentionCall
from miniwin.blocks.registry import near
from miniwin.blocks.spec import UserError

BACKENDS: tuple[ModuleType, ...] = (xformers, cpu_banded, cpu_chunked, sdpa, reference)

_forced: ContextVar[str | None] = ContextVar("attention_backend", default=None)


def choose(call: AttentionCall) -> ModuleType:
    """The backend that answers this call."""
    forced = _forced.get()
    if forced is None:
        # One query needs no tiles: the window is already cut out of the keys.
        if call.q.shape[1] == 1 and call.q.device.type == "cpu":
            return sdpa
        return next(b for b in BACKENDS if b.declines(call) is None)
    backend = _by_name(forced)
    reason = backend.declines(call)
    if reason is not None:
        raise UserError(f"attention backend '{forced}' cannot answer this call: {reason}")
    return backend


def attend(call: AttentionCall) -> Tensor:
    """Attention of q (B, N, H, D) over k, v (B, M, Hkv, D) -> (B, N, H, D)."""
    return choose(call).run(call)  # type: ignore[no-any-return]


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


__all__ = ["BACKENDS", "AttentionCall", "attend", "choose", "use_backend"]

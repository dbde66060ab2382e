"""Decoding on a CPU for several contexts, each with a cache of its own: one new token for each of them in one step.

Reading the weights takes most of a step, and they are read once for all contexts. Nothing is padded or copied: contexts
of any lengths go together, and may join or leave between two steps. The step computes what `NativeStep` does
(blocks/native/step.c has the equations), kernel by kernel, because the attention of each context reads another cache.
The arguments of the kernels are made once for each number of contexts: making them takes longer than a call.

Shapes: R contexts, C hidden_size, V vocabulary.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from miniwin.blocks import native
from miniwin.blocks.cache import Cache, LayerCache
from miniwin.blocks.decode.native_step import NativeStep
from miniwin.blocks.decode.native_step import declines as not_in_one_call
from miniwin.blocks.decoder import Decoder
from miniwin.blocks.int8.weight import FEW
from miniwin.blocks.native import attention as kernels
from miniwin.blocks.positions.base import Positions
from miniwin.blocks.positions.rope import Rope

MOST = FEW  # contexts in one step
SHORT = 1 << 16  # numbers in the keys of a context: up to here one thread is the fastest
FLOAT = native.CODES[torch.float32]

_Whole, _Address = ctypes.c_int64, ctypes.c_void_p
Call = tuple[str, tuple[Any, ...]]  # a kernel and its arguments


class RowsStep:
    """Advances warm caches of one row each: `step(ids, caches)` -> logits (R, V) float32.

    The kernels hold the addresses of the weights, so the model must not change meanwhile.
    """

    def __init__(self, decoder: Decoder, like: Cache) -> None:
        """like: a cache of the kind that will be stepped, of one row."""
        reason = declines(decoder, like)
        assert reason is None, reason
        self.decoder = decoder
        self._weights = NativeStep(decoder, like)  # it has the structures of the weights
        self._programs: dict[int, _Program] = {}
        self._held: dict[int, list[_Held]] = {}  # of the caches of the last step, by their id
        self._caches: list[Cache] = []

    @torch.no_grad()
    def step(self, ids: Sequence[int], caches: Sequence[Cache]) -> Tensor:
        """ids: the new token of each context. caches: of one row each, without padding."""
        rows = len(ids)
        if rows not in self._programs:
            self._programs[rows] = _Program(self.decoder, self._weights, rows)
        if list(map(id, caches)) != list(map(id, self._caches)):
            known = self._held
            self._held = {id(one): known.get(id(one)) or [_Held(layer) for layer in one.layers] for one in caches}
            self._caches = list(caches)  # kept, so that no other cache gets the id of one of them
        lengths = [cache.length for cache in caches]
        where = Positions(torch.tensor(lengths).unsqueeze(1))  # (R, 1)
        h = self.decoder.embed(torch.tensor(list(ids)).unsqueeze(1))[:, 0]  # (R, C)
        logits = self._programs[rows].run(h, where, max(lengths) + 1, [self._held[id(cache)] for cache in caches])
        for cache in caches:
            cache.length += 1  # last: an interrupted step leaves layers that are longer than the cache, which shows
        return self.decoder.shaped(logits)


class _Held:
    """The cache of a layer of one context, and the call of the kernel that reads it."""

    def __init__(self, part: LayerCache) -> None:
        self.part = part
        self.keys: Tensor | None = None
        self.call = kernels._Call(batch=1, queries=1, q_type=FLOAT, kv_type=FLOAT)
        self.arguments = (ctypes.byref(self.call),)

    def take(self, k: Any, v: Any, layer: _Layer, q: int, out: int) -> None:
        """Add a token's key and value (Hkv, D), and attend. q, out: the addresses of (H, D) floats."""
        part, call, one = self.part, self.call, layer.one
        slot = part.slot(part.length)
        part.claim(1)
        if part.stored[0] is not self.keys:  # the first time, or when it has grown
            self.keys, values = part.stored
            self.k, self.v = self.keys.numpy()[0], values.numpy()[0]
            call.heads, call.kv_heads, call.dim, call.scale = one.heads, one.kv_heads, one.dim, one.score_scale
            call.q_stride[:] = one.heads * one.dim, one.heads * one.dim, one.dim
            call.k_stride[:], call.v_stride[:] = self.keys.stride()[:3], values.stride()[:3]
            call.k, call.v = self.keys.data_ptr(), values.data_ptr()
        self.k[slot], self.v[slot] = k, v
        entries = part.entries
        call.keys = call.window = entries
        call.threads = 1 if entries * layer.narrow <= SHORT else layer.threads
        call.q, call.out = q, out
        native.run("miniwin_attention_forward", *self.arguments)


class _Layer:
    """The calls of one layer, before and after attention, and the buffers between them."""

    def __init__(self, module: Any, one: Any, buffers: _Buffers) -> None:
        self.one, self.attention, self.threads = one, module.attention, torch.get_num_threads()
        rows, self.wide, self.narrow = buffers.rows, one.heads * one.dim, one.kv_heads * one.dim
        self.q, self.k, self.v = (buffers.new(n) for n in (self.wide, self.narrow, self.narrow))
        self.out, gate, up = buffers.new(self.wide), buffers.new(one.gate.outs), buffers.new(one.gate.outs)
        self.new_k, self.new_v = (t.view(rows, one.kv_heads, one.dim).numpy() for t in (self.k, self.v))
        x, self.before = buffers.normed(one.attention_norm)
        self.before += [buffers.product(x, w, t) for w, t in ((one.q, self.q), (one.k, self.k), (one.v, self.v))]
        for t, norm, heads in ((self.q, one.q_norm, one.heads), (self.k, one.k_norm, one.kv_heads)):
            self.before += buffers.norm(norm, t, t, rows * heads, one.dim)
        self.cos, self.sin, self.step = _Address(), _Address(), _Whole()
        self.turns: list[Call] = []
        if isinstance(self.attention.position, Rope):
            self.half = _Whole()
            for t, heads in ((self.q, one.heads), (self.k, one.kv_heads)):
                strides = (_Whole * 3)(heads * one.dim, heads * one.dim, one.dim)
                shape = [_Whole(number) for number in (rows, 1, heads, one.dim)]
                more = _at(t), *shape, self.half, ctypes.c_float(1.0), buffers.threads
                self.turns.append(
                    ("miniwin_rotate", (_at(t), _Whole(FLOAT), strides, self.cos, self.sin, self.step, *more))
                )
        self.after = buffers.onto(self.out, one.o, one.attention_post_norm)
        x, calls = buffers.normed(one.mlp_norm)
        self.after += [*calls, buffers.product(x, one.gate, gate), buffers.product(x, one.up, up)]
        sizes = _Whole(FLOAT), _Whole(gate.numel()), buffers.threads
        self.after.append(("miniwin_swiglu", (_at(gate), _at(up), _at(gate), *sizes)))
        self.after += buffers.onto(gate, one.down, one.mlp_post_norm)

    def run(self, where: Positions, total: int, held: Sequence[_Held]) -> None:
        _run(self.before)
        if self.turns:
            cos, sin = self.attention.position.shared(where, torch.float32)  # (R or 1, 1, K)
            self.cos.value, self.sin.value, self.half.value = cos.data_ptr(), sin.data_ptr(), cos.shape[-1]
            self.step.value = 0 if len(cos) == 1 else cos.shape[-1]
            _run(self.turns)
        scale = self.attention.query_scale(where.index, total)
        if scale is not None:  # (R, 1, H or 1, 1)
            self.q.view(len(held), self.one.heads, -1).mul_(scale.to(torch.float32)[:, 0])
        q, out = self.q.data_ptr(), self.out.data_ptr()
        for row, one in enumerate(held):
            at = 4 * row * self.wide
            one.take(self.new_k[row], self.new_v[row], self, q + at, out + at)
        _run(self.after)


class _Program:
    """A step for a number of contexts: the calls of all layers, on buffers of its own."""

    def __init__(self, decoder: Decoder, weights: NativeStep, rows: int) -> None:
        buffers = self.buffers = _Buffers(rows, decoder.embed_tokens.embedding_dim)
        pairs = zip(decoder.layers, weights.layers, strict=True)
        self.layers = [_Layer(module, one, buffers) for module, one in pairs]
        self.logits = buffers.new(weights.head.outs)
        x, self.last = buffers.normed(weights.norm)
        self.last.append(buffers.product(x, weights.head, self.logits))

    def run(self, h: Tensor, where: Positions, total: int, held: list[list[_Held]]) -> Tensor:
        self.buffers.h.copy_(h)
        for i, layer in enumerate(self.layers):
            layer.run(where, total, [one[i] for one in held])
        _run(self.last)
        return self.logits.clone()


class _Buffers:
    """Working memory (R, ...), and calls of kernels on it."""

    def __init__(self, rows: int, size: int) -> None:
        self.rows, self.size, self.threads = rows, size, _Whole(torch.get_num_threads())
        self.kept: list[Tensor] = []  # the calls have their addresses
        self.h, self.n, self.added = self.new(size), self.new(size), self.new(size)

    def new(self, width: int) -> Tensor:
        self.kept.append(torch.empty(self.rows, width))
        return self.kept[-1]

    def product(self, x: Tensor, w: Any, out: Tensor) -> Call:
        """out = W x"""
        given = _at(x), _Whole(FLOAT), ctypes.byref(w), _at(out)
        return "miniwin_few_product", (*given, _Whole(self.rows), self.threads)

    def norm(self, norm: Any, x: Tensor, out: Tensor, rows: int, size: int) -> list[Call]:
        """out = norm(x), if there is a norm."""
        if not norm.gain:
            return []
        given = _at(x), _Whole(FLOAT), _Address(norm.gain), _at(out), _Whole(FLOAT), _Address(None)
        sizes = _Whole(rows), _Whole(size), ctypes.c_float(norm.eps), self.threads
        return [("miniwin_rmsnorm", (*given, *sizes))]

    def normed(self, norm: Any) -> tuple[Tensor, list[Call]]:
        """norm(h), and the calls that compute it."""
        calls = self.norm(norm, self.h, self.n, self.rows, self.size)
        return (self.n if calls else self.h), calls

    def onto(self, x: Tensor, w: Any, norm: Any) -> list[Call]:
        """h += norm(W x)"""
        add = _at(self.h), _at(self.added), _Whole(FLOAT), _Whole(self.h.numel()), _Whole(1), self.threads
        then = self.norm(norm, self.added, self.added, self.rows, self.size)
        return [self.product(x, w, self.added), *then, ("miniwin_add", add)]


def declines(decoder: Decoder, cache: Cache) -> str | None:
    """Why contexts such as this one cannot be stepped together here; None if they can."""
    reason = not_in_one_call(decoder, cache)
    if reason is not None:
        return reason
    if any(len(layer.parts) > 1 for layer in cache.layers):
        return "heads of a layer see differently"
    if any(layer.first is not None for layer in cache.layers):
        return "a layer has sink tokens"
    if any(tensor.dtype != torch.float32 for layer in cache.layers for tensor in layer.stored):
        return "the cache is not in float32"
    return None


def _run(calls: Sequence[Call]) -> None:
    for name, arguments in calls:
        native.run(name, *arguments)


def _at(t: Tensor) -> ctypes.c_void_p:
    return _Address(t.data_ptr())

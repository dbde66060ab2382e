"""A decoder as step.c sees it: structures of its layers, and of the cache of a context.

The structures hold addresses of weights and caches, so the model must not change while they are in use. The encodings
still compute what depends on positions.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from miniwin.blocks import native
from miniwin.blocks.attention import Attention
from miniwin.blocks.cache import Cache, GrowingCache, LayerCache
from miniwin.blocks.decoder import Decoder
from miniwin.blocks.int8.weight import Int8Weight
from miniwin.blocks.native import step as native_step
from miniwin.blocks.positions.base import Positions
from miniwin.blocks.positions.rope import Rope

MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
NORMS = ("attention_norm", "attention_post_norm", "mlp_norm", "mlp_post_norm")


def projections(layer: Any) -> list[nn.Module]:
    """A layer's projections, in the order of MATRICES."""
    attention, mlp = layer.attention, layer.mlp
    mixing = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
    return [*mixing, mlp.gate_proj, mlp.up_proj, mlp.down_proj]


class NativeDecoder:
    """Takes new tokens of contexts through all layers: `run`. Each context has a `Context`, entered before."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.size = decoder, decoder.embed_tokens.embedding_dim
        self._kept: list[Tensor] = []  # tensors whose addresses the structures hold, and nothing else keeps alive
        self.layers = (native_step.LayerStep * len(decoder.layers))()
        before = 0  # caches of a context in the layers so far
        for place, layer, attention in zip(self.layers, decoder.layers, decoder.attentions, strict=True):
            self._fill(place, layer)
            place.held, place.helds = before, sum(map(len, attention.runs))
            before += place.helds
        self._turned: dict[Any, tuple[Rope, list[Any]]] = {}  # the layers that rotate alike
        self._scaled: list[tuple[Any, Attention]] = []
        for place, attention in zip(self.layers, decoder.attentions, strict=True):
            if isinstance(attention.position, Rope):
                self._turned.setdefault(attention.position.alike, (attention.position, []))[1].append(place)
            if attention.scales_queries:
                self._scaled.append((place, attention))
        self._norm, self._head = self._norm_of(decoder.norm), self._matrix_of(decoder.head)
        self._room = torch.empty(0, dtype=torch.float32, device="cpu")
        self._step = native_step.Step(
            layers=ctypes.addressof(self.layers),
            norm=ctypes.addressof(self._norm),
            head=ctypes.addressof(self._head),
            count=len(self.layers),
            size=self.size,
            floats=native_step.floats(self.layers, self.size),
        )
        self._held = (ctypes.c_void_p * 0)()

    def run(self, ids: Tensor, index: Tensor, contexts: list[Context], tokens: int, total: int) -> Tensor:
        """ids (R, 1), or (1, R) of one row, and index (1 or R, 1) of each in its row -> logits (R, V).

        tokens: how many new ones each context has that follow each other; its rows, or else 1. total: tokens of the
        longest context, its new ones but the first included.

        Raises:
            MemoryRefused: the kernel could not allocate memory.
        """
        logits = torch.empty(ids.numel(), self._head.outs, dtype=torch.float32, device="cpu")
        self._take(ids, index, contexts, tokens, total, logits)
        return self.decoder.shaped(logits)

    def read(self, ids: Tensor, index: Tensor, context: Context, total: int) -> None:
        """`run` for the tokens ids (1, N) of one row, without their logits."""
        self._take(ids, index, [context], ids.shape[1], total, None)

    def _take(
        self, ids: Tensor, index: Tensor, contexts: list[Context], tokens: int, total: int, logits: Tensor | None
    ) -> None:
        h = self.decoder.embed(ids).flatten(0, 1).contiguous()  # (R, C), new memory: the kernel writes into it
        step, rows = self._step, len(h)
        if len(self._room) < rows * step.floats:
            self._room = torch.empty(rows * step.floats, dtype=torch.float32, device="cpu")
            step.room = self._room.data_ptr()
        if len(self._held) != len(contexts):
            self._held = (ctypes.c_void_p * len(contexts))()
            step.held, step.contexts = ctypes.addressof(self._held), len(contexts)
        for i, context in enumerate(contexts):
            self._held[i] = context.address
        step.h, step.rows, step.tokens = h.data_ptr(), rows, tokens
        step.logits = None if logits is None else logits.data_ptr()
        scales = self._turn(Positions(index), total)  # tensors that must outlive the step
        native_step.run(step, torch.get_num_threads())
        del scales

    def _turn(self, where: Positions, total: int) -> list[Tensor]:
        """Set what depends on positions in the layers' structures. The tensors whose addresses they then hold."""
        kept, rows = [], where.index.shape[0]
        for encoding, places in self._turned.values():
            cos, sin = encoding.cos_sin(where, torch.float32)  # (1 or R, 1, K)
            kept += [cos, sin]
            at_cos, at_sin, half = cos.data_ptr(), sin.data_ptr(), cos.shape[-1]
            for place in places:
                place.cos, place.sin, place.half, place.angle_step = at_cos, at_sin, half, 0 if rows == 1 else half
        for place, attention in self._scaled:
            scale = attention.query_scale(where.index, total)
            if scale is not None:
                whole = scale.to(torch.float32).expand(rows, 1, attention.num_heads, 1).contiguous()
                kept.append(whole)
                place.query_scale, place.scale_step = whole.data_ptr(), 0 if rows == 1 else attention.num_heads
        return kept

    def _fill(self, place: Any, layer: Any) -> None:
        attention = layer.attention
        place.heads, place.kv_heads, place.dim = attention.num_heads, attention.num_kv_heads, attention.head_dim
        place.score_scale = attention.score_scale
        for name in NORMS:
            setattr(place, name, self._norm_of(getattr(layer, name)))
        place.q_norm, place.k_norm = self._norm_of(attention.q_norm), self._norm_of(attention.k_norm)
        for name, module in zip(MATRICES, projections(layer), strict=True):
            setattr(place, name, self._matrix_of(module))

    def _norm_of(self, norm: Any) -> native_step.Norm:
        if norm is None:
            return native_step.Norm()
        ones = torch.ones(norm.size, dtype=torch.float32, device="cpu")
        gain = ones if norm.weight is None else norm.weight.detach() + norm.offset
        self._kept.append(gain)
        return native_step.Norm(gain.data_ptr(), norm.eps)

    def _matrix_of(self, module: Any) -> native_step.Matrix:
        weight, bias = module.weight, getattr(module, "bias", None)
        outs, columns = weight.shape
        if isinstance(weight, Int8Weight):
            return native_step.matrix(weight.values8, weight.scale, bias, outs, columns)
        return native_step.matrix(weight, None, bias, outs, columns)


class Context:
    """A cache, and its structures: those of its layers one after another, one for each run of heads of a part."""

    def __init__(self, decoder: Decoder, cache: Cache) -> None:
        self.cache = cache
        runs = [part for attention in decoder.attentions for part in attention.runs]
        self._structures = (native_step.Held * sum(map(len, runs)))()
        self.address = ctypes.addressof(self._structures)
        self._parts: list[tuple[LayerCache, list[Any]]] = []
        each = iter(self._structures)
        for part, own in zip(cache.parts, runs, strict=True):
            mine = [next(each) for _ in own]
            for one, (first, end) in zip(mine, own, strict=True):
                one.first, one.count = first, end - first
            self._parts.append((part, mine))
        self._keys: list[Tensor | None] = [None] * len(self._parts)
        self._next, self._room = -1, 0  # tokens for which the structures stand; for which there is room

    def enter(self, tokens: int, pad: Tensor | None = None, padding: int = 0) -> None:
        """Claim the slots of new tokens in all parts, but do not yet count the tokens in the cache.

        padding: the most of a row.
        """
        length = self.cache.length
        end = length + tokens
        if pad is None and length == self._next and end <= self._room and self._unchanged(length):
            for part, _ in self._parts:  # the kernel has moved the structures on
                part.set_length(end)
        else:
            self._room = 1 << 62
            for i, (part, mine) in enumerate(self._parts):
                self._enter(i, part, mine, tokens, pad, padding)
        self._next = end if pad is None else -1  # the kernel would count first tokens that are padding

    def _unchanged(self, length: int) -> bool:
        for (part, _), keys in zip(self._parts, self._keys, strict=True):  # thrice as fast as all()
            if part.length != length or part.stored[0] is not keys:
                return False
        return True

    def forget(self) -> None:
        """Look at everything anew: a step failed."""
        self._next = -1

    def _enter(self, i: int, part: LayerCache, mine: list[Any], tokens: int, pad: Tensor | None, padding: int) -> None:
        slot = part.slot(part.length)
        part.claim(1)
        entries = part.in_sight(padding)
        if tokens > 1:  # the kernel writes the slots of a ring one after another
            part.claim(tokens - 1) if part.claims(tokens) else part.set_length(part.length + tokens - 1)
        slots = part.room(part.length)
        if isinstance(part, GrowingCache):
            slots = part.capacity
            self._room = min(self._room, slots)
        sinks = 0 if part.first is None else part.first.size
        own_pad = pad.data_ptr() if pad is not None and part.entries == part.length else None
        keys, values, *scales = part.stored
        moved = self._keys[i] is not keys  # the first time, when it has grown, or when rows have left
        self._keys[i] = keys
        before = 0  # heads of the part in the runs so far
        for place in mine:
            place.slot, place.entries, place.pad = slot, entries, own_pad
            place.slots, place.most = slots, slots + sinks
            if moved:
                own = slice(before, before + place.count)
                place.keys, place.values = keys[:, :, own].data_ptr(), values[:, :, own].data_ptr()
                place.k_stride[:], place.v_stride[:] = keys.stride()[:3], values.stride()[:3]
                place.kv_type = native.CODES[keys.dtype]
                for name, scale in zip(("k_scale", "v_scale"), scales, strict=False):
                    setattr(place, name, scale[:, :, own].data_ptr())
                    getattr(place, f"{name}_stride")[:] = scale.stride()[:2]
            before += place.count

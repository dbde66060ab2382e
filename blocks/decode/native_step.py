"""Decoding on a CPU with one call for all layers (blocks/native/step.c), for models of blocks that the kernel knows.

A small model's step is mostly Python: about twenty operations a layer, each of which takes longer to call than to run.
Here all of them are one call. The encodings still compute positions, and what depends on positions alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from miniwin.blocks import native
from miniwin.blocks.attention import Attention
from miniwin.blocks.attention.split import SplitAttention
from miniwin.blocks.attention_ops import cpu_native, may_use
from miniwin.blocks.cache import Cache, LayerCache
from miniwin.blocks.decoder import Decoder
from miniwin.blocks.int8.weight import FEW, Int8Weight
from miniwin.blocks.layer import Layer
from miniwin.blocks.matmul_library import Linear
from miniwin.blocks.mlps.swiglu import SwiGLU
from miniwin.blocks.native import attention as kernels
from miniwin.blocks.native import step as native_step
from miniwin.blocks.norms.rmsnorm import RMSNorm
from miniwin.blocks.positions.base import PositionEncoding, Positions
from miniwin.blocks.positions.nope import Nope
from miniwin.blocks.positions.rope import Rope

PLACES = ("cpu", "meta")  # devices
ATTENTIONS = (Attention, SplitAttention)
MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
NORMS = ("attention_norm", "attention_post_norm", "mlp_norm", "mlp_post_norm")


class NativeStep:
    """Advances a warm cache as the model would: `step(ids)` (B, 1) -> logits (B, 1, V) float32. `steps(ids)` (1, N) ->
    (1, N, V) takes several tokens of one row: as so many steps to the last bit, in less time.

    The kernel holds the addresses of the weights, so the model must not change meanwhile.
    """

    def __init__(self, decoder: Decoder, cache: Cache) -> None:
        reason = declines(decoder, cache)
        assert reason is None, reason
        self.decoder, self.cache = decoder, cache
        self.kept: list[Tensor] = []  # tensors whose addresses the structures hold, and nothing else keeps alive
        self.structures: list[Any] = []  # likewise, the structures of heads
        self.layers = (native_step.LayerStep * len(decoder.layers))()
        self.held: list[list[Any]] = []  # of each part of the cache: the structures of its runs of heads
        for place, layer in zip(self.layers, decoder.layers, strict=True):
            self._fill(place, layer)
        self.norm = self._norm(decoder.norm)
        self.head = self._matrix(decoder.head)
        size = decoder.embed_tokens.embedding_dim
        self.floats = native_step.floats(list(self.layers), size)
        self.room = torch.empty(cache.batch_size * self.floats, dtype=torch.float32, device="cpu")
        self.storages: list[Tensor | None] = [None] * len(cache.parts)
        self.pad: Tensor | None = None
        self.padding = self.least = 0  # tokens of padding in the row that has most, and least

    @torch.no_grad()
    def step(self, ids: Tensor) -> Tensor:
        self._look_at_padding()
        if any(self._out_of_order(part) for part in self.cache.parts):
            return self.decoder(ids, cache=self.cache, logits_to_keep=1)  # type: ignore[no-any-return]
        index = torch.tensor([[self.cache.length]], device="cpu")
        if self.pad is not None:
            index = index - self.pad.unsqueeze(1)  # (B, 1)
        return self._run(ids, index, 1).unsqueeze(1)  # (B, V) -> (B, 1, V)

    @torch.no_grad()
    def steps(self, ids: Tensor) -> Tensor:
        self._look_at_padding()
        assert len(ids) == self.cache.batch_size == 1
        if self.pad is not None or any(self._out_of_order(part) for part in self.cache.parts):
            return torch.cat([self.step(one) for one in ids.split(1, 1)], 1)
        tokens, start = ids.shape[1], self.cache.length
        if len(self.room) < tokens * self.floats:
            self.room = torch.empty(tokens * self.floats, dtype=torch.float32, device="cpu")
        index = torch.arange(start, start + tokens, device="cpu").unsqueeze(1)  # (N, 1), as of so many rows
        return self._run(ids, index, tokens).unsqueeze(0)  # (N, V) -> (1, N, V)

    def _run(self, ids: Tensor, index: Tensor, tokens: int) -> Tensor:
        """ids (B, 1), or (1, N) of one row; index (B or N, 1) of each token in its row. Returns logits (B or N, V)."""
        where, meanwhile = Positions(index), list[Tensor]()
        h = self.decoder.embed(ids).flatten(0, 1).contiguous()  # (B or N, C), new memory: the kernel writes into it
        for place, attention in zip(self.layers, self.decoder.attentions, strict=True):
            self._turn(place, attention, where, self.cache.length + 1, meanwhile)
        for i, part in enumerate(self.cache.parts):
            self._enter(i, part, tokens)
        logits = native_step.run(self.layers, h, self.norm, self.head, self.room, tokens)
        # Last: an interrupted step leaves layers that are longer than the cache, which shows.
        self.cache.length += tokens
        return self.decoder.shaped(logits)

    def _look_at_padding(self) -> None:
        if self.pad is not self.cache.pad:  # the first time, or when rows have left
            self.pad = self.cache.pad
            self.padding, self.least = (0, 0) if self.pad is None else (int(self.pad.max()), int(self.pad.min()))

    def _out_of_order(self, held: LayerCache) -> bool:
        """Whether rows see other slots than a first part that all have. A ring with this token still holds padding, but
        not in its first slots; or rows see another number of sink tokens; or this is a sink token."""
        tokens = held.length + 1
        if held.first is not None:
            gone = [
                max(0, min(tokens - pad - held.room(tokens), held.first.size)) for pad in (self.least, self.padding)
            ]
            if gone[0] != gone[1] or held.length - self.padding < held.first.size:
                return True
        return 0 < tokens - held.room(tokens) < self.padding

    def _enter(self, i: int, part: LayerCache, tokens: int) -> None:
        """Claim the new tokens' slots in a cache, and set the structures of its heads for this step. i: the part's."""
        slot = part.slot(part.length)
        part.claim(1)
        entries = part.in_sight(self.padding)
        if tokens > 1:  # the kernel writes the slots of a ring one after another
            part.claim(tokens - 1) if part.claims(tokens) else part.set_length(part.length + tokens - 1)
        slots = part.room(part.length)
        sinks = 0 if part.first is None else part.first.size
        pad = self.pad.data_ptr() if self.pad is not None and part.entries == part.length else None
        keys, values, *scales = part.stored
        moved = self.storages[i] is not keys  # the first time, when it has grown, or when rows have left
        self.storages[i] = keys
        before = 0  # heads of the part in the runs so far
        for place in self.held[i]:
            place.slot, place.entries, place.pad = slot, entries, pad
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

    def _turn(self, place: Any, attention: Attention, where: Positions, length: int, meanwhile: list[Tensor]) -> None:
        """Set what depends on the position in a layer's structure. length: of its cache, the new token included.

        meanwhile: receives tensors that must stay alive during the step.
        """
        rows = where.index.shape[0]
        if isinstance(attention.position, Rope):
            cos, sin = attention.position.shared(where, torch.float32)  # (1 or B, 1, K)
            place.cos, place.sin, place.half = cos.data_ptr(), sin.data_ptr(), cos.shape[-1]
            place.angle_step = 0 if rows == 1 else cos.shape[-1]
        scale = attention.query_scale(where.index, length)
        if scale is not None:
            whole = scale.to(torch.float32).expand(rows, 1, attention.num_heads, 1).contiguous()
            meanwhile.append(whole)
            place.query_scale, place.scale_step = whole.data_ptr(), 0 if rows == 1 else attention.num_heads

    def _fill(self, place: Any, layer: Any) -> None:
        attention = layer.attention
        place.heads, place.kv_heads, place.dim = attention.num_heads, attention.num_kv_heads, attention.head_dim
        place.score_scale = attention.score_scale
        self._share_out(place, attention.runs)
        for name in NORMS:
            setattr(place, name, self._norm(getattr(layer, name)))
        place.q_norm, place.k_norm = self._norm(attention.q_norm), self._norm(attention.k_norm)
        for name, module in zip(MATRICES, _projections(layer), strict=True):
            setattr(place, name, self._matrix(module))

    def _share_out(self, place: Any, parts: Sequence[Sequence[tuple[int, int]]]) -> None:
        """A structure for each run of heads. parts: the runs of each part of the layer's cache."""
        held = (native_step.Held * sum(map(len, parts)))()
        self.structures.append(held)
        place.held, place.helds = ctypes.addressof(held), len(held)
        each = iter(held)
        for runs in parts:
            mine = []
            for first, end in runs:
                one = next(each)
                one.first, one.count = first, end - first
                mine.append(one)
            self.held.append(mine)

    def _norm(self, norm: Any) -> native_step.Norm:
        if norm is None:
            return native_step.Norm()
        ones = torch.ones(norm.size, dtype=torch.float32, device="cpu")
        gain = ones if norm.weight is None else norm.weight.detach() + norm.offset
        self.kept.append(gain)
        return native_step.Norm(gain.data_ptr(), norm.eps)

    def _matrix(self, module: Any) -> native_step.Matrix:
        weight, bias = module.weight, getattr(module, "bias", None)
        outs, columns = weight.shape
        if isinstance(weight, Int8Weight):
            return native_step.matrix(weight.values8, weight.scale, bias, outs, columns)
        return native_step.matrix(weight, None, bias, outs, columns)


def declines(decoder: Decoder, cache: Cache) -> str | None:
    """Why one call cannot do a step; None if it can. The model may be on the meta device."""
    if native.missing() is not None:
        return native.missing()
    if not may_use(cpu_native):
        return "another attention backend is asked for"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on"
    if cache.given or cache.batch_size > FEW:
        return f"there are more than {FEW} rows, or positions that the caller gives"
    if decoder.embed_positions is not None:
        return "positions are added to the embeddings"
    for held in cache.parts:
        if not held.plain:
            return "a layer keeps more than keys and values"
        if held.stored[0].dtype not in native.CODES or held.stored[0].device.type not in PLACES:
            return f"a cache is of {held.stored[0].dtype} on {held.stored[0].device}"
    if not all(_readable(module) for module in decoder.modules() if isinstance(module, nn.Linear | nn.Embedding)):
        return "a matrix is neither float32 nor int8, or not a multiple of 16 wide"
    norms = [decoder.norm, *(getattr(layer, name, None) for layer in decoder.layers for name in NORMS)]
    if not all(norm is None or _is_rms(norm) for norm in norms):
        return "a norm is no RMSNorm, or not a multiple of 16 wide"
    for layer in decoder.layers:
        if type(layer) is not Layer or type(layer.attention) not in ATTENTIONS or type(layer.mlp) is not SwiGLU:
            return "a layer is not attention and then a SwiGLU"
        if layer.residual_scale is not None:
            return "what a layer adds is scaled"
        if not all(type(module) in (nn.Linear, Linear) for module in _projections(layer)):
            return "a projection is more than a matrix"
        reason = _attention_declines(layer.attention)
        if reason is not None:
            return reason
    return None


def _attention_declines(attention: Attention) -> str | None:
    encoding = attention.position
    kind = type(encoding)
    if attention.by_order or attention.sinks is not None or attention.softcap is not None:
        return "attention is more than a softmax over the keys of a window"
    known = isinstance(encoding, Nope | Rope) and kind.encode in (PositionEncoding.encode, Rope.encode)
    if not known or kind.log_gates is not PositionEncoding.log_gates:
        return f"{kind.__name__} is no plain rotation"
    if isinstance(encoding, Rope) and not _turns_halves(encoding):
        return "its rotation is of neighbours, or of halves that are not a multiple of 16 wide"
    norms = (attention.q_norm, attention.k_norm)
    if attention.norms_whole or attention.norms_after or not all(n is None or _is_rms(n) for n in norms):
        return "queries and keys have another norm than an RMSNorm of each head before the rotation"
    heads, dim = attention.num_heads, attention.head_dim
    return kernels.unfit((1, 1, heads, dim), (1, 1, attention.num_kv_heads, dim))


def _projections(layer: Any) -> list[nn.Module]:
    """A layer's projections, in the order of MATRICES."""
    attention, mlp = layer.attention, layer.mlp
    mixing = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
    return [*mixing, mlp.gate_proj, mlp.up_proj, mlp.down_proj]


def _turns_halves(encoding: Rope) -> bool:
    plain = type(encoding).turn is Rope.turn and not encoding.interleaved
    return plain and len(encoding._frequencies) % native_step.STEP == 0


def _is_rms(norm: nn.Module) -> bool:
    if type(norm) is not RMSNorm or norm.size % native_step.STEP:
        return False
    return norm.weight is None or norm.weight.dtype == torch.float32


def _readable(module: Any) -> bool:
    weight, bias = module.weight, getattr(module, "bias", None)
    if weight.shape[1] % native_step.STEP or not (bias is None or _plain(bias)):
        return False
    if isinstance(weight, Int8Weight):  # its dtype is that of the weights it stands for
        return weight.dtype == torch.float32 and weight.values8.device.type in PLACES
    return _plain(weight)


def _plain(weight: Tensor) -> bool:
    there = native.ordinary(weight) and weight.device.type in PLACES
    return there and weight.dtype == torch.float32 and weight.is_contiguous()

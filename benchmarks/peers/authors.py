"""MiniWin as its authors' code computes it, restated: "Periodic RoPE for Infinite Context LLMs", arXiv 2605.27980, its
code at github.com/Cominder/miniwin. The weights are those of one of our decoders, so that both give the same logits.

What is restated is how the work is done, not its wording:

- Keys and values are repeated for each query head before attention.
- A prefill or training pass of a sliding layer builds a boolean mask (N, N), causal and banded, in every layer and
  every call, and gives it to torch's scaled_dot_product_attention: time and memory grow with N^2. A global layer is
  the plain causal call.
- The cache holds every key and value of every layer, sliding ones too, keys as they come out of the projection. Each
  new token makes a longer copy of all of them (torch.cat). A sliding layer then takes the last W of its keys and
  rotates them anew; a global layer repeats its whole cache for each query head.
- Several tokens at a time on a warm cache are not supported: their code computes them as if nothing came before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from miniwin.blocks import Decoder
from miniwin.specs import ModelSpec

Past = list[tuple[Tensor, Tensor]]


class Authors(nn.Module):
    def __init__(self, decoder: Decoder, spec: ModelSpec) -> None:
        super().__init__()
        self.decoder = decoder
        self.windows: list[int | None] = []
        self.tables: dict[int, tuple[Tensor, Tensor]] = {}
        for layer in spec.layer_specs:
            attention: Any = layer.attention
            position = attention.position
            local = position.type == "p-rope" and not position.harmonic and position.period == attention.window
            if not local and not (
                attention.window is None and position.type == "nope" and position.logit_scale is None
            ):
                raise ValueError(f"the authors' code has no layer like the {position.type} one of {spec.name}")
            self.windows.append(attention.window)
            if attention.window is not None:
                dim = decoder.attentions[0].head_dim
                self.tables[attention.window] = _tables(dim, attention.window, position.rope_theta)

    def forward(
        self, input_ids: Tensor, past: Past | None = None, use_cache: bool = False, logits_to_keep: int = 0
    ) -> tuple[Tensor, Past]:
        """input_ids (B, N), N = 1 on a warm cache -> logits (B, N, V), and the cache as it is now."""
        if past is not None and input_ids.shape[1] != 1:
            raise ValueError("the authors' code takes one token at a time on a warm cache")
        h = self.decoder.embed_tokens(input_ids)  # (B, N, C)
        kept: Past = []
        for i, (layer, window) in enumerate(zip(self.decoder.layers, self.windows, strict=True)):
            module: Any = layer
            normed = _rms(h, module.attention_norm)
            out, entry = self._attention(module.attention, window, normed, None if past is None else past[i])
            if use_cache:
                kept.append(entry)
            h = h + out
            normed = _rms(h, module.mlp_norm)
            mlp = module.mlp
            h = h + mlp.down_proj(F.silu(mlp.gate_proj(normed)) * mlp.up_proj(normed))
        h = _rms(h, self.decoder.norm)[:, -logits_to_keep:]
        return F.linear(h, self.decoder.head.weight), kept

    def _attention(
        self, module: Any, window: int | None, x: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        batch, n, _ = x.shape
        groups = module.num_heads // module.num_kv_heads
        q = module.q_proj(x).view(batch, n, module.num_heads, -1)
        k = module.k_proj(x).view(batch, n, module.num_kv_heads, -1)
        v = module.v_proj(x).view(batch, n, module.num_kv_heads, -1)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=1), torch.cat((past[1], v), dim=1)
        entry = (k, v)  # unrotated, every token
        total = k.shape[1]
        mask = None
        if window is not None:
            if past is not None:
                k, v = k[:, -window:], v[:, -window:]
            q = self.rotated(q, total - n, window)
            k = self.rotated(k, total - k.shape[1], window)
            if past is None and window < n:
                query, key = torch.arange(n).unsqueeze(1), torch.arange(n).unsqueeze(0)
                mask = (key <= query) & (query - key < window)
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2),  # (B, H, N, D)
            _repeated(k, groups).transpose(1, 2),
            _repeated(v, groups).transpose(1, 2),
            attn_mask=mask,
            is_causal=mask is None and n > 1,
        )
        return module.o_proj(out.transpose(1, 2).reshape(batch, n, -1)), entry

    def rotated(self, x: Tensor, first: int, window: int) -> Tensor:
        """x (B, n, heads, D), its first token at position `first`: rotated by the position modulo the window."""
        where = torch.arange(first, first + x.shape[1]) % window
        cos, sin = (table[where].unsqueeze(1) for table in self.tables[window])
        half = x.shape[-1] // 2
        turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
        return (x * cos + turned * sin).to(x.dtype)


def cached(past: Past) -> int:
    """Bytes that a cache holds."""
    return sum(t.numel() * t.element_size() for pair in past for t in pair)


def _tables(dim: int, period: int, theta: float) -> tuple[Tensor, Tensor]:
    frequencies = theta ** -(torch.arange(0, dim, 2).float() / dim)
    angles = torch.outer(torch.arange(period).float(), frequencies).repeat(1, 2)  # (period, dim)
    return angles.cos(), angles.sin()


def _repeated(x: Tensor, groups: int) -> Tensor:
    """(B, N, Hkv, D) -> (B, N, Hkv * groups, D), a copy."""
    return x.unsqueeze(3).expand(*x.shape[:3], groups, x.shape[3]).flatten(2, 3)


def _rms(x: Tensor, norm: Any) -> Tensor:
    wide = x.float()
    normed: Tensor = norm.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.eps)).type_as(x)
    return normed

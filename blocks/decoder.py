"""A decoder-only language model: embedding, layers, final norm, head.

    logits = head(norm(layers(embed(input_ids))))

The head is the embedding itself when tied (Press and Wolf, arXiv 1608.05859). Prefill, chunked prefill and
token-by-token decoding through a cache give the same logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from miniwin.blocks.cache import Cache
from miniwin.blocks.layer import Layer
from miniwin.blocks.spec import UserError


class Decoder(nn.Module):
    def __init__(
        self, vocab_size: int, hidden_size: int, layers: Sequence[Layer], norm: nn.Module, tie_word_embeddings: bool
    ) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, hidden_size)
        self.layers = nn.ModuleList(layers)
        self.norm = norm
        self.lm_head = None if tie_word_embeddings else nn.Linear(hidden_size, vocab_size, bias=False)

    @property
    def vocab_size(self) -> int:
        return self.embed_tokens.num_embeddings

    def forward(
        self,
        input_ids: Tensor,
        cache: Cache | None = None,
        attention_mask: Tensor | None = None,
        logits_to_keep: int = 0,
    ) -> Tensor:
        """input_ids (B, N) -> logits (B, N, vocab_size) float32.

        cache: continues the context it holds, and is advanced. attention_mask (B, N): 1 for tokens and 0 for padding,
        which may only stand on the left, and only in the first call on a cache. logits_to_keep: only the last so many
        positions' logits; 0 is all.

        Raises:
            UserError: ids of a wrong shape or type, padding elsewhere than on the left, or another batch size than
                the cache's.
        """
        h = self.hidden(input_ids, cache, attention_mask)
        h = h if logits_to_keep == 0 else h[:, -logits_to_keep:]
        return self.logits(h)

    def hidden(self, input_ids: Tensor, cache: Cache | None = None, attention_mask: Tensor | None = None) -> Tensor:
        """input_ids (B, N) -> final hidden states (B, N, hidden_size), normed: what the head reads."""
        pad, before = _padding(input_ids, cache, attention_mask)
        positions = torch.arange(before, before + input_ids.shape[1], device=input_ids.device).unsqueeze(0)
        if pad is not None:
            positions = (positions - pad.unsqueeze(1)).clamp(min=0)  # (B, N)
        h = self.embed_tokens(input_ids)  # (B, N, hidden_size)
        for i, layer in enumerate(self.layers):
            h = layer(h, positions, None if cache is None else cache.layers[i], pad)
        if cache is not None:
            cache.length, cache.pad = before + input_ids.shape[1], pad
        out: Tensor = self.norm(h)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., hidden_size) -> (..., vocab_size) float32."""
        head = self.embed_tokens if self.lm_head is None else self.lm_head
        return nn.functional.linear(hidden, head.weight).float()

    def new_cache(
        self, batch_size: int = 1, dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> Cache:
        """An empty cache for `batch_size` rows; dtype and device default to the weights'."""
        weight = self.embed_tokens.weight
        dtype, device = dtype or weight.dtype, device or weight.device
        layers = [layer.attention.new_cache(batch_size, dtype, device) for layer in self.layers]  # type: ignore[union-attr,operator]
        return Cache(layers)


def _padding(input_ids: Tensor, cache: Cache | None, attention_mask: Tensor | None) -> tuple[Tensor | None, int]:
    """Check a call's tokens against its cache and mask; give each row's padding (B,) or None, and the tokens before."""
    if input_ids.dim() != 2 or input_ids.shape[1] == 0 or input_ids.is_floating_point():
        raise UserError(
            f"input_ids: got shape {tuple(input_ids.shape)} of {input_ids.dtype}; expected integers of shape "
            "(batch, tokens) with at least one token. A single sequence is ids[None]."
        )
    before, pad = (0, None) if cache is None else (cache.length, cache.pad)
    if cache is not None and cache.batch_size != len(input_ids):
        raise UserError(
            f"input_ids: got a batch of {len(input_ids)}; the cache holds {cache.batch_size} rows. "
            "Make one with model.new_cache(batch_size)."
        )
    if attention_mask is None:
        return pad, before
    if attention_mask.shape != input_ids.shape:
        raise UserError(
            f"attention_mask: got shape {tuple(attention_mask.shape)}; expected that of input_ids, "
            f"{tuple(input_ids.shape)}. On a warm cache it is for the new tokens only."
        )
    mask = attention_mask.to(torch.int64)
    if not bool(((mask[:, 1:] >= mask[:, :-1]).all()) & (mask[:, -1] == 1).all()):
        raise UserError("attention_mask: padding (0) may only stand to the left of a row's tokens (1); pad on the left.")
    padded = (mask == 0).sum(dim=1)
    if not bool(padded.any()):
        return pad, before
    if before:
        raise UserError("attention_mask: padding is for the first call on a cache; this one already holds tokens.")
    return padded, before

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
        # Given its weight, the module does not draw one: that would cost seconds of imports on the meta device.
        weight = torch.empty(vocab_size, hidden_size)
        self.embed_tokens = nn.Embedding(vocab_size, hidden_size, _weight=weight)
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
        which may only stand to the left of a row's tokens; a long padded batch may come in chunks. logits_to_keep: only
        the last so many positions' logits; 0 is all.

        Raises:
            UserError: ids of a wrong shape, type or value, padding elsewhere than on the left, another batch size than
                the cache's, or a cache that a failed call left halfway.
        """
        if logits_to_keep < 0:
            raise UserError(f"logits_to_keep: got {logits_to_keep}; expected 0 (all) or how many of the last to keep")
        h = self.hidden(input_ids, cache, attention_mask)
        h = h if logits_to_keep == 0 else h[:, -logits_to_keep:]
        return self.logits(h)

    def hidden(self, input_ids: Tensor, cache: Cache | None = None, attention_mask: Tensor | None = None) -> Tensor:
        """input_ids (B, N) -> final hidden states (B, N, hidden_size), normed: what the head reads."""
        _check(input_ids, self.vocab_size, cache)
        pad = _padding(input_ids, cache, attention_mask)
        before = 0 if cache is None else cache.length
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


def _check(input_ids: Tensor, vocab_size: int, cache: Cache | None) -> None:
    """Refuse ids that are not ids, and a cache that is not for them."""
    if input_ids.dim() != 2 or 0 in input_ids.shape or input_ids.dtype not in (torch.int64, torch.int32):
        raise UserError(
            f"input_ids: got shape {tuple(input_ids.shape)} of {input_ids.dtype}; expected integers of shape "
            "(batch, tokens) with at least one token. A single sequence is ids[None]."
        )
    if input_ids.device.type == "cpu":  # elsewhere looking at them would wait for the device
        low, high = int(input_ids.min()), int(input_ids.max())
        if low < 0 or high >= vocab_size:
            got = low if low < 0 else high
            raise UserError(
                f"input_ids: got the id {got}; the model's vocab_size is {vocab_size}. Is the tokenizer its own?"
            )
    if cache is None:
        return
    if cache.batch_size != len(input_ids):
        raise UserError(
            f"input_ids: got a batch of {len(input_ids)}; the cache holds {cache.batch_size} rows. "
            "Make one with model.new_cache(batch_size)."
        )
    if any(layer.length != cache.length for layer in cache.layers):
        raise UserError("the cache was left halfway by a call that failed; make a new one, or reset() it")


def _padding(input_ids: Tensor, cache: Cache | None, attention_mask: Tensor | None) -> Tensor | None:
    """Each row's padding (B,), this call's included; None where there is none."""
    before, pad = (0, None) if cache is None else (cache.length, cache.pad)
    if attention_mask is None:
        return pad
    if attention_mask.shape != input_ids.shape:
        raise UserError(
            f"attention_mask: got shape {tuple(attention_mask.shape)}; expected that of input_ids, "
            f"{tuple(input_ids.shape)}. On a warm cache it is for the new tokens only."
        )
    mask = attention_mask.to(torch.int64)
    padded = (mask == 0).sum(dim=1)
    if not bool(padded.any()):
        return pad
    earlier = torch.zeros_like(padded) if pad is None else pad
    if bool(((padded > 0) & (earlier != before)).any()):
        raise UserError(
            "attention_mask: a row that already holds tokens gets padding (0); pad only before the first token."
        )
    if bool((mask[:, 1:] < mask[:, :-1]).any()):
        raise UserError(
            "attention_mask: padding (0) may only stand to the left of a row's tokens (1); pad on the left."
        )
    if cache is None and not bool(mask[:, -1].all()):
        raise UserError("attention_mask: a row is nothing but padding (0); every row needs a token (1).")
    return earlier + padded

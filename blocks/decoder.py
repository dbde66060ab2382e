"""A decoder-only language model: embedding, layers, final norm, head.

    h = embed_norm(embed_scale * embed(input_ids)) + embed_positions
    logits = cap * tanh(logit_scale * head(norm(layers(h))) / cap)

The head is the embedding itself when tied (Press and Wolf, arXiv 1608.05859). Scales, embed_norm, embed_positions and
the soft cap are absent unless asked for. Prefill, chunked prefill and token-by-token decoding through a cache give the
same logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from miniwin.blocks import matmul_library
from miniwin.blocks.attention import Attention
from miniwin.blocks.cache import Cache
from miniwin.blocks.decoder_inputs import check_cache, check_input, padding, placed
from miniwin.blocks.documents import check_documents
from miniwin.blocks.positions.absolute import AbsolutePositions
from miniwin.blocks.positions.base import Positions
from miniwin.blocks.spec import UserError


@dataclass(frozen=True)
class Ends:
    """Transforms of embeddings and logits that some models have. None: the model has no such transform."""

    embed_scale: float | None = None
    embed_norm: nn.Module | None = None
    logit_scale: float | None = None
    logit_softcap: float | None = None
    embed_positions: AbsolutePositions | None = None


class Decoder(nn.Module):
    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        layers: Sequence[nn.Module],
        norm: nn.Module,
        tie_word_embeddings: bool,
        ends: Ends = Ends(),
    ) -> None:
        super().__init__()
        # nn.Embedding draws no weight if it is given one. Drawing on the meta device would cost seconds of imports.
        weight = torch.empty(vocab_size, hidden_size)
        self.embed_tokens = nn.Embedding(vocab_size, hidden_size, _weight=weight)
        self.embed_norm = ends.embed_norm
        self.embed_positions = ends.embed_positions
        self.layers = nn.ModuleList(layers)
        self.norm = norm
        self.lm_head = None if tie_word_embeddings else nn.Linear(hidden_size, vocab_size, bias=False)
        self.product: matmul_library.Product = matmul_library.MKL  # set by `matmul_library.choose`, in the layers too
        self.embed_scale, self.logit_scale, self.logit_softcap = ends.embed_scale, ends.logit_scale, ends.logit_softcap

    @property
    def vocab_size(self) -> int:
        return self.embed_tokens.num_embeddings

    @property
    def head(self) -> nn.Embedding | nn.Linear:
        """The module whose weight (vocab_size, hidden_size) gives the logits."""
        return self.embed_tokens if self.lm_head is None else self.lm_head

    @property
    def attentions(self) -> list[Attention]:
        return [layer.attention for layer in self.layers]  # type: ignore[misc]

    def forward(
        self,
        input_ids: Tensor | None = None,
        cache: Cache | None = None,
        attention_mask: Tensor | None = None,
        logits_to_keep: int = 0,
        *,
        inputs_embeds: Tensor | None = None,
        positions: Tensor | None = None,
        position_variance: Tensor | None = None,
    ) -> Tensor:
        """input_ids (B, N) -> logits (B, N, vocab_size) float32.

        cache: the context so far. The call continues it and adds its tokens.
        attention_mask (B, N): 1 for tokens, 0 for padding, which may only stand to the left of a row's tokens. A long
            padded batch may come in chunks.
        logits_to_keep: return the logits of the last so many positions only; 0: of all.
        inputs_embeds (B, N, hidden_size): vectors in place of input_ids, such as one for a span of tokens. They are not
            scaled or normed; learned positions (embed_positions) are added to them, too.
        positions (1 or B, N): real numbers in place of 0, 1, 2, ..., such as the centre of a span. Order alone still
            decides which keys a query sees.
        position_variance (1 or B, N): the variance of each position, if positions are Gaussian. Every rotary frequency
            theta is then attenuated by exp(-theta^2 variance / 2), the expectation.

        Raises:
            UserError: inputs have a wrong shape, type or value; padding is not on the left; the cache has another batch
                size, or a failed call left it halfway; positions are given, and a layer counts tokens; a row is longer
                than the learned positions.
        """
        if logits_to_keep < 0:
            raise UserError(f"logits_to_keep: got {logits_to_keep}; expected 0 (all) or how many of the last to keep")
        h = self.hidden(
            input_ids,
            cache,
            attention_mask,
            inputs_embeds=inputs_embeds,
            positions=positions,
            position_variance=position_variance,
            keep=logits_to_keep,
        )
        return self.logits(h)  # (B, N or logits_to_keep, C) -> (B, the same, V)

    def hidden(
        self,
        input_ids: Tensor | None = None,
        cache: Cache | None = None,
        attention_mask: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        positions: Tensor | None = None,
        position_variance: Tensor | None = None,
        documents: Tensor | None = None,
        keep: int = 0,
    ) -> Tensor:
        """input_ids (B, N) -> final hidden states (B, N, hidden_size), normed: the input of the head.

        documents (B, N): the number of each token's document. Each document is computed as if it stood alone.
        keep: return the states of the last so many positions only; 0: of all. When a cache is filled, the last layer
        then computes attention for these positions only, which saves most of its work on a prompt.
        """
        x = check_input(input_ids, inputs_embeds, self.vocab_size, self.embed_tokens.embedding_dim)
        check_cache(x, cache)
        pad = padding(x, cache, attention_mask)
        apart = check_documents(documents, x, cache, attention_mask, positions, position_variance)
        encodings = [group.encoding for a in self.attentions for group in a.groups]
        encodings += [] if self.embed_positions is None else [self.embed_positions]
        where = placed(x, cache, pad, positions, position_variance, encodings)
        if apart is not None:
            where = Positions(apart.index, documents=apart)
        h = self.embed(x) if inputs_embeds is None else x  # (B, N, C)
        if self.embed_positions is not None:
            h = h + self.embed_positions(where, (0 if cache is None else cache.length) + x.shape[1])
        layer: Any
        for i, layer in enumerate(self.layers):
            held = None if cache is None else cache.layers[i]
            if held is not None and i == len(self.layers) - 1 and 0 < keep < x.shape[1] and not torch.is_grad_enabled():
                first, last = slice(None, -keep), slice(-keep, None)
                layer.remember(h[:, first], where.part(first), held, _so_far(pad, held.length + x.shape[1] - keep))
                h, where = h[:, last], where.part(last)
            h = layer(h, where, held, pad)
        if cache is not None:
            cache.length, cache.pad, cache.given = cache.length + x.shape[1], pad, positions is not None
        out: Tensor = self.norm(h if keep == 0 else h[:, -keep:])
        return out

    def embed(self, input_ids: Tensor) -> Tensor:
        """(B, N) -> (B, N, hidden_size): the input of the first layer, but for learned positions."""
        h: Tensor = self.embed_tokens(input_ids)
        h = h if self.embed_scale is None else h * self.embed_scale
        if self.embed_norm is None:
            return h
        if h.is_meta:
            return self.embed_norm(h)  # type: ignore[no-any-return]
        with torch.autocast(h.device.type, enabled=False):  # autocast would narrow the residual stream
            return self.embed_norm(h)  # type: ignore[no-any-return]

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., hidden_size) -> (..., vocab_size) float32."""
        return self.shaped(matmul_library.linear(hidden, self.head.weight, None, self.product))

    def shaped(self, logits: Tensor) -> Tensor:
        """The head's output in float32 at least, scaled and capped: (..., vocab_size) -> (..., vocab_size)."""
        logits = logits if logits.dtype == torch.float64 else logits.float()
        logits = logits if self.logit_scale is None else logits * self.logit_scale
        cap = self.logit_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def auxiliary_loss(self) -> Tensor | None:
        """The sum of the layers' auxiliary losses (mixtures of experts) of the last training pass, a scalar, or None.

        A second call gives None.
        """
        takes: list[Any] = [m for m in self.modules() if hasattr(m, "take_auxiliary_loss")]
        found = [loss for loss in (m.take_auxiliary_loss() for m in takes) if loss is not None]
        return torch.stack(found).sum() if found else None

    def new_cache(
        self, batch_size: int = 1, dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> Cache:
        """An empty cache for `batch_size` rows; dtype and device default to the weights'.

        Raises:
            UserError: a cache cannot store this dtype.
        """
        weight = self.embed_tokens.weight
        dtype, device = dtype or weight.dtype, device or weight.device
        return Cache([attention.new_cache(batch_size, dtype, device) for attention in self.attentions])


def _so_far(pad: Tensor | None, tokens: int) -> Tensor | None:
    """The number of padding tokens (B,) among the first `tokens` of each row."""
    return None if pad is None else pad.clamp(max=tokens)

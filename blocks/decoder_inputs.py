"""Checks of a decoder call's inputs, the padding of its rows, and the positions of its tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from miniwin.blocks.cache import Cache
from miniwin.blocks.positions.base import PositionEncoding, Positions
from miniwin.blocks.spec import UserError


def check_input(input_ids: Tensor | None, inputs_embeds: Tensor | None, vocab_size: int, hidden_size: int) -> Tensor:
    """Return the one input that is given: ids (B, N) or vectors (B, N, hidden_size).

    Raises:
        UserError: none or both are given, or the shape, type or an id is wrong.
    """
    if (input_ids is None) == (inputs_embeds is None):
        both = "neither" if input_ids is None else "both"
        raise UserError(f"input_ids, inputs_embeds: got {both}; expected one of them")
    if input_ids is None:
        assert inputs_embeds is not None
        shape = tuple(inputs_embeds.shape)
        if len(shape) != 3 or 0 in shape or shape[2] != hidden_size or not inputs_embeds.is_floating_point():
            raise UserError(
                f"inputs_embeds: got shape {shape} of {inputs_embeds.dtype}; expected floats of shape "
                f"(batch, tokens, {hidden_size}) with at least one token"
            )
        return inputs_embeds
    if not isinstance(input_ids, Tensor):
        raise UserError(
            f"input_ids: got a {type(input_ids).__name__}; expected a tensor of integers, (batch, tokens): of text, "
            "torch.tensor([model.tokenizer.encode(text)])"
        )
    if input_ids.dim() != 2 or 0 in input_ids.shape or input_ids.dtype not in (torch.int64, torch.int32):
        raise UserError(
            f"input_ids: got shape {tuple(input_ids.shape)} of {input_ids.dtype}; expected integers of shape "
            "(batch, tokens) with at least one token. A single sequence is ids[None]."
        )
    if input_ids.device.type == "cpu":  # on a GPU, reading the ids would wait for the device
        low, high = int(input_ids.min()), int(input_ids.max())
        if low < 0 or high >= vocab_size:
            got = low if low < 0 else high
            raise UserError(
                f"input_ids: got the id {got}; the model's vocab_size is {vocab_size}. "
                "Is the tokenizer the model's own?"
            )
    return input_ids


def check_cache(x: Tensor, cache: Cache | None) -> None:
    """
    Raises:
        UserError: the cache has another batch size than x (B, N, ...), or was left halfway by a failed call.
    """
    if cache is None:
        return
    if cache.batch_size != len(x):
        raise UserError(
            f"input_ids: got a batch of {len(x)}; the cache holds {cache.batch_size} rows. "
            "Make one with model.new_cache(batch_size)."
        )
    cache.check_whole()


def padding(x: Tensor, cache: Cache | None, attention_mask: Tensor | None) -> Tensor | None:
    """The number of leading padding tokens of each row (B,), those of this call included; None if no row has any.

    Raises:
        UserError: the mask has a wrong shape, or padding that is not left of a row's tokens, or a row without tokens.
    """
    before, pad = (0, None) if cache is None else (cache.length, cache.pad)
    if attention_mask is None:
        return pad
    if attention_mask.shape != x.shape[:2]:
        raise UserError(
            f"attention_mask: got shape {tuple(attention_mask.shape)}; expected that of input_ids, "
            f"{tuple(x.shape[:2])}. On a warm cache it is for the new tokens only."
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


def placed(
    x: Tensor,
    cache: Cache | None,
    pad: Tensor | None,
    positions: Tensor | None,
    variance: Tensor | None,
    encodings: Sequence[PositionEncoding],
) -> Positions:
    """The positions of the tokens x (B, N, ...) of this call. encodings: those of all layers.

    Raises:
        UserError: given positions or variances have a wrong shape or value, an encoding cannot use them, or they are
            given in some calls on the cache and not in others.
    """
    before = 0 if cache is None else cache.length
    index = torch.arange(before, before + x.shape[1], device=x.device).unsqueeze(0)
    if pad is not None:
        index = (index - pad.unsqueeze(1)).clamp(min=0)  # (B, N)
    if cache is not None and cache.length and cache.given != (positions is not None):
        got, had = ("no positions", "had them") if cache.given else ("positions", "had none")
        raise UserError(f"positions: got {got}, and the tokens in the cache {had}; give them in every call, or in none")
    if positions is None:
        if variance is not None:
            raise UserError("position_variance: got one without positions; give the positions it belongs to")
        return Positions(index)
    for encoding in encodings:
        reason = encoding.counts_tokens
        if reason is None and (encoding.score_bias() is not None or encoding.score() is not None):
            reason = f"{type(encoding).__name__} scores by how many tokens lie between query and key"
        if reason is not None:
            raise UserError(f"positions: a layer of this model cannot take them: {reason}")
    if all(type(encoding).encode is PositionEncoding.encode for encoding in encodings):
        raise UserError("positions: no layer of this model reads them: no encoding changes queries or keys by position")
    mean = _like(x, positions, "positions")
    if variance is None:
        return Positions(index, mean)
    for encoding in encodings:
        if encoding.needs_exact is not None:
            raise UserError(f"position_variance: a layer of this model cannot take one: {encoding.needs_exact}")
    variance = _like(x, variance, "position_variance")
    if not variance.is_meta and bool((variance < 0).any()):
        raise UserError(f"position_variance: got {float(variance.min()):g}; a variance is 0 or more")
    return Positions(index, mean, variance)


def _like(x: Tensor, given: Tensor, name: str) -> Tensor:
    """The given numbers (1 or B, N) in float64, on the device of x."""
    batch, n = x.shape[:2]
    if given.dim() != 2 or given.shape[1] != n or given.shape[0] not in (1, batch) or given.is_complex():
        raise UserError(f"{name}: got shape {tuple(given.shape)}; expected numbers of shape (1 or {batch}, {n})")
    if not given.is_meta and not bool(given.isfinite().all()):
        raise UserError(f"{name}: got a number that is not finite; every position must be")
    return given.to(device=x.device, dtype=torch.float64)

"""Guesses of a smaller model, which reads the text along."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from miniwin.blocks.cache.rollback import Mark
from miniwin.blocks.decode.native_step import NativeStep
from miniwin.generation.decode_step import fastest_step
from miniwin.generation.sampling import Sampling, distribution, draw
from miniwin.inference import InferenceModel, chunk_for, evaluating, in_chunks
from miniwin.specs import UserError

FEW = 32  # tokens that the native step takes at once


class Draft:
    """The model reads `ids` as far as a guess needs it, and forgets the wrong guesses."""

    def __init__(self, model: InferenceModel, sampling: Sampling, vocabulary: int, room: int) -> None:
        """vocabulary: the ids that may be drawn. room: tokens of the text at most."""
        self.model, self.sampling, self.vocabulary = model, sampling, vocabulary
        self.cache = model.new_cache(1)
        self.cache.reserve(room)
        fast = fastest_step(model, self.cache, room)
        self.fast = fast if isinstance(fast, NativeStep) else None
        self._mark: Mark | None = None

    def guess(
        self, ids: Sequence[int], count: int, generator: torch.Generator
    ) -> tuple[list[int], list[Tensor | None]]:
        """The guessed tokens after `ids`, and what each was drawn from (V,); None if it is certain."""
        with evaluating(self.model):
            return self._guess(ids, count, generator)

    def _guess(
        self, ids: Sequence[int], count: int, generator: torch.Generator
    ) -> tuple[list[int], list[Tensor | None]]:
        logits = self._read(ids[self.cache.length :])
        self._mark = Mark(self.cache, count)
        tokens: list[int] = []
        each: list[Tensor | None] = []
        while True:
            try:
                chances = distribution(logits[: self.vocabulary], self.sampling)
            except UserError as error:
                raise UserError(f"speculate: the draft {self.model.ref}: {error}") from None
            tokens.append(int(chances.argmax()) if self.sampling.greedy else draw(chances, generator))
            each.append(None if self.sampling.greedy else chances)
            if len(tokens) == count:
                return tokens, each
            logits = self._read(tokens[-1:])

    def keep(self, right: int) -> None:
        """Of the last guess, only the first `right` tokens are in the text."""
        assert self._mark is not None
        self._mark.rollback(min(right, self.cache.length - self._mark.length))

    def _read(self, ids: Sequence[int]) -> Tensor:
        """The logits (V,) after these ids."""
        given = torch.tensor([list(ids)], device=self.model.device)  # (1, N)
        if self.fast is not None and len(ids) <= FEW:
            return (self.fast.step(given) if len(ids) == 1 else self.fast.steps(given))[0, -1]
        for _, logits in in_chunks(self.model, given, self.cache, chunk_for(len(ids)), logits_to_keep=1):  # noqa: B007
            pass
        return logits[0, -1]

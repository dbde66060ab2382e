"""Several documents in one row: no attention from one to another, and positions that restart with each.

Packing fills rows of equal length from documents of any length (as in T5, arXiv 1910.10683, section 3.1.1); told apart
here, each is computed as if it stood alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from miniwin.blocks.spec import UserError


@dataclass(frozen=True)
class Documents:
    """numbers (B, N) int64: of each token's document, growing along a row."""

    numbers: Tensor

    @cached_property
    def index(self) -> Tensor:
        """(B, N) int64: how many tokens of its document came before each token."""
        place = torch.arange(self.numbers.shape[1], device=self.numbers.device).expand_as(self.numbers)
        return place - place.where(self._first, 0).cummax(1).values

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of every document, row after row; on a GPU, asking for them waits for it, once."""
        begins = self._first.flatten().nonzero().flatten()
        end = begins.new_tensor([self.numbers.numel()])
        return torch.diff(begins, append=end).tolist()  # type: ignore[no-any-return]

    @property
    def _first(self) -> Tensor:
        """(B, N) bool: whether a document begins there."""
        begins = torch.ones_like(self.numbers, dtype=torch.bool)
        begins[:, 1:] = self.numbers[:, 1:] != self.numbers[:, :-1]
        return begins


def check_documents(documents: Tensor | None, x: Tensor, *others: object) -> Documents | None:
    """The documents of inputs x (B, N, ...); others: what they cannot be given together with, each None if absent."""
    if documents is None:
        return None
    if documents.shape != x.shape[:2] or documents.dtype not in (torch.int32, torch.int64):
        raise UserError(
            f"documents: got shape {tuple(documents.shape)} of {documents.dtype}; expected whole numbers of the shape "
            f"of the tokens, {tuple(x.shape[:2])}"
        )
    if any(other is not None for other in others):
        raise UserError(
            "documents: got them beside a cache, an attention_mask or positions; a packed row is computed in one call, "
            "has no padding, and counts positions from each document's first token"
        )
    if documents.device.type == "cpu" and bool((documents[:, 1:] < documents[:, :-1]).any()):
        raise UserError("documents: got numbers that fall along a row; number its documents from left to right")
    return Documents(documents.long())

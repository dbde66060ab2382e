"""Several documents in one row: no attention between documents, and positions that restart with each.

Packing fills rows of equal length with documents of any length (as in T5, arXiv 1910.10683, section 3.1.1). Each
document is computed as if it stood alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from miniwin.blocks.spec import UserError


@dataclass(frozen=True)
class Documents:
    """numbers (B, N) int64: the number of each token's document, which never falls along a row."""

    numbers: Tensor

    @cached_property
    def index(self) -> Tensor:
        """(B, N) int64: the number of tokens before each token in its document."""
        place = torch.arange(self.numbers.shape[1], device=self.numbers.device).expand_as(self.numbers)
        return place - place.where(self._first, 0).cummax(1).values

    @cached_property
    def lengths(self) -> list[int]:
        """The length of every document, row after row. The first use waits for a GPU."""
        begins = self._first.flatten().nonzero().flatten()
        end = begins.new_tensor([self.numbers.numel()])
        return torch.diff(begins, append=end).tolist()  # type: ignore[no-any-return]

    @property
    def _first(self) -> Tensor:
        """(B, N) bool: whether a token is the first of its document."""
        begins = torch.ones_like(self.numbers, dtype=torch.bool)
        begins[:, 1:] = self.numbers[:, 1:] != self.numbers[:, :-1]
        return begins


def check_documents(documents: Tensor | None, x: Tensor, *others: object) -> Documents | None:
    """The documents (B, N) of inputs x (B, N, ...), checked; None if none are given.

    others: arguments that exclude documents, each None if absent.

    Raises:
        UserError: wrong shape or type, numbers that fall along a row, or another of these arguments is given.
    """
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

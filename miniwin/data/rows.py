"""Rows to train on: each is (inputs, targets), a pure function of (number, seq_len, seed). The kinds of rows:

batches.py    TextRows: windows of a long array of token ids
examples.py   ExampleRows: examples of a task, drawn when they are needed
chat_rows.py  ChatRows: whole chats, of which answers are counted
    mixture.py    MixedRows: rows of several of these
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

IGNORED = -100  # the target of a token that is not counted, as in torch
Row = tuple[np.ndarray, np.ndarray]  # inputs (N,), targets (N,): integers


class Rows(Protocol):
    """Endless rows of any length. Rows of one length are numbered by themselves."""

    def check(self, seq_len: int) -> None:
        """Raise UserError if there are no rows of this length."""

    def rows(self, first: int, count: int, seq_len: int, seed: int) -> Sequence[Row]:
        """`count` rows of N = seq_len tokens, from number `first` on, each part's together. seed: that of the run."""

    def documents(self, first: int, count: int, seq_len: int, seed: int) -> Mapping[int, np.ndarray]:
        """Of the rows whose documents no separator tells apart: the number of each token's document, (N,)."""

    def sizes(self, first: int, count: int) -> tuple[int, ...]:
        """How many of these rows each part has; of a single part, all."""

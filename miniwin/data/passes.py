"""Which rows each forward and backward pass of a run reads: of one length, and as many tokens as any other pass.

    pass k has length N_i with (i, m) = dealt(k, weights)           see shares.py
    it has batch_size * longest / N_i rows, and m passes of its length came before

Nothing here depends on the run so far, so a run resumes at any pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from miniwin.data.shares import dealt


class Pass(NamedTuple):
    """`batch_size` rows, from number `first` on, of those with `seq_len` tokens."""

    first: int
    batch_size: int
    seq_len: int


@dataclass(frozen=True)
class Passes:
    """lengths: those of the rows. weights: how often a pass has each. batch_size: rows of the longest in a pass."""

    lengths: tuple[int, ...]
    weights: tuple[float, ...]
    batch_size: int

    def __getitem__(self, number: int) -> Pass:
        place, before = dealt(number, self.weights) if len(self.lengths) > 1 else (0, number)
        seq_len = self.lengths[place]
        rows = self.batch_size * max(self.lengths) // seq_len
        return Pass(before * rows, rows, seq_len)

"""Rows of chats: whole chats side by side, as many as fit, and padding behind them.

    chat    ids t_0 .. t_n: inputs t_0 .. t_n-1, targets t_1 .. t_n, or -100 for a target that is not counted
    row     chats one after the other, and what is left filled with zeros that are not counted

No chat is cut in two, and no target is the beginning of the next chat. A chat that is longer than a row is cut at its
end. With `packing: documents` a token sees its own chat only. An epoch has all rows once, in a seeded order.

Nothing is drawn from a state, so a run resumes at any row. Shapes: N seq_len, C chats.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from miniwin.data.batches import epoch_order, from_disk, on_disk
from miniwin.data.rows import IGNORED, Row
from miniwin.specs import UserError


class ChatRows:
    """ids (tokens,): of all chats. counted (tokens,): 1 for those of answers. starts (C + 1,): where chats begin."""

    def __init__(self, ids: np.ndarray, counted: np.ndarray, starts: np.ndarray) -> None:
        self.ids, self.counted, self.starts = ids, counted, starts
        self._packed = lru_cache(maxsize=8)(self._pack)
        self._kept = lru_cache(maxsize=8)(self._fitting)

    def check(self, seq_len: int) -> None:
        if not len(self._kept(seq_len)):
            longest = int(np.diff(self.starts).max())
            raise UserError(
                f"data: no chat has an answer within its first {seq_len} tokens (seq_len); the longest has "
                f"{longest:,}: make seq_len longer"
            )

    def too_long(self, seq_len: int) -> dict[str, int]:
        """How many chats a row is too short for: those that are cut, and those left out, without an answer in it."""
        longer = np.flatnonzero(np.diff(self.starts) - 1 > seq_len)
        cut = int(np.isin(longer, self._kept(seq_len)).sum())
        return {"cut": cut, "left_out": len(longer) - cut}

    def rows(self, first: int, count: int, seq_len: int, seed: int) -> list[Row]:
        return [self._row(chats, seq_len) for chats in self._chats(first, count, seq_len, seed)]

    def documents(self, first: int, count: int, seq_len: int, seed: int) -> dict[int, np.ndarray]:
        """For each row the number of the chat that each of its inputs is of, (N,)."""
        found = {}
        for place, chats in enumerate(self._chats(first, count, seq_len, seed)):
            sizes = [self._size(chat, seq_len) for chat in chats]
            numbers = np.full(seq_len, len(chats), dtype=np.int64)
            numbers[: sum(sizes)] = np.repeat(np.arange(len(chats)), sizes)
            found[place] = numbers
        return found

    def sizes(self, first: int, count: int) -> tuple[int, ...]:
        return (count,)

    def _chats(self, first: int, count: int, seq_len: int, seed: int) -> list[list[int]]:
        """The chats of some rows. Rows are numbered across epochs, and each epoch has all of them in another order."""
        packed = self._packed(seq_len, seed)
        found = []
        for number in range(first, first + count):
            epoch, place = divmod(number, len(packed))
            found.append(packed[int(epoch_order(seed, epoch, len(packed), 1)[0][place])])
        return found

    def _pack(self, seq_len: int, seed: int) -> list[list[int]]:
        """The chats of each row. A row ends where the next chat does not fit."""
        kept = self._kept(seq_len)
        rows: list[list[int]] = []
        room = 0
        for place in epoch_order(seed, -1, len(kept), 1)[0]:
            chat = int(kept[place])
            size = self._size(chat, seq_len)
            if size > room:
                rows.append([])
                room = seq_len
            rows[-1].append(chat)
            room -= size
        return rows

    def _fitting(self, seq_len: int) -> np.ndarray:
        """The chats with a counted target within a row."""
        kept = []
        for chat, (begin, end) in enumerate(zip(self.starts[:-1], self.starts[1:], strict=True)):
            if self.counted[begin + 1 : min(end, begin + seq_len + 1)].any():
                kept.append(chat)
        return np.array(kept, dtype=np.int64)

    def _size(self, chat: int, seq_len: int) -> int:
        """How many inputs a chat has."""
        return min(int(self.starts[chat + 1] - self.starts[chat]) - 1, seq_len)

    def _row(self, chats: list[int], seq_len: int) -> Row:
        inputs, targets = np.zeros(seq_len, dtype=np.int64), np.full(seq_len, IGNORED, dtype=np.int64)
        at = 0
        for chat in chats:
            size, begin = self._size(chat, seq_len), int(self.starts[chat])
            ids = self.ids[begin : begin + size + 1].astype(np.int64)
            inputs[at : at + size] = ids[:-1]
            counted = self.counted[begin + 1 : begin + size + 1] != 0
            targets[at : at + size] = np.where(counted, ids[1:], IGNORED)
            at += size
        return inputs, targets

    def __getstate__(self) -> Any:
        return [on_disk(one) for one in (self.ids, self.counted, self.starts)]

    def __setstate__(self, state: Any) -> None:
        self.__init__(*map(from_disk, state))  # type: ignore[misc]

"""Guesses from the text so far: what followed the last tokens where they stood before (prompt lookup).

Of the places where the last GRAM tokens stood before, the one is taken where most tokens before it are the same, too.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence

GRAM = 3  # tokens that have to be the same
PLACES = 8  # the latest places of these tokens that are looked at
LONGEST = 32  # tokens that are compared
REACH = 1 << 18  # the last tokens of what was read that are looked through


class Lookup:
    """`add` takes the tokens of the text, `guess` says what may follow."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids: list[int] = []
        self._after: defaultdict[tuple[int, ...], deque[int]] = defaultdict(lambda: deque(maxlen=PLACES))
        self.add(ids[-REACH:])

    def add(self, ids: Sequence[int]) -> None:
        for token in ids:
            if len(self._ids) >= GRAM:
                self._after[tuple(self._ids[-GRAM:])].append(len(self._ids))
            self._ids.append(token)

    def place(self) -> tuple[int, int]:
        """(where it goes on as here, how many tokens before are the same); (0, 0) if nowhere."""
        best = (0, 0)
        for after in reversed(self._after.get(tuple(self._ids[-GRAM:]), ())):
            same = self._same(after)
            if same > best[1]:
                best = (after, same)
                if same == LONGEST:
                    break
        return best

    def guess(self, place: int, count: int) -> list[int]:
        """The `count` tokens from `place` on. Beyond the end of the text the guess goes on with itself."""
        guessed: list[int] = []
        end = len(self._ids)
        for at in range(place, place + count):
            guessed.append(self._ids[at] if at < end else guessed[at - end])
        return guessed

    def _same(self, after: int) -> int:
        ids, end, same = self._ids, len(self._ids), GRAM
        while same < LONGEST and after > same and ids[after - same - 1] == ids[end - same - 1]:
            same += 1
        return same

"""Stop strings in text that is shown while it is still being written.

Text that may be the beginning of a stop string is held back until more text is known: what has been let out is never
taken back. No more than that is held back.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Cuts a stream of text at the first stop string. No part of the stop string is let out."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._pending = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Add text. Returns what can be let out now. Sets `stopped` when a stop string is complete: nothing follows."""
        if self.stopped:
            return ""
        self._pending += text
        # The stop string that is complete first wins, however the text was cut into tokens.
        found = [(at + len(stop), at) for stop in self._stops if (at := self._pending.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._let_out(min(found)[1])
        return self._let_out(len(self._pending) - self._held())

    def flush(self) -> str:
        """What was held back. Called when nothing follows."""
        return "" if self.stopped else self._let_out(len(self._pending))

    def _held(self) -> int:
        """Length of the longest suffix of the pending text that is a prefix of a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for size in range(min(longest, len(self._pending)), 0, -1):
            if any(stop.startswith(self._pending[-size:]) for stop in self._stops):
                return size
        return 0

    def _let_out(self, count: int) -> str:
        text, self._pending = self._pending[:count], self._pending[count:]
        return text

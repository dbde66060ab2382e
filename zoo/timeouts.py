"""How long a transfer may take.

A server can keep a connection alive for ever with a byte now and then. So an answer has to begin within
TIMEOUT seconds, redirects included; from then on MIN_RATE bytes a second have to come, counted over TIMEOUT
seconds; and the whole has an end.
"""

from __future__ import annotations

import time

TIMEOUT = 30.0
MIN_RATE = 4096


def for_bytes(size: int) -> Clock:
    """For a file of this size, with a few requests that wait in vain."""
    return Clock(4 * TIMEOUT + size / MIN_RATE)


class Clock:
    """One transfer, which may be of several requests."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self.await_answer()

    def await_answer(self) -> None:
        """A request is about to be sent."""
        self._receiving, self._bytes = False, 0
        self._until = time.monotonic() + TIMEOUT

    def receive(self) -> None:
        """The answer's content begins."""
        self._receiving, self._bytes = True, 0
        self._until = time.monotonic() + TIMEOUT

    def count(self, received: int) -> None:
        self._bytes += received
        if self._receiving and self._bytes >= MIN_RATE * TIMEOUT:
            self.receive()

    def left(self) -> float:
        """Seconds that the next step may take."""
        left = min(self._until, self._end) - time.monotonic()
        if left <= 0:
            raise self.over()
        return left

    def left_in_all(self) -> float:
        """Seconds until another try is of no use."""
        return max(0.0, self._end - time.monotonic())

    def ended(self) -> bool:
        return self.left_in_all() <= 0

    def over(self) -> TimeoutError:
        if self.ended():
            return TimeoutError(f"it was not done after {self._seconds:g} s")
        if self._receiving:
            return TimeoutError(f"fewer than {MIN_RATE * TIMEOUT:,.0f} bytes came in {TIMEOUT:g} s")
        return TimeoutError(f"the answer did not begin within {TIMEOUT:g} s")

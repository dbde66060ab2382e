"""How long a transfer may take.

A server can keep a connection alive for ever with a byte now and then. So there are three limits. An answer has to
begin within TIMEOUT seconds, redirects included. From then on MIN_RATE bytes a second have to come, counted over
TIMEOUT seconds. And the whole transfer has an end.
"""

from __future__ import annotations

import time

TIMEOUT = 30.0
MIN_RATE = 4096


def for_bytes(size: int) -> Clock:
    """The clock of a file of `size` bytes: its time at MIN_RATE, and that of a few requests without an answer."""
    return Clock(4 * TIMEOUT + size / MIN_RATE)


class Clock:
    """The time limits of one transfer, which may take several requests."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self.await_answer()

    def await_answer(self) -> None:
        """Start the time of an answer: a request is about to be sent."""
        self._receiving, self._bytes = False, 0
        self._until = time.monotonic() + TIMEOUT

    def receive(self) -> None:
        """Start the count of bytes: the content of the answer begins."""
        self._receiving, self._bytes = True, 0
        self._until = time.monotonic() + TIMEOUT

    def count(self, received: int) -> None:
        """Count bytes that came. After enough of them the count starts anew."""
        self._bytes += received
        if self._receiving and self._bytes >= MIN_RATE * TIMEOUT:
            self.receive()

    def left(self) -> float:
        """Seconds that the next step may take. Raises TimeoutError where none are left."""
        left = min(self._until, self._end) - time.monotonic()
        if left <= 0:
            raise self.over()
        return left

    def left_in_all(self) -> float:
        """Seconds that are left of the whole transfer."""
        return max(0.0, self._end - time.monotonic())

    def ended(self) -> bool:
        return self.left_in_all() <= 0

    def over(self) -> TimeoutError:
        """The error that says which limit was broken."""
        if self.ended():
            return TimeoutError(f"it was not done after {self._seconds:g} s")
        if self._receiving:
            return TimeoutError(f"fewer than {MIN_RATE * TIMEOUT:,.0f} bytes came in {TIMEOUT:g} s")
        return TimeoutError(f"the answer did not begin within {TIMEOUT:g} s")

"""What a person sees while a suite runs: the part that is measured, how many there are, and the time left.

On a terminal one bar; otherwise a plain line as each part ends. All of it goes to stderr. The time left goes by tokens:
tokens of long texts take longer, so it is a little short at first.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from miniwin.blocks.messages.escaping import escaped
from miniwin.display.formats import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from miniwin.evaluation.suite.part import Part


class SuiteProgress:
    """parts: those that are still to be measured. done: how many were measured before, by an earlier process."""

    def __init__(self, parts: Sequence[Part], done: int, enabled: bool) -> None:
        self._enabled, self._done, self._count = enabled, done, done + len(parts)
        self._total, self._read = sum(part.tokens for part in parts), 0
        self._bars: Any = _bars() if enabled and sys.stderr.isatty() else None
        self._began = time.monotonic()

    def __enter__(self) -> SuiteProgress:
        if self._bars is not None:
            self._bars.start()
            self._bar = self._bars.add_task("", total=max(self._total, 1), parts="", left="-")
        elif self._enabled and self._done:
            print(f"{self._done} of {self._count} parts were measured before", file=sys.stderr, flush=True)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    @contextmanager
    def part(self, part: Part) -> Iterator[Callable[[int], None]]:
        """While a part is measured. Yields the function to call with the tokens just read."""
        before, began = self._read, time.monotonic()

        def advance(tokens: int) -> None:
            self._read = min(self._read + tokens, before + part.tokens)
            self._show(part)

        self._show(part)
        yield advance
        self._read, self._done = before + part.tokens, self._done + 1
        if self._enabled and self._bars is None:
            took, left = duration(time.monotonic() - began), self._left()
            print(
                f"{self._done} of {self._count}  {escaped(part.title)}: {took}, {left} left",
                file=sys.stderr,
                flush=True,
            )

    def _left(self) -> str:
        seconds = time.monotonic() - self._began
        if self._read == self._total:
            return duration(0)
        return duration((self._total - self._read) * seconds / self._read) if self._read else "unknown"

    def _show(self, part: Part) -> None:
        if self._bars is not None:
            self._bars.update(
                self._bar,
                completed=self._read,
                description=escaped(part.title),
                parts=f"{self._done + 1} of {self._count}",
                left=f"{self._left()} left",
            )


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    return Progress(
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[parts]}", markup=False),
        TextColumn("{task.fields[left]}", markup=False),
        console=Console(stderr=True),
    )

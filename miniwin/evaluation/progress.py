"""What a person sees while a model is evaluated: a bar for each part of the work, tokens/s and time left.

On a terminal rich bars; otherwise one plain line as each part ends. All of it goes to stderr.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from miniwin.blocks.messages.escaping import escaped
from miniwin.display.formats import duration, rate


class EvaluationProgress:
    """`task(name, total)` begins a part of the work. It returns a function to call with the tokens just done."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._bars: Any = _rich_bars() if enabled and sys.stderr.isatty() else None

    def __enter__(self) -> EvaluationProgress:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def task(self, name: str, total: int) -> Callable[[int], None]:
        if not self._enabled:
            return lambda tokens: None
        bar = None if self._bars is None else self._bars.add_task(escaped(name), total=total, rate="-", left="-")
        started, done = time.monotonic(), 0

        def advance(tokens: int) -> None:
            nonlocal done
            done += tokens
            seconds = max(time.monotonic() - started, 1e-9)
            if self._bars is not None:
                left = duration((total - done) * seconds / done) if done < total else duration(seconds)
                self._bars.update(bar, completed=done, rate=rate(done / seconds), left=left)
            elif done >= total:
                print(f"{escaped(name)}: {duration(seconds)}, {rate(done / seconds)}", file=sys.stderr, flush=True)

        return advance


def _rich_bars() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    return Progress(
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]}"),
        console=Console(stderr=True),
    )

"""What a person sees while a run trains: a bar with loss, tokens/s and time left.

On a terminal a rich bar; otherwise (a log file, a pipe) one plain line about every ten seconds. All of it
goes to stderr: stdout stays free for results.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from miniwin.blocks.messages.escaping import escaped
from miniwin.display.formats import duration, rate

PLAIN_SECONDS = 10.0
BAR_WIDTH = 100  # columns of a bar besides the name: what is left is for the losses of parts


class TrainProgress:
    """Shows steps of a run. With `enabled=False` it shows nothing and costs nothing."""

    def __init__(self, name: str, steps: int, tokens_per_step: int, done: int = 0, enabled: bool = True) -> None:
        self.name, self.steps, self.tokens_per_step = name, steps, tokens_per_step
        self._enabled = enabled
        self._last = time.monotonic()
        self._bar: Any = None
        if enabled and sys.stderr.isatty():
            self._bar = _rich_bar()
            nothing = {"loss": "-", "rate": "-", "left": "-", "found": "", "parts": ""}
            self._task = self._bar.add_task(escaped(name), total=steps, completed=done, **nothing)

    def __enter__(self) -> TrainProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(
        self, step: int, loss: float, tokens_per_second: float, parts: Mapping[str, float] | None = None
    ) -> None:
        """`step` steps are done; `loss` is smoothed. parts: the losses of a mixture's parts, if there is room."""
        if not self._enabled:
            return
        if self._bar is None and time.monotonic() - self._last < PLAIN_SECONDS:
            return
        self._last = time.monotonic()
        speed = rate(tokens_per_second)
        remaining = (self.steps - step) * self.tokens_per_step
        left = duration(remaining / tokens_per_second) if tokens_per_second else "-"
        shown = ", ".join(f"{name} {value:.3f}" for name, value in (parts or {}).items())
        if self._bar is not None:
            room = self._bar.console.width - len(self.name) - BAR_WIDTH
            shown = shown if len(shown) <= room else ""
            self._bar.update(
                self._task, completed=step, loss=f"{loss:.3f}", rate=speed, left=left, parts=escaped(shown)
            )
        else:
            loss_of = f" ({shown})" if shown else ""
            self.note(f"{self.name}: step {step}/{self.steps}  loss {loss:.3f}{loss_of}  {speed}  {left} left")

    def evaluating(self, what: str) -> None:
        """The run pauses to measure something."""
        if self._bar is not None:
            self._bar.update(self._task, found=f"measuring {escaped(what)}")

    def evaluated(self, found: str) -> None:
        """What an evaluation found. It stays beside the bar until the next one."""
        if self._bar is not None:
            self._bar.update(self._task, found=escaped(found))
        else:
            self.note(f"{self.name}: valid  {found}")

    def note(self, text: str) -> None:
        """One line for the person watching, above the bar where there is one."""
        if not self._enabled:
            return
        if self._bar is not None:
            self._bar.console.print(escaped(text), markup=False, highlight=False)
        else:
            print(escaped(text), file=sys.stderr, flush=True)


def _rich_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]} left"),
        TextColumn("{task.fields[parts]}", markup=False),
        TextColumn("{task.fields[found]}", markup=False),
        console=Console(stderr=True),
        transient=False,
    )

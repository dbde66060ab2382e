"""One text that is being written for a client: its ids, its settings, its cache, and the events for the client.

A job is made in the thread of the server and then belongs to the thread of the model. What it tells goes into the queue
of its request, through the event loop.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from miniwin.blocks import Cache
from miniwin.blocks.cache.rollback import Mark
from miniwin.generation.continuation import Continuation
from miniwin.generation.sampling import Sampling
from miniwin.serving.errors import APIError

FINISHED = {"length": "length", "stop": "stop", "separator": "stop"}


@dataclass(frozen=True)
class Drawn:
    """A drawn token, its log-probability, and the most probable tokens with theirs."""

    token: int
    logprob: float
    top: list[tuple[int, float]]


@dataclass(frozen=True)
class Event:
    """choice: which text of the request. end: why it ended. cached: ids of the prompt that were not read again."""

    choice: int
    text: str = ""
    drawn: tuple[Drawn, ...] = ()
    end: str | None = None
    new: int = 0
    cached: int = 0
    error: APIError | None = None


class Waiting:
    """A request: its jobs, and the queue through which they answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()
        self.jobs: list[Job] = []

    def tell(self, event: Event) -> None:
        """Called in the thread of a model."""
        try:
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)
        except RuntimeError:  # the loop is closed: the server has ended
            self.cancel()

    def cancel(self) -> None:
        for job in self.jobs:
            job.cancelled = True


@dataclass(eq=False)
class Job:
    """ids: of the prompt. top: how many most probable tokens to tell, None for no log-probabilities at all."""

    waiting: Waiting
    choice: int
    ids: list[int]
    sampling: Sampling
    text: Continuation
    deadline: float
    top: int | None = None
    cancelled: bool = False
    begun: float = field(default_factory=time.monotonic)
    cache: Cache | None = None
    mark: Mark | None = None  # of the cache before the last id of the prompt
    read: int = 0  # ids that the cache holds
    cached: int = 0
    last: float | None = None  # when the last token came
    drawn: list[Drawn] = field(default_factory=list)
    told: int = 0  # of `drawn`
    _pieces: list[str] = field(default_factory=list)

    def piece(self, text: str) -> None:
        self._pieces.append(text)

    @property
    def length(self) -> int:
        return len(self.ids) + len(self.text.ids)

    @property
    def context(self) -> list[int]:
        """All ids so far."""
        return self.ids + self.text.ids

    def tell(self) -> None:
        """Tell the text that has become certain, with the tokens that it is made of, and the end."""
        text, ended = "".join(self._pieces), self.text.ended
        if not text and ended is None:
            return
        self._pieces.clear()
        upto = len(self.text.shown_ids() if ended else self.text.certain_ids())
        drawn = tuple(self.drawn[self.told : upto])
        self.told = max(self.told, upto)
        end = None if ended is None else FINISHED[ended]
        self.waiting.tell(Event(self.choice, text, drawn, end, len(self.text.ids), self.cached))

    def fail(self, error: APIError) -> None:
        self.cancelled = True
        self.waiting.tell(Event(self.choice, error=error))

"""One text that is being written for a client: its ids, its settings, its cache, and the events for the client.

A job is made in the thread of the server and then belongs to the thread of the model. What it tells goes into the queue
of its request, through the event loop. The tokens of a fast model are told in groups: a client that got each one by
itself would cost more time than the model.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field

from miniwin.blocks import Cache
from miniwin.blocks.cache.rollback import Mark
from miniwin.generation.continuation import Continuation
from miniwin.generation.sampling import Sampling
from miniwin.serving.errors import APIError

PAUSE = 0.02  # seconds between what a stream gets, at least
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

    def __init__(self, loop: asyncio.AbstractEventLoop, stream: bool = True) -> None:
        """stream: whether the client gets the text while it is written."""
        self.loop, self.stream = loop, stream
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()
        self.jobs: list[Job] = []

    def cancel(self) -> None:
        for job in self.jobs:
            job.cancelled = True


def tell(news: list[tuple[Waiting, Event]]) -> None:
    """Put events into the queues of their requests. Called in the thread of a model."""
    for loop in {waiting.loop for waiting, _ in news}:
        mine = [one for one in news if one[0].loop is loop]
        try:
            loop.call_soon_threadsafe(_put, mine)  # it wakes the loop: once for all of them
        except RuntimeError:  # the loop is closed: the server has ended
            for waiting, _ in mine:
                waiting.cancel()


def _put(news: list[tuple[Waiting, Event]]) -> None:
    for waiting, event in news:
        waiting.events.put_nowait(event)


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
    told_at: float = -math.inf
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

    def news(self, now: float) -> Event | None:
        """The text that has become certain, with the tokens that it is made of, and the end; None: not yet."""
        ended = self.text.ended
        if ended is None and (not self.waiting.stream or now < self.told_at + PAUSE):
            return None
        return self._said(now)

    def _said(self, now: float) -> Event | None:
        text, ended, drawn = "".join(self._pieces), self.text.ended, tuple[Drawn, ...]()
        if not text and ended is None:
            return None
        self._pieces.clear()
        self.told_at = now
        if self.top is not None:
            upto = len(self.text.shown_ids() if ended else self.text.certain_ids())
            drawn = tuple(self.drawn[self.told : upto])
            self.told = max(self.told, upto)
        end = None if ended is None else FINISHED[ended]
        return Event(self.choice, text, drawn, end, len(self.text.ids), self.cached)

    def fail(self, error: APIError) -> None:
        self.cancelled = True
        last = self._said(time.monotonic()) if self.text.ended is None else None
        said = [event for event in (last, Event(self.choice, error=error)) if event is not None]
        tell([(self.waiting, event) for event in said])

"""Answers in OpenAI's shapes: whole ones, and chunks of a stream."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from miniwin.serving import logprobs
from miniwin.serving.job import Drawn, Event, Waiting
from miniwin.tokenizer.interface import Tokenizer


@dataclass
class Form:
    """What all answers to a request have in common. prompt_tokens: of each choice, n choices share a prompt."""

    chat: bool
    model: str
    fingerprint: str
    tokenizer: Tokenizer
    with_logprobs: bool
    with_usage: bool
    prompts: list[int]
    n: int
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))
    _offsets: dict[int, int] = field(default_factory=dict)
    _new: dict[int, int] = field(default_factory=dict)
    _cached: dict[int, int] = field(default_factory=dict)

    def count(self, event: Event) -> None:
        self._new[event.choice] = event.new
        self._cached.setdefault(event.choice // self.n, event.cached)

    def usage(self) -> dict[str, Any]:
        read, new = sum(self.prompts), sum(self._new.values())
        cached = {"cached_tokens": sum(self._cached.values())}
        return {
            "prompt_tokens": read,
            "completion_tokens": new,
            "total_tokens": read + new,
            "prompt_tokens_details": cached,
        }

    def envelope(self, choices: list[dict[str, Any]], chunk: bool) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if chunk else "chat.completion") if self.chat else "text_completion"
        return {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }

    def logprobs(self, choice: int, drawn: tuple[Drawn, ...]) -> dict[str, Any] | None:
        if not self.with_logprobs:
            return None
        if self.chat:
            return logprobs.of_chat(self.tokenizer, drawn)
        found, self._offsets[choice] = logprobs.of_completion(self.tokenizer, drawn, self._offsets.get(choice, 0))
        return found


async def whole(form: Form, waiting: Waiting) -> dict[str, Any]:
    """The answer when all texts have ended.

    Raises:
        APIError: a text failed.
    """
    texts = {job.choice: "" for job in waiting.jobs}
    drawn: dict[int, tuple[Drawn, ...]] = dict.fromkeys(texts, ())
    ends: dict[int, str] = {}
    while len(ends) < len(texts):
        event = await waiting.events.get()
        if event is None:
            break
        if event.error is not None:
            raise event.error
        form.count(event)
        texts[event.choice] += event.text
        drawn[event.choice] += event.drawn
        if event.end is not None:
            ends[event.choice] = event.end
    choices: list[dict[str, Any]] = []
    for i, text in sorted(texts.items()):
        said = {"message": {"role": "assistant", "content": text, "refusal": None}} if form.chat else {"text": text}
        more = {"logprobs": form.logprobs(i, drawn[i]), "finish_reason": ends.get(i)}
        choices.append({"index": i, **said, **more})
    return {**form.envelope(choices, False), "usage": form.usage()}


async def chunks(form: Form, waiting: Waiting) -> AsyncIterator[bytes]:
    """The lines of a stream of server-sent events."""
    ended = 0
    usage = {"usage": None} if form.with_usage else {}
    if form.chat:
        for job in waiting.jobs:
            first = {"delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
            yield line({**form.envelope([{"index": job.choice, **first}], True), **usage})
    while ended < len(waiting.jobs):
        event = await waiting.events.get()
        if event is None:
            return
        if event.error is not None:
            yield line(event.error.body())
            return
        form.count(event)
        ended += event.end is not None
        said: dict[str, Any] = {"delta": {"content": event.text}} if form.chat else {"text": event.text}
        if form.chat and not event.text:
            said = {"delta": {}}
        more = {"logprobs": form.logprobs(event.choice, event.drawn), "finish_reason": event.end}
        yield line({**form.envelope([{"index": event.choice, **said, **more}], True), **usage})
    if form.with_usage:
        yield line({**form.envelope([], True), "usage": form.usage()})
    yield b"data: [DONE]\n\n"


def line(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"

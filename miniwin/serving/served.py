"""A model as it is served: its name, its limits, its thread, and how requests become jobs."""

from __future__ import annotations

import time
from dataclasses import replace
from hashlib import sha256
from typing import Any

from miniwin.chat.conversation import ChatModel
from miniwin.generation.continuation import Continuation
from miniwin.generation.sampling import Sampling
from miniwin.generation.settings import prompt_ids
from miniwin.serving.errors import APIError, too_long
from miniwin.serving.job import Job, Waiting
from miniwin.serving.requests import ChatRequest, Common, CompletionRequest, quoted
from miniwin.serving.worker import Worker
from miniwin.specs import UserError

COMPLETION_TOKENS, CHAT_TOKENS = 16, 1024  # new tokens where a request does not say


class ServedModel:
    def __init__(
        self, model: ChatModel, name: str, digest: str, worker: Worker, max_length: int, seconds: float
    ) -> None:
        """max_length: ids of a prompt and its text at most. seconds: for a request at most."""
        self.model, self.name, self.worker, self.seconds = model, name, worker, seconds
        assert model.tokenizer is not None
        self.tokenizer = model.tokenizer
        self.created = int(time.time())
        known = [model.spec.embed_positions, None if model.chat_format is None else model.chat_format.context]
        self.max_length = min([max_length, *(one for one in known if one is not None)])
        self.fingerprint = f"fp_{sha256(digest.encode()).hexdigest()[:12]}"

    def prompts(self, request: Common) -> list[list[int]]:
        """The ids of each prompt.

        Raises:
            APIError: a prompt is not one, or the model has no chat template.
        """
        try:
            if isinstance(request, ChatRequest):
                return [self._chat(request)]
            assert isinstance(request, CompletionRequest)
            if not request.prompts:
                raise APIError(400, "prompt: got none", param="prompt")
            return [prompt_ids(self.model, prompt) for prompt in request.prompts]
        except UserError as error:
            place = "messages" if isinstance(request, ChatRequest) else "prompt"
            raise APIError(400, quoted(error), param=place) from None

    def _chat(self, request: ChatRequest) -> list[int]:
        chat_format = self.model.chat_format
        if chat_format is None:
            raise APIError(
                400,
                f"{self.name} has no chat template: it was not made for chats. POST /v1/completions continues a text; "
                "or start the server with --chat-template FILE",
                param="model",
                code="no_chat_template",
            )
        messages = [{**one, "content": _text(i, one.get("content"))} for i, one in enumerate(request.messages)]
        ids = self.tokenizer.encode_marked(chat_format.render(messages, add_generation_prompt=True))
        return prompt_ids(self.model, ids)

    def jobs(self, request: Common, prompts: list[list[int]], waiting: Waiting) -> list[Job]:
        """
        Raises:
            APIError: a prompt and its text are too long.
        """
        chat = isinstance(request, ChatRequest)
        asked = request.max_tokens or (request.max_completion_tokens if isinstance(request, ChatRequest) else None)
        sampling = Sampling(
            1.0 if request.temperature is None else request.temperature,
            request.top_k or 0,
            1.0 if request.top_p is None else request.top_p,
            request.min_p or 0.0,
        )
        ends = self.model.ends
        if chat and self.model.chat_format is not None:
            ends = (*ends, *self.model.chat_format.end_ids(self.tokenizer))
        top = _top(request)
        n, deadline, made = request.n or 1, time.monotonic() + self.seconds, []
        for place, ids in enumerate(prompts):
            left = self.max_length - len(ids)
            most = asked or max(1, min(left, CHAT_TOKENS if chat else COMPLETION_TOKENS))
            if most > left:
                where = "messages" if chat else "prompt"
                raise too_long(
                    f"{len(ids):,} tokens and up to {most:,} new ones are more than the {self.max_length:,} that this "
                    "server allows: shorten the prompt, or ask for fewer",
                    where,
                )
            for i in range(n):
                seed = None if request.seed is None else request.seed + i if request.seed + i < 2**64 else i
                text = Continuation(self.tokenizer, ids, most, request.stops, seed, None, ends)
                job = Job(waiting, place * n + i, ids, replace(sampling), text, deadline, top)
                text.let_out_to(job.piece)
                made.append(job)
        return made


def _top(request: Common) -> int | None:
    if isinstance(request, CompletionRequest):
        return request.logprobs
    assert isinstance(request, ChatRequest)
    return (request.top_logprobs or 0) if request.logprobs else None


def _text(place: int, content: Any) -> Any:
    """The text of a message, which may come in parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content:
        parts = [one.get("text") for one in content if isinstance(one, dict) and one.get("type") == "text"]
        if len(parts) == len(content) and all(isinstance(part, str) for part in parts):
            return "".join(map(str, parts))
    raise APIError(400, f"messages[{place}].content: expected text, or a list of parts of type text", param="messages")

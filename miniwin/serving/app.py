"""The routes: /v1/models, /v1/completions, /v1/chat/completions, /metrics and /health."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

from fastapi import FastAPI, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from miniwin.blocks.messages.escaping import escaped_line
from miniwin.serving.answers import Form, chunks, whole
from miniwin.serving.errors import APIError
from miniwin.serving.job import Waiting
from miniwin.serving.limits import App, Limits, Message, Receive, Send, refuse
from miniwin.serving.metrics import Metrics
from miniwin.serving.requests import ChatRequest, Common, CompletionRequest, parsed, quoted
from miniwin.serving.served import ServedModel

LOG = logging.getLogger(__name__)


def make_app(models: Sequence[ServedModel], metrics: Metrics, key: str | None, max_body: int, local: bool) -> App:
    """The application. local: whether only names of this machine are let in."""
    by_name = {one.name: one for one in models}
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def found(name: str) -> ServedModel:
        if name not in by_name:
            known = ", ".join(by_name)
            raise APIError(
                404, f"model: got {quoted(repr(name))}; here are {known}", param="model", code="model_not_found"
            )
        return by_name[name]

    def about(one: ServedModel) -> dict[str, Any]:
        return {"id": one.name, "object": "model", "created": one.created, "owned_by": "miniwin"}

    @app.get("/health")
    async def health() -> JSONResponse:
        dead = [one.name for one in models if not one.worker.is_alive()]
        return JSONResponse({"status": "failed" if dead else "ok", "models": list(by_name)}, 503 if dead else 200)

    @app.get("/metrics")
    async def numbers() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models")
    async def listed() -> JSONResponse:
        return JSONResponse({"object": "list", "data": [about(one) for one in models]})

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> JSONResponse:
        return JSONResponse(about(found(name)))

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await answered(request, parsed(await request.body(), CompletionRequest))

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        return await answered(request, parsed(await request.body(), ChatRequest))

    async def answered(request: Request, wanted: Common) -> Response:
        served = found(wanted.model)
        prompts = await run_in_threadpool(served.prompts, wanted)  # encoding a long text takes a while
        waiting = Waiting(asyncio.get_running_loop(), bool(wanted.stream))
        waiting.jobs = served.jobs(wanted, prompts, waiting)
        form = Form(
            chat=isinstance(wanted, ChatRequest),
            model=served.name,
            fingerprint=served.fingerprint,
            tokenizer=served.tokenizer,
            with_logprobs=waiting.jobs[0].top is not None,
            with_usage=wanted.with_usage,
            prompts=[len(ids) for ids in prompts],
            n=wanted.n or 1,
        )
        served.worker.submit(waiting.jobs)
        return Answer(waiting, form)

    @app.exception_handler(APIError)
    async def refused(request: Request, error: APIError) -> Response:
        return _Refusal(error)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        place = quoted(f"{request.method} {request.url.path}")
        return _Refusal(APIError(error.status_code, f"{place}: {quoted(error.detail)}"))

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        LOG.error("a request failed: %s", escaped_line(f"{type(error).__name__}: {error}")[:1000])
        return _Refusal(APIError(500, "the server failed"))

    def told(route: str, status: int) -> None:
        metrics.requests.labels(route, str(status)).inc()

    return Limits(cast(App, app), key, max_body, local, told)


class Answer(Response):
    """The answer to a request, while its texts are being written. A client that goes away ends them."""

    def __init__(self, waiting: Waiting, form: Form) -> None:
        super().__init__()
        self.waiting, self.form = waiting, form

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:  # type: ignore[override]
        watch = asyncio.create_task(self._watch(receive))
        try:
            if self.waiting.stream:
                await _sent(chunks(self.form, self.waiting), send)
            else:
                try:
                    body = json.dumps(await whole(self.form, self.waiting), separators=(",", ":")).encode()
                except APIError as error:
                    await refuse(error, send)
                else:
                    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
                    await send({"type": "http.response.start", "status": 200, "headers": headers})
                    await send({"type": "http.response.body", "body": body})
        finally:
            self.waiting.cancel()
            watch.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.waiting.cancel()
        self.waiting.events.put_nowait(None)


class _Refusal(Response):
    def __init__(self, error: APIError) -> None:
        super().__init__(status_code=error.status)
        self.error = error

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:  # type: ignore[override]
        await refuse(self.error, send)


async def _sent(lines: AsyncIterator[bytes], send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async for one in lines:
        await send({"type": "http.response.body", "body": one, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})

"""What is checked before a request is looked at: API key, host, kind and size of the body, and its time.

    401  the key is missing or wrong          413  the body is too large
    403  a name that is not this machine's    415  the body is not JSON
    408  the body takes too long

A page of another site can make a browser send requests to this machine. It cannot send JSON without asking first, and
a name of its own that leads here is refused where the server listens on this machine only.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

from miniwin.serving.errors import APIError

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN = ("/health",)
LOCAL = ("127.0.0.1", "localhost", "::1")
BODY_SECONDS = 20.0


class Limits:
    """An ASGI application around another. The body is read here, and handed on as one message."""

    def __init__(
        self,
        app: App,
        key: str | None,
        most: int,
        local: bool,
        told: Callable[[str, int], None],
        seconds: float = BODY_SECONDS,
    ) -> None:
        """most: bytes of a body. local: whether only names of this machine are let in. told: route, status."""
        self.app, self.key, self.most, self.local, self.told, self.seconds = app, key, most, local, told, seconds

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                route = getattr(scope.get("route"), "path", "other")
                self.told(route, message["status"])
            await send(message)

        try:
            body = await self._body(scope, receive)
        except APIError as error:
            await refuse(error, sending)
            return
        given = False

        async def receiving() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, receiving, sending)

    async def _body(self, scope: Message, receive: Receive) -> bytes:
        headers = {name.lower(): value for name, value in scope["headers"]}
        if self.local:
            host = headers.get(b"host", b"").decode("latin-1").lower()
            name = host.partition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]
            if name not in LOCAL:
                raise APIError(403, "this server listens on this machine only; ask for http://127.0.0.1")
        if self.key is not None and scope["path"] not in OPEN:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self.key.encode()):
                raise APIError(
                    401, "the API key is missing or wrong; send Authorization: Bearer KEY", code="invalid_api_key"
                )
        if scope["method"] != "POST":
            return b""
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            raise APIError(415, "the body is not declared as JSON; send Content-Type: application/json")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and len(length) < 20 and int(length) > self.most:
            raise self._too_large()
        try:
            return await asyncio.wait_for(self._whole(receive), self.seconds)
        except TimeoutError:
            raise APIError(408, f"the body did not come within {self.seconds:g} seconds") from None

    async def _whole(self, receive: Receive) -> bytes:
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise APIError(400, "the body was not sent whole")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.most:
                raise self._too_large()
            if not message.get("more_body"):
                return b"".join(parts)

    def _too_large(self) -> APIError:
        return APIError(413, f"the body has more than {self.most:,} bytes (--max-body)", code="body_too_large")


async def refuse(error: APIError, send: Send) -> None:
    body = json.dumps(error.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"connection", b"close")] if error.status in (408, 413) else []  # what is left of the body is not read
    headers += [(b"retry-after", b"1")] if error.status == 429 else []
    headers += [(b"www-authenticate", b"Bearer")] if error.status == 401 else []
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

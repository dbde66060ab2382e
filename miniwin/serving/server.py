"""The server: models and their threads, sockets, signals, and the end.

Ctrl-C and SIGTERM: nothing new is taken, running texts end with an error, kept states are written, and the exit code
is 0. A connection that does not send a whole head of a request in time is closed.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from miniwin.chat.conversation import ChatModel
from miniwin.serving.app import make_app
from miniwin.serving.disk import DiskStates
from miniwin.serving.kept import KeptStates
from miniwin.serving.limits import LOCAL, App
from miniwin.serving.metrics import Metrics
from miniwin.serving.served import ServedModel
from miniwin.serving.worker import Worker
from miniwin.sessions import weights_digest
from miniwin.specs import UserError

HEAD_SECONDS = 20.0
END_SECONDS = 5


@dataclass(frozen=True)
class Options:
    """max_length: tokens. max_body, cache_memory, cache_disk: bytes. timeout: seconds."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    max_length: int = 131072
    max_body: int = 4 << 20
    max_queue: int = 64
    max_batch: int = 16
    timeout: float = 600.0
    cache_memory: int = 1 << 30
    cache_disk: int = 8 << 30
    cache_dir: Path | None = None


class Serving:
    """Models, their threads, and the application that asks them. `end` stops the threads."""

    def __init__(self, models: Sequence[tuple[str, ChatModel]], options: Options) -> None:
        """models: each with the name that clients give.

        Raises:
            UserError: a model has no tokenizer, two have one name, or a folder cannot be used.
        """
        self.metrics = Metrics()
        self.models: list[ServedModel] = []
        names = [name for name, _ in models]
        if len(set(names)) < len(names):
            raise UserError(f"serve: got the same model twice: {', '.join(names)}")
        for name, model in models:
            if model.tokenizer is None:
                raise UserError(
                    f"{name} has no tokenizer, so it cannot be served; import it again with --tokenizer FILE"
                )
            digest = weights_digest(model)
            disk = None
            if options.cache_dir is not None:
                key = f"{digest[:32]}-{model.spec.hash.rpartition(':')[2][:16]}-{str(model.dtype).rpartition('.')[2]}"
                disk = DiskStates(options.cache_dir, options.cache_disk, key, model.new_cache)
            kept = KeptStates(options.cache_memory, disk)
            worker = Worker(model, name, kept, self.metrics, options.max_batch, options.max_queue)
            self.models.append(ServedModel(model, name, digest, worker, options.max_length, options.timeout))
        local = options.host in LOCAL
        self.app: App = make_app(self.models, self.metrics, options.api_key, options.max_body, local)
        for one in self.models:
            one.worker.start()

    def end(self) -> None:
        """End all texts. Returns at once."""
        for one in self.models:
            one.worker.end()

    def join(self) -> None:
        """Wait until kept states are written."""
        for one in self.models:
            one.worker.join()


def serve(serving: Serving, options: Options, ready: Callable[[str], None]) -> None:
    """Answer until a signal comes. ready: called with the address.

    Raises:
        UserError: the address cannot be used.
    """
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listening = socket.create_server((options.host, options.port), family=family, backlog=256)
    except (OSError, OverflowError) as error:
        serving.end()
        serving.join()
        raise UserError(f"cannot listen on {options.host} port {options.port}: {error}; give another --port") from None
    host = f"[{options.host}]" if family == socket.AF_INET6 else options.host
    config = uvicorn.Config(
        serving.app,  # type: ignore[arg-type]
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=END_SECONDS,
        timeout_keep_alive=30,
    )
    server = _Server(config, serving)
    gc.collect()
    gc.freeze()  # what stands now stays, and need not be looked through while texts are written
    ready(f"http://{host}:{listening.getsockname()[1]}")
    try:
        asyncio.run(server.serve(sockets=[listening]))
    finally:
        serving.end()
        serving.join()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, serving: Serving) -> None:
        super().__init__(config)
        self.serving = serving

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals end the server, and are not raised again afterwards: it is an end, not an accident."""
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.serving.end()
        self.should_exit = True


class _Protocol(H11Protocol):
    """Closes a connection whose client does not send the whole head of a request in time."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._awaited = self.loop.call_later(HEAD_SECONDS, self._late)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._awaited.cancel()  # it sent one
        elif self._awaited.cancelled():
            self._awaited = self.loop.call_later(HEAD_SECONDS, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._awaited.cancel()
        super().connection_lost(exc)

    def _late(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

"""The server: it serves a zoo with faults, and holds what is asked for against what it has delivered."""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from socket import SHUT_WR, socket
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

from benchmarks.zoo_pulls.faults import CIRCLE, FAULTS, Asked, Drawn, right

_REQUEST = re.compile(r"GET /([^/ ]+)/(\S*) HTTP/1\.1\r\n")
_RANGE = re.compile(r"\r\nRange: bytes=([0-9]+)-\r\n", re.IGNORECASE)
_SOURCE = re.compile(r"\A[bc]/")
LONGEST = 1 << 16  # bytes of a request


class User:
    """What one user sees of the server, under an address of their own: a zoo, and the same files below `b/` and `c/`.

    contents: path -> bytes. faults: path with its source -> faults. seed: of where in an answer a fault happens. pace:
    seconds that each file takes besides.
    """

    def __init__(
        self,
        contents: dict[str, bytes],
        faults: Callable[[str], Drawn] = lambda place: Drawn(),
        *,
        seed: str = "",
        pace: float = 0.0,
    ) -> None:
        self.contents, self.faults, self.pace = contents, faults, pace
        self._draw = random.Random(seed)
        self._one = threading.Lock()
        self.asked: Counter[str] = Counter()  # path with its source -> requests
        self.done: Counter[str] = Counter()  # fault -> how often
        self.kept: dict[str, int] = {}  # path -> bytes that the user has
        self.resumed = 0  # requests for the rest of a file
        self.wrong: list[str] = []  # requests for something else than what is missing

    def behave(self) -> None:
        """No faults from now on."""
        self.faults = lambda place: Drawn()

    def answer(self, connection: socket, name: str, path: str, start: int | None) -> None:
        """One request at a time: the next one may come before we have noted what this one brought."""
        with self._one, suppress(OSError):  # whoever asked may have had enough
            self._answer(connection, name, path, start)

    def _answer(self, connection: socket, user: str, path: str, start: int | None) -> None:
        place, _, query = path.partition("?")
        name = _SOURCE.sub("", place)
        asked = Asked(connection, f"/{user}/{path}", self.contents.get(name, b""), start, self._draw.uniform(0.0, 1.0))
        if name not in self.contents:
            asked.head("404 Not Found", "Content-Length: 0")
            return
        kind = CIRCLE if query == "circle" else self.faults(place).at(self.asked[place])
        self.asked[place] += 1
        if kind is not None:
            self.done[kind] += 1
        if name != "index.json":
            self._compare(name, start, len(asked.content))
            time.sleep(self.pace)
        try:
            (right if kind is None else FAULTS[kind])(asked)
        finally:
            if asked.kept is not None:
                self.kept[name] = asked.kept

    def _compare(self, name: str, start: int | None, size: int) -> None:
        has = self.kept.get(name, 0)
        self.resumed += start is not None
        if (start or 0) != has or has == size:
            self.wrong.append(f"{name}: asked for bytes from {start or 0}, has {has} of {size}")


class Server:
    """Serves users on 127.0.0.1 while the block runs."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        users = self.users

        class Handler(BaseRequestHandler):
            def handle(self) -> None:
                text = _request(self.request)
                if text is None or (match := _REQUEST.match(text)) is None:
                    return
                wanted = _RANGE.search(text)
                users[match[1]].answer(self.request, match[1], match[2], int(wanted[1]) if wanted else None)
                with suppress(OSError):
                    self.request.shutdown(SHUT_WR)  # what was sent arrives, and then the end

        class Threads(ThreadingTCPServer):
            daemon_threads, request_queue_size = True, 64

        self._server = Threads(("127.0.0.1", 0), Handler)

    def __enter__(self) -> Server:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def url(self, name: str, user: User) -> str:
        """Where the user finds the index."""
        self.users[name] = user
        return f"http://127.0.0.1:{self._server.server_address[1]}/{name}/index.json"


def _request(connection: Any) -> str | None:
    data = b""
    with suppress(OSError):
        while b"\r\n\r\n" not in data and len(data) < LONGEST:
            if not (more := connection.recv(LONGEST)):
                return None
            data += more
    return data.decode("latin-1")

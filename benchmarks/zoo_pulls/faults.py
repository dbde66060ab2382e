"""What a server may do to an answer.

Each fault says first what a client keeps of the file, in bytes from its beginning, if that changes. Then it writes to
the connection. The client may close it at any moment, which is an OSError here.
"""

from __future__ import annotations

import random
import select
from collections.abc import Callable
from dataclasses import dataclass
from socket import socket

PATIENCE = 20.0  # seconds until a connection that nobody closes is closed
ENDLESS = 64 << 20  # bytes, many times the largest file
PIECE = 1 << 16  # bytes at a time
NEVER = 0.15  # the share of faulty sources that never answer right


@dataclass
class Asked:
    """A request. path: with its query. start: the first byte of the range, None without one. at: where in the content
    the fault happens, as a share of what was asked for. kept: what the client keeps; None: what it had before."""

    connection: socket
    path: str
    content: bytes
    start: int | None
    at: float
    kept: int | None = None

    @property
    def begin(self) -> int:
        return self.start or 0

    @property
    def middle(self) -> int:
        """A byte beyond the first of those that were asked for."""
        return self.begin + max(1, int(self.at * (len(self.content) - self.begin)))

    def head(self, status: str, *lines: str) -> None:
        self.connection.sendall("\r\n".join([f"HTTP/1.1 {status}", *lines, "Connection: close", "", ""]).encode())

    def right_head(self, total: int | None = None, begin: int | None = None) -> None:
        """The head of a right answer; or of one with another length of the file, or another beginning."""
        total = len(self.content) if total is None else total
        begin = self.begin if begin is None else begin
        length = f"Content-Length: {total - begin}"
        if self.start is None:
            self.head("200 OK", length)
        else:
            self.head("206 Partial Content", length, f"Content-Range: bytes {begin}-{total - 1}/{total}")

    def body(self, begin: int, end: int) -> None:
        for piece in range(begin, end, PIECE):
            self.connection.sendall(self.content[piece : min(piece + PIECE, end)])

    def wait(self) -> None:
        """Until the client closes the connection."""
        select.select([self.connection], [], [], PATIENCE)


def right(asked: Asked) -> None:
    asked.kept = len(asked.content)
    asked.right_head()
    asked.body(asked.begin, len(asked.content))


def _drop(asked: Asked) -> None:
    pass


def _silent(asked: Asked) -> None:
    asked.wait()


def _cut(asked: Asked) -> None:
    asked.kept = asked.middle
    asked.right_head()
    asked.body(asked.begin, asked.middle)


def _stall(asked: Asked) -> None:
    _cut(asked)
    asked.wait()


def _no_length(asked: Asked) -> None:
    """Sends all, ends early, and says nothing of how long it should be."""
    asked.kept = max(1, int(asked.at * len(asked.content)))
    asked.head("200 OK")
    asked.body(0, asked.kept)


def _shorter(asked: Asked) -> None:
    """Claims that the whole file is shorter."""
    asked.kept = None if asked.start is None else 0
    asked.right_head(asked.middle)
    asked.body(asked.begin, asked.middle)


def _longer(asked: Asked) -> None:
    asked.kept = None if asked.start is None else 0
    asked.right_head(len(asked.content) + 1000)
    asked.body(asked.begin, len(asked.content))
    asked.connection.sendall(bytes(1000))


def _small_length(asked: Asked) -> None:
    """Content-Length is smaller than what is sent. In an answer to a range, Content-Range is right."""
    if asked.start is None:
        _shorter(asked)
        return
    asked.kept = asked.middle
    whole = f"Content-Range: bytes {asked.begin}-{len(asked.content) - 1}/{len(asked.content)}"
    asked.head("206 Partial Content", f"Content-Length: {asked.middle - asked.begin}", whole)
    asked.body(asked.begin, len(asked.content))


def _endless(asked: Asked) -> None:
    asked.kept = 0
    asked.head("200 OK")
    for _ in range(ENDLESS // PIECE):
        asked.connection.sendall(b"x" * PIECE)


def _changed_byte(asked: Asked) -> None:
    asked.kept = 0
    asked.right_head()
    place = min(asked.middle, len(asked.content) - 1)
    asked.body(asked.begin, place)
    asked.connection.sendall(bytes([asked.content[place] ^ 1]))
    asked.body(place + 1, len(asked.content))


def _ignored_range(asked: Asked) -> None:
    asked.kept = len(asked.content)
    asked.head("200 OK", f"Content-Length: {len(asked.content)}")
    asked.body(0, len(asked.content))


def _other_range(asked: Asked) -> None:
    if asked.start is None:
        _cut(asked)
        return
    asked.kept = 0
    asked.right_head(begin=asked.begin - 1)
    asked.body(asked.begin - 1, len(asked.content))


def _gibberish(asked: Asked) -> None:
    asked.connection.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n" * 3)


def _chunks_of_nonsense(asked: Asked) -> None:
    asked.kept = 0
    asked.head("200 OK", "Transfer-Encoding: chunked")
    asked.connection.sendall(b"zz\r\n" + asked.content[:100])


def _status(status: str, *lines: str) -> Callable[[Asked], None]:
    def answer(asked: Asked) -> None:
        asked.kept = 0 if status.startswith("416") else None
        asked.head(status, "Content-Length: 0", *lines)

    return answer


def _redirect(asked: Asked) -> None:
    """To where the file is, or the next fault."""
    asked.head("302 Found", f"Location: {asked.path.partition('?')[0]}?moved", "Content-Length: 1000")


def _circle(asked: Asked) -> None:
    asked.head("301 Moved Permanently", f"Location: {asked.path.partition('?')[0]}?circle", "Content-Length: 0")


FAULTS: dict[str, Callable[[Asked], None]] = {
    "drops the connection": _drop,
    "says nothing": _silent,
    "cuts the content off": _cut,
    "stalls in the content": _stall,
    "ends early without a length": _no_length,
    "sends a shorter file": _shorter,
    "sends a longer file": _longer,
    "gives a length that is too small": _small_length,
    "sends without an end": _endless,
    "changes a byte": _changed_byte,
    "ignores Range": _ignored_range,
    "sends another range": _other_range,
    "sends no HTTP": _gibberish,
    "sends chunks of nonsense": _chunks_of_nonsense,
    "answers 404": _status("404 Not Found"),
    "answers 416": _status("416 Range Not Satisfiable"),
    "answers 500": _status("500 Internal Server Error"),
    "answers 503": _status("503 Service Unavailable"),
    "answers 503, retry at once": _status("503 Service Unavailable", "Retry-After: 0"),
    "answers 503, retry in an hour": _status("503 Service Unavailable", "Retry-After: 3600"),
    "redirects": _redirect,
    "redirects in a circle": _circle,
    "redirects to a file": _status("302 Found", "Location: file:///etc/passwd"),
    "redirects to http elsewhere": _status("302 Found", "Location: http://example.org/model"),
}
CIRCLE = "redirects in a circle"


@dataclass(frozen=True)
class Drawn:
    """Faults of one file from one source. The last one stays if `for_ever`; otherwise right answers follow."""

    kinds: tuple[str, ...] = ()
    for_ever: bool = False

    def at(self, number: int) -> str | None:
        """The fault of the answer to request `number`, from 0."""
        if number < len(self.kinds):
            return self.kinds[number]
        return self.kinds[-1] if self.for_ever else None


def drawn(chance: float, draw: random.Random) -> Drawn:
    """chance: that there is any fault."""
    if draw.random() >= chance:
        return Drawn()
    return Drawn(tuple(draw.choices(list(FAULTS), k=draw.randint(1, 5))), draw.random() < NEVER)

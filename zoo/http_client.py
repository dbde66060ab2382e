"""Open a URL that somebody else wrote, with bounds on redirects, addresses and time.

Redirects are followed one by one, never from https to http. Only a server on this machine or its network may redirect
to this machine or its network. A name is looked up once; the address is checked and then used, so a name whose address
changes in between gains nothing. Behind a proxy the proxy looks names up. There, only localhost and hosts that are
written as addresses can be refused.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import ssl
import string
import urllib.error
import urllib.request
from functools import lru_cache, partial
from typing import IO, Any
from urllib.parse import quote, urljoin, urlsplit

from miniwin.zoo.errors import ZooError
from miniwin.zoo.locations import check_url
from miniwin.zoo.private_addresses import host_is_near, is_near
from miniwin.zoo.timeouts import Clock

MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)


def offline() -> bool:
    return os.environ.get("MINIWIN_OFFLINE", "") not in ("", "0")


def open_url(url: str, clock: Clock, start: int = 0, *, near: bool = True) -> Answer:
    """The answer to a GET for the bytes from `start` on.

    near: whether `url` may be on this machine or its network.

    Raises:
        ZooError: the URL, an address or a redirect is not allowed, or MINIWIN_OFFLINE is set.
        OSError: the connection fails, or takes too long; HTTPError for an answer that is an error.
    """
    if offline():
        raise ZooError(f"{url}: not fetched, because MINIWIN_OFFLINE is set; unset it to use the network")
    clock.await_answer()
    request = _Request(check_url(url), clock, start, near)
    for _ in range(MOST_REDIRECTS + 1):
        try:
            answer: Answer = _opener().open(request, timeout=clock.left())
        except urllib.error.HTTPError as error:
            error.close()  # the content is of no use, and may have no end
            if error.code not in _REDIRECTS or "Location" not in error.headers:
                raise
            request = _redirected(request, error.headers["Location"])
            continue
        answer.near = request.near
        clock.receive()
        return answer
    raise ZooError(f"{url}: was redirected more than {MOST_REDIRECTS} times")


class Answer(http.client.HTTPResponse):
    """A response whose bytes, headers included, are timed. near: the server is on this machine or its network."""

    near = False

    def __init__(self, clock: Clock, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_Timed(self.fp.detach(), sock, clock))  # type: ignore[attr-defined]


class _Timed(io.RawIOBase):
    def __init__(self, raw: io.RawIOBase, sock: socket.socket, clock: Clock) -> None:
        self._raw, self._sock, self._clock = raw, sock, clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._clock.left())
        try:
            count = self._raw.readinto(buffer)  # type: ignore[attr-defined]
        except TimeoutError:
            raise self._clock.over() from None
        self._clock.count(count or 0)
        return int(count or 0)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Request(urllib.request.Request):
    """near: whether the request may go to this machine or its network; once it is answered, whether it did."""

    def __init__(self, url: str, clock: Clock, start: int, near: bool) -> None:
        # No compression: hashes and ranges are of the plain bytes.
        headers = {"User-Agent": "miniwin", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        super().__init__(url, headers=headers)
        self.clock, self.start, self.near = clock, start, near
        self.target = urlsplit(url).hostname or ""
        if not near and host_is_near(self.target):
            self._refuse(self.target)

    def connect(self, address: tuple[str, int], timeout: object = None, source: object = None) -> socket.socket:
        """Connect to an address that is allowed, in place of socket.create_connection."""
        host, port = address
        if host != self.target:  # a proxy, which the user chose
            self.near = host_is_near(self.target)
            return socket.create_connection(address, self.clock.left())
        problem: OSError | None = None
        for *_, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            near = is_near(str(place[0]))
            if near and not self.near:
                self._refuse(f"{host} ({place[0]})")
            try:
                connected = socket.create_connection((str(place[0]), port), self.clock.left())
            except OSError as error:
                problem = error
                continue
            self.near = near
            connected.settimeout(self.clock.left())  # for the handshake of TLS
            return connected
        raise problem or OSError(f"{host} has no address")

    def _refuse(self, where: str) -> None:
        raise ZooError(
            f"{self.full_url}: {where} is on this machine or its network; only an index that is there itself may "
            "lead to it"
        )


def _redirected(request: _Request, location: str) -> _Request:
    try:
        # Servers send spaces and letters beyond ASCII, too. Characters that are quoted already stay.
        target = urljoin(request.full_url, quote(location, safe=string.punctuation, encoding="iso-8859-1"))
    except ValueError:
        target = location
    try:
        check_url(target)
        if request.full_url.startswith("https:") and not target.startswith("https:"):
            raise ZooError(f"{target}: http is not safe against changes on the way")
        return _Request(target, request.clock, request.start, request.near)
    except ZooError as error:
        raise ZooError(f"{request.full_url}: Redirection to url '{target[:200]}' is not allowed: {error}") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Turns redirects into errors. urllib would read the whole content of each, and follow it anywhere."""

    def _leave(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any) -> None:
        return None

    http_error_301 = http_error_302 = http_error_303 = http_error_307 = http_error_308 = _leave  # type: ignore[assignment]


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: Any) -> Any:
        return self.do_open(partial(_connection, http.client.HTTPConnection, req), req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: Any) -> Any:
        return self.do_open(partial(_connection, http.client.HTTPSConnection, req), req, context=_tls())


def _connection(kind: type[http.client.HTTPConnection], request: _Request, host: str, **options: Any) -> Any:
    connection: Any = kind(host, **options)
    connection._create_connection = request.connect
    connection.response_class = partial(Answer, request.clock)
    return connection


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _opener() -> urllib.request.OpenerDirector:
    """A new opener for each request: making it reads the proxies from the environment."""
    return urllib.request.build_opener(_NoRedirects, _Http, _Https(context=_tls()))

"""Downloads that can be killed and continued: the downloader that pooch calls in our place of its own.

Bytes go to a `.part` file that outlives the process. The next attempt asks for the rest (`Range`) and
accepts the answer only if it begins exactly where the file ends; a server that sends everything again is
taken at its word and the file begins anew. Never more than the expected size is written, and the file takes
its name only when its hash is right.
"""

from __future__ import annotations

import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from miniwin.zoo.errors import ZooError
from miniwin.zoo.files import CHUNK, sha256_file
from miniwin.zoo.sources import check_url

TIMEOUT = 30.0
ATTEMPTS, PAUSE = 4, 0.5  # tries in a row without a byte, and seconds between them, more each time
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_BROKEN = (OSError, http.client.HTTPException)  # what a connection that fails or ends early raises


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect may not lead from https to http, ftp or a file."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        return super().redirect_request(req, fp, code, msg, headers, check_url(newurl))


_opener = urllib.request.build_opener(_SafeRedirects)


def offline() -> bool:
    return os.environ.get("MINIWIN_OFFLINE", "") not in ("", "0")


def open_url(url: str, start: int = 0) -> http.client.HTTPResponse:
    """A GET for the bytes from `start` on."""
    check_url(url)
    if offline():
        raise ZooError(f"{url}: not fetched, because MINIWIN_OFFLINE is set; unset it to use the network")
    headers = {
        "User-Agent": "miniwin",
        "Accept-Encoding": "identity",
    }  # hashes and ranges are of the plain bytes
    if start:
        headers["Range"] = f"bytes={start}-"
    response: http.client.HTTPResponse = _opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    return response


def read_url(url: str, limit: int) -> bytes:
    """A whole small file."""
    try:
        with open_url(url) as response:
            data = response.read(limit + 1)
    except urllib.error.HTTPError as error:
        raise ZooError(f"{url}: the server answered {error.code} {error.reason}") from error
    except _BROKEN as error:
        raise ZooError(f"{url}: could not be fetched: {_plain(error)}") from error
    if len(data) > limit:
        raise ZooError(f"{url}: is larger than {limit} bytes")
    return data


class ResumingDownloader:
    """pooch calls it as `downloader(url, output_file, pooch)`; it leaves the whole file, verified."""

    def __init__(
        self,
        part: Path,
        *,
        size: int,
        sha256: str,
        on_bytes: Callable[[int], None] = lambda total: None,
    ) -> None:
        self.part = part
        self.size = size
        self.sha256 = sha256
        self.on_bytes = on_bytes

    def __call__(self, url: str, output_file: str | Path, pooch: Any, check_only: bool = False) -> None:
        assert not check_only, "pooch asks for this only in is_available, which the zoo does not use"
        resumed = self._length() > 0
        self._download(url)
        if sha256_file(self.part) != self.sha256 and resumed:
            # The beginning may be of another file, or damaged: once more, from nothing.
            self.part.unlink()
            self._download(url)
        found = sha256_file(self.part)
        if found != self.sha256:
            self.part.unlink()
            raise ZooError(f"{url}: has sha256 {found}, expected {self.sha256}; it was thrown away")
        with self.part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(self.part, output_file)

    def _length(self) -> int:
        try:
            length = self.part.stat().st_size
        except FileNotFoundError:
            return 0
        if length > self.size:
            self.part.unlink()
            return 0
        return length

    def _download(self, url: str) -> None:
        failures = 0
        if self.size == 0:
            self.part.touch()
        while (before := self._length()) < self.size:
            try:
                self._receive(url, before)
                problem: Exception | str = "the connection ended early"
            except urllib.error.HTTPError as error:
                if error.code == 416:  # our part is not a beginning of what the server has
                    self.part.unlink(missing_ok=True)
                elif error.code < 500:
                    raise ZooError(f"{url}: the server answered {error.code} {error.reason}") from error
                problem = error
            except _BROKEN as error:
                problem = error
            if self._length() > before:
                failures = 0  # it moves: patience starts anew
                continue
            failures += 1
            if failures >= ATTEMPTS:
                raise ZooError(
                    f"{url}: {self._length()} of {self.size} bytes arrived, then: {_plain(problem)}; "
                    "run the same command again to continue"
                )
            time.sleep(PAUSE * failures)

    def _receive(self, url: str, start: int) -> None:
        with open_url(url, start) as response:
            if response.status == 206:
                match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
                if match is None or int(match[1]) != start or match[2] not in ("*", str(self.size)):
                    # Not the bytes that were asked for: appended, they would make a file that never was.
                    self.part.unlink(missing_ok=True)
                    got = response.headers.get("Content-Range")
                    raise OSError(f"asked for bytes from {start}, got Content-Range {got!r}")
            else:
                start = 0  # the server sends everything
                length = response.headers.get("Content-Length")
                if length is not None and length.isdigit() and int(length) != self.size:
                    raise ZooError(f"{url}: is {length} bytes long, expected {self.size}")
            with self.part.open("ab" if start else "wb") as file:
                written = start
                while chunk := response.read(min(CHUNK, self.size - written + 1)):
                    if written + len(chunk) > self.size:
                        file.close()
                        self.part.unlink()
                        raise ZooError(f"{url}: sends more than the expected {self.size} bytes; it was thrown away")
                    file.write(chunk)
                    file.flush()
                    written += len(chunk)
                    self.on_bytes(written)


def _plain(problem: Exception | str) -> str:
    reason = getattr(problem, "reason", problem)  # URLError wraps the real one
    return str(reason) or type(reason).__name__

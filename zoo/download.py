"""Downloads that can be killed and resumed: the downloader that we give to pooch.

Bytes go to a `.part` file that outlives the process. The next attempt asks for the rest (`Range`), and accepts an
answer only if it begins exactly where the `.part` file ends. If the server sends the whole file again, the `.part` file
begins anew. Never more than the expected size is written, and the file takes its name only when its hash is right.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from io import RawIOBase
from pathlib import Path
from time import sleep
from typing import Any, NamedTuple

from miniwin.files.hashing import sha256_file
from miniwin.files.writing import Unwritable, flush, move, said_if_unwritable
from miniwin.zoo.errors import UnreachableError, ZooError
from miniwin.zoo.http_client import offline, open_url
from miniwin.zoo.timeouts import Clock, for_bytes

CHUNK = 1 << 20  # bytes read at a time
ATTEMPTS, PAUSE = 4, 0.5  # tries in a row without progress, and seconds between them, more each time
PROGRESS = 4096  # bytes that count as progress
MOST_WAIT = 60.0  # seconds that a server may ask us to wait
SMALL_SECONDS = 60.0  # for a whole small file, with its tries
_AGAIN = (408, 425, 429)  # 4xx answers that mean: not now
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
_BROKEN = (OSError, http.client.HTTPException)  # what a connection that fails or ends early raises

__all__ = ["Fetched", "ResumingDownloader", "offline", "read_url"]


class Fetched(NamedTuple):
    data: bytes
    near: bool  # whether it came from this machine or its network


def read_url(url: str, limit: int) -> Fetched:
    """A whole small file, from a URL that the user named. limit: bytes.

    Raises:
        UnreachableError: no answer came.
        ZooError: the server refuses, or the file is larger than `limit`.
    """
    clock = Clock(SMALL_SECONDS)
    failures = 0
    while True:
        failures += 1
        try:
            with open_url(url, clock) as response:
                data, near = response.read(limit + 1), response.near
                if response.length and len(data) <= limit:
                    raise OSError("the connection ended early")
        except urllib.error.HTTPError as error:
            _wait(url, error, failures, clock)
        except _BROKEN as error:
            raise UnreachableError(f"{url}: could not be fetched: {_plain(error)}") from error
        else:
            if len(data) > limit:
                raise ZooError(f"{url}: is larger than {limit} bytes")
            return Fetched(data, near)


class ResumingDownloader:
    """Downloads one file. pooch calls it as `downloader(url, output_file, pooch)`.

    part: the file to resume. size: bytes. near: whether the URL may be on this machine or its network. on_bytes: called
    with the number of bytes that are there so far.

    Raises:
        UnreachableError: not one byte came.
        ZooError: the download broke off, or the file has another size or hash.
    """

    def __init__(
        self,
        part: Path,
        *,
        size: int,
        sha256: str,
        near: bool = True,
        on_bytes: Callable[[int], None] = lambda total: None,
    ) -> None:
        self.part = part
        self.size = size
        self.sha256 = sha256
        self.near = near
        self.on_bytes = on_bytes

    def __call__(self, url: str, output_file: str | Path, pooch: Any, check_only: bool = False) -> None:
        assert not check_only, "pooch asks for this only in is_available, which the zoo does not use"
        resumed = self._length() > 0
        self._download(url)
        if sha256_file(self.part) != self.sha256 and resumed:
            # The part from before may be damaged, or of another file: once more, from nothing.
            self.part.unlink()
            self._download(url)
        found = sha256_file(self.part)
        if found != self.sha256:
            self.part.unlink()
            raise ZooError(f"{url}: has sha256 {found}, expected {self.sha256}; it was thrown away")
        flush(self.part)
        move(self.part, Path(output_file))

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
        failures, began = 0, self._length()
        clock = for_bytes(self.size)
        if self.size == 0:
            self.part.touch()
        while (before := self._length()) < self.size:
            failures += 1
            problem: Exception
            try:
                self._receive(url, before, clock)
                problem = OSError("the connection ended early")
            except urllib.error.HTTPError as error:
                if error.code != 416:
                    _wait(url, error, failures, clock)
                    continue
                self.part.unlink(missing_ok=True)  # our part is not a beginning of what the server has
                problem = error
            except Unwritable:  # the disk is at fault, and another try is of no use
                raise
            except _BROKEN as error:
                problem = error
            if self._length() - before >= min(PROGRESS, self.size - before):
                failures = 0  # bytes came: failures are counted anew
                if not clock.ended():
                    continue
            if failures >= ATTEMPTS or clock.ended():
                kind = ZooError if self._length() > began else UnreachableError
                raise kind(
                    f"{url}: {self._length()} of {self.size} bytes arrived, then: {_plain(problem)}; "
                    "run the same command again to continue"
                )
            sleep(PAUSE * failures)

    def _receive(self, url: str, start: int, clock: Clock) -> None:
        with open_url(url, clock, start, near=self.near) as response:
            if response.status == 206:
                got = response.headers.get("Content-Range", "")
                match = _CONTENT_RANGE.fullmatch(got)
                if match is None or int(match[1]) != start or match[2] not in ("*", str(self.size)):
                    # Not the bytes that were asked for: appended, they would make a file that never was.
                    self.part.unlink(missing_ok=True)
                    raise OSError(f"asked for bytes from {start}, got Content-Range {got[:80]!r}")
            else:
                start = 0  # the server sends everything
                if response.length not in (None, self.size):
                    raise ZooError(f"{url}: is {response.length} bytes long, expected {self.size}")
            promised = response.length  # the server may leave the connection open after them
            with self._part(start) as file:
                written = start
                # Not `read`: it waits for all of a chunk, and loses what has come of it when the connection fails.
                while promised != written - start and (chunk := response.read1(min(CHUNK, self.size - written + 1))):
                    if written + len(chunk) > self.size:
                        file.close()
                        self.part.unlink()
                        raise ZooError(f"{url}: sends more than the expected {self.size} bytes; it was thrown away")
                    self._write(file, chunk)
                    written += len(chunk)
                    self.on_bytes(written)

    def _part(self, start: int) -> RawIOBase:
        with said_if_unwritable(self.part):
            return self.part.open("ab" if start else "wb", buffering=0)

    def _write(self, file: RawIOBase, chunk: bytes) -> None:
        with said_if_unwritable(self.part):
            while chunk:
                chunk = chunk[file.write(chunk) :]


def _wait(url: str, error: urllib.error.HTTPError, failures: int, clock: Clock) -> None:
    """Sleep before another try, as long as the server asks for. Raises ZooError where another try is of no use."""
    answered = f"{url}: the server answered {error.code} {_plain(error)}"
    if error.code < 500 and error.code not in _AGAIN:
        raise ZooError(answered) from error
    seconds = _asked_to_wait(error.headers.get("Retry-After"))
    if seconds is not None and seconds > min(MOST_WAIT, clock.left_in_all()):
        raise ZooError(f"{answered}, and asks to wait {seconds:,.0f} s; run the same command again then") from error
    if failures >= ATTEMPTS or clock.ended():
        raise ZooError(f"{answered}; run the same command again to continue") from error
    sleep(PAUSE * failures if seconds is None else seconds)


def _asked_to_wait(text: str | None) -> float | None:
    """Seconds until the time in a Retry-After header, which is a number of seconds or a date; None for none."""
    if text is None:
        return None
    if re.fullmatch("[0-9]{1,9}", text.strip()):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return max(0.0, (date - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return None


def _plain(problem: Exception) -> str:
    reason = getattr(problem, "reason", problem)  # URLError wraps the real one
    return str(reason)[:200] or type(reason).__name__

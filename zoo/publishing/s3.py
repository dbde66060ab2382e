"""An object store that speaks S3 as a target, by s3fs. Objects appear whole, or not at all.

The index is written on a condition: that none is there (If-None-Match), or still the one that was read (If-Match with
its ETag). A server that does not know such conditions ignores them silently, and then two publishers could lose an
entry. So the condition is tried first, with an object that is there already.

Credentials, profile, region and endpoint are those of the AWS tools: the environment or ~/.aws
(https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from miniwin.files.hashing import sha256_file
from miniwin.specs import UserError
from miniwin.zoo.errors import ZooError
from miniwin.zoo.http_client import offline
from miniwin.zoo.index import INDEX, LARGEST_FILE, IndexFile, Release, blob_path
from miniwin.zoo.publishing.targets import Stored

_PLACE = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([\w!.*'()/-]*))?", re.ASCII)
_REFUSED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
_HASH = "sha256"  # in the metadata of an object
_WHOLE = LARGEST_FILE + 1  # bytes in one request: a condition holds for a request


class S3Target:
    """See `Target`. tag: the ETag of the index."""

    def __init__(self, url: str) -> None:
        match = _PLACE.fullmatch(url)
        if match is None or ".." in url or "//" in url[5:]:
            raise ZooError(f"{url}: expected s3://bucket or s3://bucket/path")
        if offline():
            raise ZooError(f"{url}: not asked, because MINIWIN_OFFLINE is set; unset it to use the network")
        try:
            import s3fs
        except ImportError:
            raise UserError("s3:// needs the package s3fs, which is not installed: pip install 'miniwin[s3]'") from None
        self.name = url.rstrip("/")
        self._root = self.name.removeprefix("s3://")
        with self._said():
            self._store: Any = s3fs.S3FileSystem(use_listings_cache=False)
        self._heeds_conditions = False

    def check(self) -> None:
        with self._said():
            bucket = self._root.partition("/")[0]
            if not self._store.exists(bucket):
                raise ZooError(f"{self.name}: there is no bucket {bucket}, or it may not be seen; create it first")

    def read_index(self) -> Stored | None:
        path = f"{self._root}/{INDEX}"
        with self._said():
            while True:
                try:
                    tag = self._store.info(path, refresh=True)["ETag"]
                    data = self.read(INDEX, LARGEST_FILE)
                except FileNotFoundError:
                    return None
                # Two requests: the ETag has to be that of the bytes.
                if data is not None and self._store.info(path, refresh=True)["ETag"] == tag:
                    return Stored(data, tag)

    def read(self, path: str, limit: int) -> bytes | None:
        with self._said():
            try:
                data: bytes = self._store.cat_file(f"{self._root}/{path}", start=0, end=limit + 1)
            except FileNotFoundError:
                return None
        if len(data) > limit:
            raise ZooError(f"{self.name}/{path}: is larger than {limit} bytes")
        return data

    def source(self, release: Release, file: IndexFile) -> str:
        return blob_path(file.sha256)

    def holds(self, path: str, file: IndexFile) -> bool:
        """By the hash that `put` stored with the object. One that somebody else put there is read."""
        place = f"{self._root}/{path}"
        with self._said():
            try:
                if self._store.info(place, refresh=True)["size"] != file.size:
                    return False
                known = self._store.metadata(place, refresh=True).get(_HASH)
                return bool((known or self._read_hash(place)) == file.sha256)
            except FileNotFoundError:
                return False

    def _read_hash(self, place: str) -> str:
        with self._store.open(place, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def put(self, path: str, content: bytes | Path) -> None:
        place = f"{self._root}/{path}"
        with self._said():
            # The hash of what is sent: content and hash appear together, and the server checks what has come.
            if isinstance(content, Path):
                self._store.put_file(str(content), place, Metadata={_HASH: sha256_file(content)})
            else:
                self._store.pipe_file(place, content, Metadata={_HASH: hashlib.sha256(content).hexdigest()})

    def replace_index(self, data: bytes, tag: object) -> bool:
        with self._said():
            self._try_conditions(data)
            condition = {"mode": "create"} if tag is None else {"IfMatch": tag}
            return self._write_if(INDEX, data, condition)

    def _try_conditions(self, data: bytes) -> None:
        """Raise ZooError where the server ignores conditions."""
        if self._heeds_conditions:
            return
        probe = ".conditions"
        self.put(probe, b"If-None-Match\n")
        if self._write_if(probe, b"If-None-Match\n", {"mode": "create"}) or self._write_if(
            probe, b"If-None-Match\n", {"IfMatch": f'"{"0" * 32}"'}
        ):
            raise ZooError(
                f"{self.name}: the server ignores If-None-Match and If-Match, so two publishers could overwrite each "
                "other's index; nothing was listed. Use a store with conditional writes, or publish to a folder and "
                "copy it"
            )
        self._heeds_conditions = True

    def _write_if(self, path: str, data: bytes, condition: dict[str, Any]) -> bool:
        """Whether the object was written: it is not, where the condition does not hold."""
        kind = {"ContentType": "application/json"} if path == INDEX else {}
        try:
            self._store.pipe_file(f"{self._root}/{path}", data, chunksize=_WHOLE, **condition, **kind)
        except FileExistsError:
            return False
        except OSError as error:
            answer = getattr(error.__cause__, "response", None) or {}
            if answer.get("Error", {}).get("Code") in _REFUSED:
                return False
            raise
        return True

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Turn what s3fs and botocore raise into an error of the zoo."""
        try:
            yield
        except (FileNotFoundError, UserError):
            raise
        except Exception as error:  # botocore has dozens of kinds, without a common base but Exception
            if not isinstance(error, OSError) and not type(error).__module__.startswith(("botocore", "aiobotocore")):
                raise
            raise ZooError(f"{self.name}: {str(error) or type(error).__name__}") from error

"""A repository of the Hugging Face Hub as a target. Content and index go into one commit.

The commit names its parent, the commit whose index was read. If somebody else committed meanwhile, the Hub refuses it
(412), and the index is read again. Files lie in `<name>/<version>/`, so that people can look at them. Readers add
`hf:org/repo`. Credentials are those of huggingface_hub (`hf auth login`, or HF_TOKEN).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from miniwin.specs import UserError
from miniwin.zoo.errors import ZooError
from miniwin.zoo.http_client import offline
from miniwin.zoo.index import INDEX, LARGEST_FILE, SIGNATURES, IndexFile, Release
from miniwin.zoo.publishing.targets import Stored
from miniwin.zoo.signatures import places

_PLACE = re.compile(r"hf:(\w[\w.-]*/\w[\w.-]*)", re.ASCII)
_CONFLICT = (409, 412)
_SMALL = 16 << 20  # bytes; of larger files the Hub itself knows which it has


class HubTarget:
    """See `Target`. tag: the commit whose index was read."""

    def __init__(self, text: str) -> None:
        match = _PLACE.fullmatch(text)
        if match is None:
            raise ZooError(f"{text}: expected hf:organisation/repository")
        if offline():
            raise ZooError(f"{text}: not asked, because MINIWIN_OFFLINE is set; unset it to use the network")
        try:
            import huggingface_hub
        except ImportError:
            raise UserError(
                "hf: needs the package huggingface_hub, which is not installed: pip install 'miniwin[hub]'"
            ) from None
        self.name, self._repository = text, match[1]
        self._hub = huggingface_hub
        self._api = huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        self._head, self._files = "", frozenset[str]()
        self._waiting: dict[str, bytes | Path] = {}

    def check(self) -> None:
        self._look()

    def read_index(self) -> Stored | None:
        self._look()
        data = self.read(INDEX, LARGEST_FILE)
        return None if data is None else Stored(data, self._head)

    def read(self, path: str, limit: int) -> bytes | None:
        if path not in self._files:
            return None
        with self._said():
            url = self._hub.hf_hub_url(self._repository, path, revision=self._head, endpoint=self._api.endpoint)
            headers = self._hub.utils.build_hf_headers(library_name="miniwin")
            answer = self._hub.get_session().get(url, headers=headers, follow_redirects=True)
            self._hub.utils.hf_raise_for_status(answer)
        if len(answer.content) > limit:
            raise ZooError(f"{self.name}/{path}: is larger than {limit} bytes")
        return bytes(answer.content)

    def source(self, release: Release, file: IndexFile) -> str:
        return f"{release.name}/{release.version}/{file.path}"

    def holds(self, path: str, file: IndexFile) -> bool:
        if path not in self._files or file.size > _SMALL:
            return False  # a large file that is there is not sent again: the Hub knows its hash
        data = self.read(path, _SMALL)
        return data is not None and hashlib.sha256(data).hexdigest() == file.sha256

    def put(self, path: str, content: bytes | Path) -> None:
        self._waiting[path] = content

    def replace_index(self, data: bytes, tag: object) -> bool:
        stale = [path for path in self._waiting if path.startswith(f"{SIGNATURES}/") and path != places(data)[0]]
        for path in stale:
            del self._waiting[path]
        add = self._hub.CommitOperationAdd
        operations = [
            add(path_in_repo=path, path_or_fileobj=content if isinstance(content, bytes) else str(content))
            for path, content in {**self._waiting, INDEX: data}.items()
        ]
        with self._said():
            try:
                self._api.create_commit(
                    self._repository,
                    operations,
                    commit_message="Update the zoo's index",
                    parent_commit=str(tag) if tag else self._head,
                )
            except self._hub.errors.HfHubHTTPError as error:
                if error.response is not None and error.response.status_code in _CONFLICT:
                    return False
                raise
        self._waiting.clear()
        return True

    def _look(self) -> None:
        """Find the newest commit, and the names of its files."""
        with self._said():
            info = self._api.repo_info(self._repository, revision="main")
        self._head = str(info.sha)
        self._files = frozenset(one.rfilename for one in info.siblings or ())

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Turn what huggingface_hub and httpx raise into an error of the zoo."""
        try:
            yield
        except UserError:
            raise
        except self._hub.errors.RepositoryNotFoundError:
            raise ZooError(
                f"{self.name}: there is no such repository, or it may not be seen; create it on the Hub, and log in "
                "with: hf auth login"
            ) from None
        except Exception as error:  # the errors of httpx and of the Hub have no common base
            known: Any = type(error).__module__.startswith(("httpx", "huggingface_hub")) or isinstance(error, OSError)
            if not known:
                raise
            raise ZooError(f"{self.name}: {' '.join(str(error).split())[:400] or type(error).__name__}") from error

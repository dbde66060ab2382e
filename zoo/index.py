"""An index: one JSON file that says which entries a zoo offers, with size, hash and sources of every file.

    {"schema": 1, "releases": [
      {"name": ..., "version": ..., "digest": ..., "status": "active", "reason": null, "licence": ...,
       "requires_miniwin": ">=0.1.0", "description": ..., "layout": ..., "parameters": ..., "files": [
         {"path": "model.yaml", "size": ..., "sha256": ..., "sources": ["miniwin-1m/1.0.0/model.yaml"]}]}]}

`write_index` makes the index of a zoo folder. Any web server can then serve the folder to others, who pull from it. A
file is identified by its hash: sources and mirrors need no trust, only the index does.

The index of a zoo that is published to (publishing/) has schema 4, an id of the zoo and a serial number. Every change
makes the number larger, so that a reader notices an old index and an index of another zoo (rollback.py). Its files may
lie in `blobs/<first two digits>/<sha256>` beside the index.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from miniwin.blocks.messages.listing import some
from miniwin.files.hashing import sha256_file
from miniwin.files.json_files import JSONProblem, parse_json
from miniwin.files.writing import write_text
from miniwin.specs.base import user_path
from miniwin.zoo.entry import (
    ENTRY_FILES,
    MANIFEST,
    NEWEST_SCHEMA,
    OPTIONAL_FILES,
    Entry,
    Name,
    Record,
    Requirement,
    Sha256,
    Size,
    VersionText,
    check_schema,
    explain,
    schema_of,
    wrong_files,
)
from miniwin.zoo.errors import ZooError
from miniwin.zoo.json_objects import to_json
from miniwin.zoo.references import Version
from miniwin.zoo.store import Store, built_in_zoo

INDEX = "index.json"
BLOBS, SIGNATURES = "blobs", "signatures"  # folders beside a published index
PUBLISHED_SCHEMA = NEWEST_SCHEMA + 1
MOST_RELEASES = 20_000
LARGEST_FILE = 64 << 20  # bytes
ReleaseStatus = Literal["active", "deprecated", "yanked"]
Serial = Annotated[int, Field(ge=1, lt=1 << 62)]
ZooId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class IndexFile(Record):
    path: Literal[ENTRY_FILES + OPTIONAL_FILES]  # type: ignore[valid-type]  # the allow-list: nothing else can be written
    size: Size
    sha256: Sha256
    sources: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class Release(Record):
    name: Name
    version: VersionText
    digest: Sha256
    status: ReleaseStatus = "active"
    reason: str | None = None
    licence: str
    requires_miniwin: Requirement
    description: str = ""
    layout: str
    parameters: Size
    files: Annotated[tuple[IndexFile, ...], Field(strict=False)]

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def parsed_version(self) -> Version:
        return Version.parse(self.version)

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @model_validator(mode="after")
    def _whole(self) -> Release:
        paths = [file.path for file in self.files]
        if wrong_files(paths, ENTRY_FILES) or len(set(paths)) < len(paths):
            raise ValueError(
                f"{self.ref} must list each of {', '.join(ENTRY_FILES)} once, got {some(sorted(paths), 9)}"
            )
        if self.status != "active" and not self.reason:
            raise ValueError(f"{self.ref} is {self.status} without a reason")
        return self


class Index(Record):
    schema_number: Literal[1, 2, 3, 4] = Field(alias="schema")
    zoo: ZooId | None = None
    serial: Serial | None = None
    releases: Annotated[tuple[Release, ...], Field(strict=False)]

    @model_validator(mode="after")
    def _no_duplicates(self) -> Index:
        for ref, times in Counter(release.ref for release in self.releases).items():
            if times > 1:
                raise ValueError(f"{ref} is listed {times} times")
        if len({self.schema_number == PUBLISHED_SCHEMA, self.zoo is not None, self.serial is not None}) > 1:
            raise ValueError(f"zoo and serial belong to schema {PUBLISHED_SCHEMA}, and to no other")
        return self

    def find(self, ref: str) -> Release | None:
        """The release `name@version`."""
        return next((release for release in self.releases if release.ref == ref), None)


def index_text(index: Index) -> str:
    data = index.model_dump(mode="json", by_alias=True)
    return to_json({key: value for key, value in data.items() if value is not None}, INDEX)


def blob_path(sha256: str) -> str:
    """Where a file lies, relative to the index, in a zoo that is published to."""
    return f"{BLOBS}/{sha256[:2]}/{sha256}"


def parse_index(text: str | bytes, where: str) -> Index:
    """The index in a JSON text. where: its place, for messages. Raises ZooError."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Other readers may take the first of two; here neither is."""
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
            raise ZooError(f"{where}: the key {twice[:40]!r} is given twice in one object")
        return found

    try:
        data = parse_json(text, once)
    except JSONProblem as error:
        raise ZooError(f"{where}: is {error}") from None
    if not isinstance(data, dict) or "schema" not in data:
        raise ZooError(f"{where}: is not a zoo index (a JSON object with a schema number and releases)")
    check_schema(data, where, PUBLISHED_SCHEMA)
    listed = data.get("releases")
    if not isinstance(listed, list):
        raise ZooError(f"{where}: releases: {'Field required' if listed is None else 'Input should be a list'}")
    if len(listed) > MOST_RELEASES:
        raise ZooError(f"{where}: lists {len(listed):,} releases; at most {MOST_RELEASES:,} are read")
    releases = []
    for place, one in enumerate(listed):  # one by one: the first that is wrong is enough
        try:
            releases.append(Release.model_validate_json(json.dumps(one)))
        except ValidationError as error:
            raise ZooError(f"{where}: {explain(error, f'releases.{place}')}") from None
    try:
        return Index.model_validate({**data, "releases": tuple(releases)})
    except ValidationError as error:
        raise ZooError(f"{where}: {explain(error)}") from None


def index_bytes(path: Path) -> bytes:
    """The bytes of an index in a file. Raises ZooError, or OSError where the file cannot be read."""
    with path.open("rb") as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ZooError(f"{path}: is larger than {LARGEST_FILE >> 20} MiB, which no index is")
    return data


def read_index_file(path: Path) -> Index:
    """The index in a file. Raises ZooError, or OSError where the file cannot be read."""
    return parse_index(index_bytes(path), str(path))


def index_path(root: Path) -> Path:
    """Where a zoo's own index is. The package's lies beside `entries/`, which holds entries only."""
    return (root.parent if root.resolve() == built_in_zoo() else root) / INDEX


def local_index(root: Path) -> Index | None:
    """The zoo's own index, when it has one."""
    path = index_path(root)
    try:
        stamp = path.stat()
    except OSError:
        return None
    return _read(path, stamp.st_mtime_ns, stamp.st_size)


def local_statuses(root: Path) -> dict[str, tuple[ReleaseStatus, str | None]]:
    """Status and reason of the releases in a zoo's own index, by `name@version`."""
    index = local_index(root)
    return {} if index is None else {release.ref: (release.status, release.reason) for release in index.releases}


def write_index(zoo: Path | str) -> Path:
    """Write the index of a zoo folder, `<zoo>/index.json`. Each status and reason of the old index is kept, and so is
    what was published into the folder.

    Raises:
        ZooError: the folder holds no entries, or its index is signed: another one needs a signature, too.
    """
    root = user_path(zoo)
    path = index_path(root)
    store = Store(root, "user")
    if (root / SIGNATURES).is_dir():
        raise ZooError(
            f"{root}: its index is signed, and another one would have no signature; add entries with miniwin zoo "
            "publish --sign, and change their status with miniwin zoo yank or deprecate"
        )
    published = (before := local_index(root)) is not None and before.serial is not None
    with store.lock("index", "publish") if published else nullcontext():
        index = _indexed(store, "" if path.parent == root else f"package:{root.name}/")
        write_text(path, index_text(index))
    return path


def _indexed(store: Store, prefix: str) -> Index:
    """The index of what is in a folder, with what the index there says of it."""
    before = local_index(store.root) or Index(schema_number=1, releases=())
    releases = {}
    for entry in store.entries():
        old = before.find(entry.ref)
        release = release_of(entry, prefix=prefix, marked=old)
        same = old is not None and before.serial is not None and old.digest == release.digest
        releases[entry.ref] = old if old is not None and same else release
    for old in before.releases:
        if before.serial is not None and all((store.root / blob_path(file.sha256)).is_file() for file in old.files):
            releases.setdefault(old.ref, old)
    if not releases:
        raise ZooError(f"{store.root}: holds no entries (folders <name>/<version>/), so there is nothing to index")
    ordered = tuple(sorted(releases.values(), key=lambda release: (release.name, release.parsed_version)))
    if before.serial is not None:
        return before.model_copy(update={"serial": before.serial + 1, "releases": ordered})
    schema = schema_of(file.path for release in ordered for file in release.files)
    return Index(schema_number=schema, releases=ordered)


@lru_cache(maxsize=8)
def _read(path: Path, mtime_ns: int, size: int) -> Index:
    return read_index_file(path)


def release_of(entry: Entry, *, prefix: str = "", marked: Release | None = None, blobs: bool = False) -> Release:
    """An entry as an index lists it. prefix: what its sources begin with. marked: the release that has its status.
    blobs: its sources are named by hash."""
    manifest = entry.require_manifest()
    own = entry.folder / MANIFEST
    records = {name: (record.size, record.sha256) for name, record in manifest.files.items()}
    records[MANIFEST] = (own.stat().st_size, sha256_file(own))
    return Release(
        name=entry.name,
        version=entry.version,
        digest=manifest.digest,
        status="active" if marked is None else marked.status,
        reason=None if marked is None else marked.reason,
        licence=manifest.licence,
        requires_miniwin=manifest.requires_miniwin,
        description=manifest.description,
        layout=manifest.layout,
        parameters=manifest.parameters,
        files=tuple(
            IndexFile(
                path=name,
                size=size,
                sha256=sha256,
                sources=(blob_path(sha256) if blobs else f"{prefix}{entry.name}/{entry.version}/{name}",),
            )
            for name, (size, sha256) in records.items()
        ),
    )

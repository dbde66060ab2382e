"""One version of a model as it describes itself, whether its files are on this machine or only offered by an index.

`read` gives a small file, such as the card or the metrics, with the right hash. Weights are not read here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from miniwin.evaluation.suite.result import SuiteResult
from miniwin.files.json_files import JSONProblem, parse_json
from miniwin.runs import CHAT
from miniwin.specs import ModelSpec, UserError, load_model_spec
from miniwin.zoo.card_values import trained_tasks, training_length
from miniwin.zoo.catalogue.small_files import read_offered
from miniwin.zoo.entry import (
    CARD,
    MANIFEST,
    METRICS,
    MODEL,
    PROVENANCE,
    SUITE,
    Entry,
    FileRecord,
    Manifest,
    parse_manifest,
)
from miniwin.zoo.errors import ZooError
from miniwin.zoo.index_query import BUILT_IN, UNNAMED, Offer
from miniwin.zoo.references import Version

Kind = Literal["text", "chat", "tasks"]
KINDS: tuple[Kind, ...] = get_args(Kind)
USER = "user"  # the zoo of the user
LARGEST = 16 << 20  # bytes of a file that is read here


@dataclass(frozen=True, eq=False)
class Described:
    """zoos: the names of all zoos that have this version, those on this machine first. files: of an offer with
    entry.json. size: bytes of all files. here: whether it needs no pull."""

    name: str
    version: str
    digest: str
    licence: str
    description: str
    layout: str
    parameters: int
    requires: str
    status: str
    reason: str | None
    zoos: tuple[str, ...]
    size: int
    here: bool
    files: Mapping[str, FileRecord]
    _bytes: Callable[[str], bytes] = field(repr=False)
    _manifest: Manifest | None = None  # where it is on this machine

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def parsed_version(self) -> Version:
        return Version.parse(self.version)

    @property
    def zoo(self) -> str:
        """The zoo that it comes from: of several, the one that was added."""
        return self.zoos[-1]

    @property
    def to_load(self) -> str:
        """What `miniwin.load` takes. The zoos that are always asked need no name."""
        return self.ref if self.zoo in (BUILT_IN, USER, UNNAMED) else f"{self.zoo}/{self.ref}"

    def read(self, name: str) -> bytes:
        """The bytes of a file, which have the right hash. Raises ZooError."""
        record = self.files[name]
        if record.size > LARGEST:
            raise ZooError(f"{self.ref}: {name} is larger than {LARGEST >> 20} MiB, which no file of its kind is")
        return self._bytes(name)

    def text(self, name: str) -> str:
        try:
            return self.read(name).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ZooError(f"{self.ref}: {name} is not UTF-8 (byte {error.object[error.start]:#04x})") from None

    @cached_property
    def manifest(self) -> Manifest:
        """Its entry.json, which has the digest that the index gives."""
        if self._manifest is not None:
            return self._manifest
        found = parse_manifest(self._object(MANIFEST), f"{self.ref}: {MANIFEST}")
        if (found.name, found.version, found.digest) != (self.name, self.version, self.digest):
            raise ZooError(
                f"{self.ref}: the index lists it with digest {self.digest[:12]}..., its {MANIFEST} is {found.name}@"
                f"{found.version} with digest {found.digest[:12]}..."
            )
        return found

    @cached_property
    def spec(self) -> ModelSpec:
        """Its architecture. Raises UserError where it has blocks that are not known here."""
        return load_model_spec(Path(f"{self.ref}/{MODEL}"), raw=self.read(MODEL))

    @property
    def card(self) -> str:
        return self.text(CARD)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        return self._object(METRICS)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        return self._object(PROVENANCE)

    @cached_property
    def suite(self) -> SuiteResult | None:
        """The result of the suite that it was measured by; None where it has none."""
        if SUITE not in self.files:
            return None
        try:
            return SuiteResult.from_dict(self._object(SUITE), f"{self.ref}: {SUITE}")
        except UserError as error:
            raise ZooError(str(error)) from None

    @property
    def trained_at(self) -> int | None:
        """The longest length in tokens that it was trained at, where that is known."""
        return training_length(self.provenance)

    @property
    def kind(self) -> Kind:
        """What it was made for: chats, tasks and nothing else, or to continue text."""
        if CHAT[0] in self.files:
            return "chat"
        return "tasks" if trained_tasks(self.provenance) else "text"

    def _object(self, name: str) -> dict[str, Any]:
        try:
            found = parse_json(self.read(name))
        except JSONProblem as error:
            raise ZooError(f"{self.ref}: {name} is {error}") from None
        if not isinstance(found, dict):
            raise ZooError(f"{self.ref}: {name}: expected a JSON object, got {type(found).__name__}")
        return found


def of_entry(entry: Entry, zoos: tuple[str, ...] = ()) -> Described:
    """An entry on this machine. zoos: those that offer it, too. Raises ZooError where it is broken."""
    manifest = entry.require_manifest()
    return Described(
        manifest.name,
        manifest.version,
        manifest.digest,
        manifest.licence,
        manifest.description,
        manifest.layout,
        manifest.parameters,
        manifest.requires_miniwin,
        entry.status,
        entry.reason,
        (entry.source, *zoos),
        entry.size,
        True,
        manifest.files,
        lambda name: _read_here(entry.folder, name, manifest.files[name]),
        manifest,
    )


def of_offer(offer: Offer) -> Described:
    """A release that an index offers. Its files are fetched when they are asked for."""
    release = offer.release
    listed = {file.path: file for file in release.files}
    return Described(
        release.name,
        release.version,
        release.digest,
        release.licence,
        release.description,
        release.layout,
        release.parameters,
        release.requires_miniwin,
        release.status,
        release.reason,
        (offer.called,),
        release.size,
        False,
        {path: FileRecord(size=file.size, sha256=file.sha256) for path, file in listed.items()},
        lambda name: read_offered(offer, listed[name]),
    )


def _read_here(folder: Path, name: str, record: FileRecord) -> bytes:
    try:
        with (folder / name).open("rb") as file:
            raw = file.read(record.size + 1)
    except OSError as error:
        raise ZooError(f"{folder / name}: cannot be read: {error.strerror}") from error
    if hashlib.sha256(raw).hexdigest() != record.sha256:
        raise ZooError(f"{folder / name}: has not the sha256 that entry.json gives; add or pull the entry again")
    return raw

"""What an entry is: a folder of eight files, or a few more, described and hashed by the last, `entry.json`.

    README.md               the card, with YAML front matter as the Hugging Face Hub reads it
    model.yaml              the model spec
    tokenizer.json          the tokenizer
    model.safetensors       the weights
    metrics.json            what was measured
    provenance.json         where it came from: study, trial, data fingerprint, seed, code version, machine
    reference.safetensors   input_ids, positions and logits: what this model must answer anywhere
    suite.json              the result of a suite, if the entry has one: every score with n, chance and interval
    chat_template.jinja     how chats are written, if the model was made for chats; run within limits, without reach
    chat.json               beside it: the tokens that the template names, and those that end an answer
    entry.json              schema number, name, version, size and sha256 of every other file

`entry.json` holds a digest of its own content, so that no file of an entry can change unnoticed. Name, version and
digest identify an entry, wherever the copy came from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from miniwin.blocks.messages.escaping import escaped_line
from miniwin.blocks.messages.listing import some
from miniwin.files.hashing import sha256_json
from miniwin.runs import CHAT
from miniwin.specs import ModelSpec, Strict, load_model_spec
from miniwin.zoo.errors import ZooError
from miniwin.zoo.json_objects import read_object, to_json
from miniwin.zoo.references import NAME_PATTERN, VERSION_PATTERN, Version

if TYPE_CHECKING:
    from miniwin.evaluation.suite.result import SuiteResult

CARD = "README.md"
MODEL = "model.yaml"
TOKENIZER = "tokenizer.json"
WEIGHTS = "model.safetensors"
METRICS = "metrics.json"
PROVENANCE = "provenance.json"
REFERENCE = "reference.safetensors"
SUITE = "suite.json"
MANIFEST = "entry.json"

# The allow-list. No archives, no pickles, no code but a chat template, which has a sandbox: an entry is made of these
# files and of nothing else.
HASHED_FILES = (CARD, MODEL, TOKENIZER, WEIGHTS, METRICS, PROVENANCE, REFERENCE)
OPTIONAL_FILES = (SUITE, *CHAT)  # hashed too, where an entry has them
ENTRY_FILES = (*HASHED_FILES, MANIFEST)  # what every entry has
NEWEST_SCHEMA = 3
LARGEST_MANIFEST = 1 << 20  # bytes; two thousand are usual

Name = Annotated[str, Field(pattern=rf"^{NAME_PATTERN}$")]
VersionText = Annotated[str, Field(pattern=rf"^{VERSION_PATTERN}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Requirement = Annotated[str, Field(pattern=r"^>=[0-9]+(\.[0-9]+){0,2}$")]
Schema = Literal[1, 2, 3]  # 2: there is a suite.json, 3: a chat format; older versions of miniwin do not know them
Size = Annotated[int, Field(ge=0, lt=1 << 62)]
Status = Literal["active", "deprecated", "yanked", "broken"]


class Record(Strict):
    """Base of what the zoo reads from JSON. The key `schema` is the field `schema_number`: pydantic owns the name."""

    model_config = ConfigDict(populate_by_name=True)


class FileRecord(Record):
    size: Size
    sha256: Sha256


class Manifest(Record):
    """The content of entry.json."""

    schema_number: Schema = Field(alias="schema")
    name: Name
    version: VersionText
    description: str
    licence: str
    requires_miniwin: Requirement
    created: str
    spec_hash: Sha256
    layout: str
    parameters: Size
    files: dict[str, FileRecord]

    @property
    def digest(self) -> str:
        return sha256_json(self.model_dump(mode="json", by_alias=True))


def explain(error: ValidationError, within: str = "") -> str:
    """pydantic's errors in one line. within: the place that all of them are below."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    places = [".".join(map(str, ([within] if within else []) + list(item["loc"]))) or "file" for item in found[:4]]
    lines = [f"{place}: {item['msg']}" for place, item in zip(places, found, strict=False)]
    return some([*lines, *found[4:]], 4, "; ")


def write_manifest(manifest: Manifest) -> str:
    """The text of entry.json: the manifest and its digest."""
    return to_json({**manifest.model_dump(mode="json", by_alias=True), "digest": manifest.digest}, MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """entry.json of a folder, checked against its own digest. Raises ZooError."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ZooError(f"{path}: the file is missing, so this folder is not a zoo entry")
    return parse_manifest(read_object(path, LARGEST_MANIFEST), str(path))


def parse_manifest(data: dict[str, Any], path: str) -> Manifest:
    """The content of an entry.json, checked against its own digest. path: its place, for messages. Raises ZooError."""
    check_schema(data, path)
    digest = data.pop("digest", None)
    try:
        manifest = Manifest.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise ZooError(f"{path}: {explain(error)}") from None
    if digest != manifest.digest:
        raise ZooError(f"{path}: the content does not match its own digest: the file was changed after it was written")
    if wrong := wrong_files(manifest.files, HASHED_FILES):
        raise ZooError(
            f"{path}: lists the wrong files ({some(wrong, 8)}); an entry is made of {', '.join(ENTRY_FILES)}"
        )
    return manifest


def wrong_files(found: Iterable[str], expected: Iterable[str]) -> list[str]:
    """Names that are lacking, and names that do not belong. Optional files may be there, those of a chat together."""
    there = set(found)
    lacking = set(CHAT) - there if there & set(CHAT) else set()
    return sorted((there - set(OPTIONAL_FILES)) ^ set(expected) | lacking)


def schema_of(files: Iterable[str]) -> Schema:
    """The oldest schema that has all these files."""
    there = set(files)
    return 3 if there & set(CHAT) else 2 if SUITE in there else 1


def check_schema(data: dict[str, Any], where: object, newest: int = NEWEST_SCHEMA) -> None:
    """Refuse a newer schema, before pydantic complains about fields that this version does not know."""
    schema = data.get("schema")
    if isinstance(schema, int) and schema > newest:
        raise ZooError(f"{where}: schema {schema} is newer than this miniwin reads ({newest}); upgrade miniwin")


@dataclass(frozen=True)
class Entry:
    """One version in one zoo. `manifest` is None, and `reason` says why, when entry.json cannot be read."""

    name: str
    version: str
    folder: Path
    source: str  # "built-in" or "user": which zoo holds it
    manifest: Manifest | None = None
    status: Status = "active"
    reason: str | None = None

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def parsed_version(self) -> Version:
        return Version.parse(self.version)

    @property
    def digest(self) -> str:
        return self.require_manifest().digest

    @property
    def size(self) -> int:
        """Bytes of all files together; 0 where they cannot be looked at."""
        try:
            return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())
        except OSError:
            return 0

    @property
    def spec(self) -> ModelSpec:
        return load_model_spec(self.folder / MODEL)

    @property
    def metrics(self) -> dict[str, Any]:
        return read_object(self.folder / METRICS)

    @property
    def provenance(self) -> dict[str, Any]:
        return read_object(self.folder / PROVENANCE)

    @property
    def suite(self) -> SuiteResult | None:
        """The result of the suite that the entry was measured by; None where it has none."""
        from miniwin.evaluation.suite.result import SuiteResult

        return SuiteResult.read(self.folder / SUITE) if SUITE in self.require_manifest().files else None

    @property
    def card(self) -> str:
        return (self.folder / CARD).read_text(encoding="utf-8")

    @property
    def warning(self) -> str | None:
        """That the entry was yanked or is deprecated, and why; None where it is neither."""
        said = {"yanked": "was yanked", "deprecated": "is deprecated"}.get(self.status)
        return said and f"{self.ref} {said}: {escaped_line(str(self.reason))}"

    def require_manifest(self) -> Manifest:
        if self.manifest is None:
            raise ZooError(f"{self.ref} is broken: {self.reason}")
        return self.manifest


def open_entry(folder: Path, source: str, name: str | None = None, version: str | None = None) -> Entry:
    """The entry in `folder`. name, version: those of its path, if the folder lies in a zoo.

    An entry.json that cannot be read, or that contradicts the path, gives an entry of status `broken`. Without a name
    and a version it raises ZooError or OSError.
    """
    try:
        manifest = read_manifest(folder)
    except (ZooError, OSError) as error:
        if name is None or version is None:
            raise
        return Entry(name, version, folder, source, None, "broken", str(error))
    if name is not None and (manifest.name, manifest.version) != (name, version):
        found = f"{manifest.name}@{manifest.version}"
        reason = f"{folder / MANIFEST}: says {found}, but lies where {name}@{version} should"
        return Entry(name, str(version), folder, source, None, "broken", reason)
    return Entry(manifest.name, manifest.version, folder, source, manifest)

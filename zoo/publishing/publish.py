"""`miniwin zoo publish`: one entry into a target.

The order: checks, content, checks again with the newest index, index. Killed at any moment, the target lists the entry
as a whole or not at all.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from miniwin.blocks.messages.listing import some
from miniwin.files.json_files import JSONProblem, parse_json
from miniwin.zoo.entry import LARGEST_MANIFEST, MANIFEST, TOKENIZER, Entry, Manifest, open_entry, parse_manifest
from miniwin.zoo.errors import ZooError
from miniwin.zoo.index import INDEX, Index, IndexFile, Release, parse_index, release_of
from miniwin.zoo.integrity import opened
from miniwin.zoo.lookup import find
from miniwin.zoo.publishing.editing import check_signer, edit, with_release
from miniwin.zoo.publishing.mlflow_registry import Registry, is_registry, uri_of
from miniwin.zoo.publishing.opening import open_target
from miniwin.zoo.publishing.targets import Target
from miniwin.zoo.signatures import Signer
from miniwin.zoo.size_limits import LARGEST
from miniwin.zoo.verification import verify
from miniwin.zoo.version_rules import check_part, needed_part, tokenizer_identity


@dataclass(frozen=True)
class Published:
    entry: Entry
    target: str  # as messages show it
    new: bool  # False: it was there already
    serial: int | None  # of the index; None: there is none


def publish(
    ref: str | Path, to: str, *, logits: bool = True, signer: Signer | None = None, new_key: bool = False
) -> Published:
    """Publish an entry of this machine. signer, new_key: as for `editing.edit`.

    ref: a reference, or an entry's folder. to: a folder, `s3://bucket/path` or `hf:org/repo`; or `mlflow[:URI]`, a
    registry of models, which has no index and no signature. logits: also run the model, and compare with the reference
    logits, before anything is written.

    Raises:
        ZooError: the entry is broken, the version is there with other content, its number says less than what changed,
            or the target cannot be written to.
    """
    entry = _entry(ref)
    if is_registry(to):
        return _register(entry, to, logits, signer)
    target = open_target(to)
    target.check()
    _verified(entry, logits)
    release = _at(target, release_of(entry))
    stored = target.read_index()
    if stored is not None:  # what would be refused later is refused before anything is sent
        check_signer(target, stored, signer, new_key)
        _refuse(parse_index(stored.data, f"{target.name}: {INDEX}"), release, entry, target)
    _upload(entry, release, target)

    def change(index: Index) -> Index:
        known = _refuse(index, release, entry, target)
        return index if known else with_release(index, release)

    changed = edit(target, change, signer, new_key)
    return Published(entry, target.name, changed.new, changed.published.serial)


def _verified(entry: Entry, logits: bool) -> None:
    if problems := verify(entry, logits=logits):
        raise ZooError(f"{entry.ref} was not published: {some(problems, 4, '; ')} (in {entry.folder})")


def _register(entry: Entry, to: str, logits: bool, signer: Signer | None) -> Published:
    if signer is not None:
        raise ZooError(f"--sign: {to} keeps no signature; publish to a folder, s3:// or hf:, or leave --sign out")
    registry = Registry(uri_of(to))
    _verified(entry, logits)
    return Published(entry, registry.name, registry.publish(entry, release_of(entry)), None)


def _entry(ref: str | Path) -> Entry:
    folder = Path(ref)
    if isinstance(ref, Path) or "/" in ref or "\\" in ref or (folder / MANIFEST).is_file():
        if not (folder / MANIFEST).is_file():
            raise ZooError(
                f"{folder}: is no zoo entry (it has no {MANIFEST}); expected name@version or an entry's folder"
            )
        return open_entry(folder, "folder")
    return find(ref)


def _at(target: Target, release: Release) -> Release:
    """The release with its files where the target keeps them."""
    files = tuple(file.model_copy(update={"sources": (target.source(release, file),)}) for file in release.files)
    return release.model_copy(update={"files": files})


def _refuse(index: Index, release: Release, entry: Entry, target: Target) -> bool:
    """Raise ZooError where the index has another entry of this name and version, or the version says too little.
    Returns whether the index has this one."""
    there = index.find(release.ref)
    if there is not None and there.digest != release.digest:
        raise ZooError(
            f"{release.ref} was not published: {target.name} has another {release.ref} (digest {there.digest[:12]}..., "
            f"yours is {release.digest[:12]}...), and a version never changes once published; add yours with a new "
            "version"
        )
    if there is None:
        _check_version(index, release, entry, target)
    return there is not None


def _check_version(index: Index, release: Release, entry: Entry, target: Target) -> None:
    below = [r for r in index.releases if r.name == release.name and r.parsed_version < release.parsed_version]
    before = max(below, key=lambda r: r.parsed_version, default=None)
    if before is None:
        return
    manifest = _manifest(before, target)
    ours = entry.require_manifest()
    hashes = {name: record.sha256 for name, record in ours.files.items()}
    same = _same_tokenizer(before, manifest, entry, target)
    needed = needed_part(manifest, spec_hash=ours.spec_hash, same_tokenizer=same, hashes=hashes)
    check_part(release.name, before.parsed_version, release.parsed_version, needed)


def _manifest(release: Release, target: Target) -> Manifest:
    data = _published(release, MANIFEST, LARGEST_MANIFEST, target)
    try:
        parsed = parse_json(data)
    except JSONProblem as error:
        raise ZooError(f"{target.name}: {MANIFEST} of {release.ref} is {error}") from None
    return parse_manifest(parsed, f"{target.name}: {MANIFEST} of {release.ref}")


def _same_tokenizer(release: Release, manifest: Manifest, entry: Entry, target: Target) -> bool:
    if manifest.files[TOKENIZER].sha256 == entry.require_manifest().files[TOKENIZER].sha256:
        return True
    with tempfile.TemporaryDirectory(prefix="miniwin-") as folder:
        (Path(folder) / TOKENIZER).write_bytes(_published(release, TOKENIZER, LARGEST[TOKENIZER], target))
        return tokenizer_identity(Path(folder)) == tokenizer_identity(entry.folder)


def _published(release: Release, name: str, limit: int, target: Target) -> bytes:
    """A file of a release that the target lists. Raises ZooError where it is not there as the index says."""
    file = next(file for file in release.files if file.path == name)
    for source in file.sources:
        if ":" in source or source.startswith("/") or ".." in source.split("/"):
            continue  # elsewhere
        data = target.read(source, limit)
        if data is not None and hashlib.sha256(data).hexdigest() == file.sha256:
            return data
    raise ZooError(
        f"{target.name}: {name} of {release.ref} is not there as its index says, so nobody can tell what a version "
        f"after it must be called; publish {release.ref} again first"
    )


def _upload(entry: Entry, release: Release, target: Target) -> None:
    """Put every file that the target lacks. What is put has the hash that entry.json gives."""
    with opened(entry) as bytes_of:
        for file in release.files:
            (path,) = file.sources
            if target.holds(path, file):
                continue
            if file.path == MANIFEST:
                target.put(path, _own(entry, file))
            else:
                content = bytes_of(file.path)
                target.put(path, entry.folder / file.path if content is None else content)


def _own(entry: Entry, file: IndexFile) -> bytes:
    data = (entry.folder / MANIFEST).read_bytes()
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise ZooError(f"{entry.ref}: {MANIFEST} changed while it was published; nothing was listed")
    return data

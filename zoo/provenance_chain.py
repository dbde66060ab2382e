"""The chain that leads to an entry: search, trial, training run, data, entry, zoos. For `zoo show --provenance`.

Every link is what provenance.json recorded when it happened, with the hashes that tie it to the next one. What was not
recorded is said to be so. The last link is what the indexes of added zoos said of the digest, as last read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from miniwin.zoo.configured import sources
from miniwin.zoo.entry import PROVENANCE, Entry, Manifest
from miniwin.zoo.rollback import seen

NOT_RECORDED = "not recorded"


def chain(entry: Entry) -> list[tuple[str, str]]:
    """Title and content of every link, the first one first. Raises ZooError where the entry cannot be read."""
    return [*links(entry.require_manifest(), entry.provenance), ("zoos", _zoos(entry))]


def links(manifest: Manifest, recorded: dict[str, Any]) -> list[tuple[str, str]]:
    """The links that the entry itself has. recorded: its provenance.json."""
    run = _mapping(recorded.get("run"))
    data = _mapping(run.get("data"))
    return [
        ("search", _search(recorded)),
        ("trial", _trial(recorded)),
        ("began with", _begun(_mapping(run.get("from")))),
        ("training run", _run(run)),
        ("data", _said(data, ("source", "tokens", "fingerprint"))),
        ("architecture", f"{manifest.layout}, {manifest.parameters:,} parameters, spec {manifest.spec_hash}"),
        ("entry", _entry(manifest, recorded)),
    ]


def _search(recorded: dict[str, Any]) -> str:
    if recorded.get("study") is None:
        return "none: trained by hand"
    trials = _mapping(recorded.get("trials"))
    counted = ", ".join(f"{count} {kind}" for kind, count in trials.items())
    said = _said(recorded, ("study", "study_id"))
    return said + (f"; trials: {counted}" if counted else "")


def _trial(recorded: dict[str, Any]) -> str:
    if recorded.get("trial") is None:
        return "none"
    params = _mapping(recorded.get("params"))
    found = ", ".join(f"{name} = {value}" for name, value in params.items())
    return f"number {recorded['trial']}" + (f": {found}" if found else "")


def _begun(origin: Mapping[str, Any]) -> str:
    return _said(origin, ("ref", "kind", "digest", "licence")) if origin else "random weights"


def _run(run: Mapping[str, Any]) -> str:
    train = _mapping(run.get("train"))
    known = {**run, "spec": train.get("name")}
    return _said(known, ("model", "spec", "seed", "tokens", "started", "code"))


def _entry(manifest: Manifest, recorded: dict[str, Any]) -> str:
    written = _mapping(recorded.get("entry"))
    provenance = manifest.files[PROVENANCE].sha256
    return (
        f"{manifest.name}@{manifest.version}, digest {manifest.digest}; made {manifest.created} by miniwin "
        f"{written.get('code_version', NOT_RECORDED)}; {PROVENANCE} sha256 {provenance}"
    )


def _zoos(entry: Entry) -> str:
    there = [source.name for source in sources() if seen(source.place).get(entry.ref) == entry.digest]
    return ", ".join(there) or f"of none that was added; here it is {entry.source}"


def _said(values: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    known = [f"{key} {values[key]}" for key in keys if values.get(key) is not None]
    return ", ".join(known) or NOT_RECORDED


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

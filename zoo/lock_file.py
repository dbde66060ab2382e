"""`miniwin zoo lock`: exact versions and digests in a file, for pulls that give the same bytes anywhere.

    {"format": 1, "entries": [{"asked": "tiny", "ref": "tiny@1.1.0", "zoo": "acme", "digest": ...}]}

The digest covers the hash of every file of an entry.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from miniwin.files.writing import write_text
from miniwin.specs.base import user_path
from miniwin.zoo.entry import Entry, Record, Sha256, explain
from miniwin.zoo.errors import ZooError
from miniwin.zoo.index_query import Asked, Offer, ask, choose
from miniwin.zoo.json_objects import read_object
from miniwin.zoo.lookup import list_entries
from miniwin.zoo.references import Ref, parse_ref


class Locked(Record):
    asked: str
    ref: str
    zoo: str | None = None
    digest: Sha256


class _File(Record):
    format: Literal[1]
    entries: Annotated[list[Locked], Field(max_length=10_000)]


def write_lock(path: Path | str, refs: list[str]) -> list[Locked]:
    """Write what the references stand for now: what an index offers, else what is on this machine.

    Raises:
        ZooError: one stands for nothing. The file has not changed then.
    """
    asked = ask()
    entries = [_locked(ref, asked) for ref in dict.fromkeys(refs)]
    content = _File(format=1, entries=entries).model_dump(mode="json")
    write_text(user_path(path), json.dumps(content, indent=2) + "\n")
    return entries


def read_lock(path: Path | str) -> list[Locked]:
    """The entries of a lock file, checked. Raises ZooError."""
    file = user_path(path)
    try:
        entries = _File.model_validate_json(json.dumps(read_object(file))).entries
    except ValidationError as error:
        raise ZooError(f"{file}: {explain(error)}; miniwin zoo lock writes such a file") from None
    for one in entries:
        if not parse_ref(one.ref).exact:
            raise ZooError(f"{file}: {one.ref!r} is no exact version; miniwin zoo lock writes them")
    return entries


def pull_locked(path: Path | str, install: Callable[[Offer], Entry]) -> list[Entry]:
    """The entries of a lock file, all of them found and compared before the first is fetched by `install`.

    Raises:
        ZooError: one is offered by nobody, or has another digest than the file says.
    """
    wanted = read_lock(path)
    here = {(entry.ref, entry.digest): entry for entry in list_entries() if entry.manifest is not None}
    lacking = [one for one in wanted if (one.ref, one.digest) not in here]
    asked = ask() if lacking else Asked([], {})
    offers = {one.ref: _offer(one, asked, path) for one in lacking}
    return [here.get((one.ref, one.digest)) or install(offers[one.ref]) for one in wanted]


def _locked(text: str, asked: Asked) -> Locked:
    ref = parse_ref(text)
    offer = choose(ref, asked.offers)
    if offer is not None:
        return Locked(asked=text, ref=offer.release.ref, zoo=offer.zoo, digest=offer.release.digest)
    here = [entry for entry in list_entries() if ref.zoo is None and entry.name == ref.name and entry.manifest]
    usable = [e for e in here if ref.matches(e.parsed_version) and (ref.exact or e.status != "yanked")]
    found = max(usable, key=lambda entry: entry.parsed_version, default=None)
    if found is None:
        raise ZooError(f"{ref} cannot be locked: it is not on this machine, and {asked.said()}")
    return Locked(asked=text, ref=found.ref, digest=found.digest)


def _offer(one: Locked, asked: Asked, path: Path | str) -> Offer:
    ref: Ref = parse_ref(one.ref)
    offered = [o for o in asked.offers if o.release.ref == one.ref]
    same = [o for o in offered if o.release.digest == one.digest]  # from any zoo: the digest says what it is
    if same:
        return next((o for o in same if o.zoo == one.zoo), same[0])
    if offered:
        others = ", ".join(f"{o.index} has {o.release.digest[:12]}..." for o in offered[:4])
        raise ZooError(f"{path}: {ref} has digest {one.digest[:12]}..., but {others}; nothing was pulled")
    raise ZooError(f"{path}: {ref} is not on this machine, and {asked.said()}; nothing was pulled")

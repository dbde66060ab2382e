"""Changes of a published index: read, changed, signed, and put in place of the index that was read.

If somebody else was quicker, all of it is done again with their index. So the changes of both are there in the end.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from typing import NamedTuple

from miniwin.zoo.errors import ZooError
from miniwin.zoo.index import (
    LARGEST_FILE,
    Index,
    Release,
    ReleaseStatus,
    index_text,
    parse_index,
)
from miniwin.zoo.publishing.targets import Stored, Target
from miniwin.zoo.references import parse_ref
from miniwin.zoo.signatures import LONGEST, Signer, check_signature, key_id, places

PATIENCE_SECONDS = 120.0  # for others who change the same index
PAUSE = 0.05  # seconds before another try, more each time


class Changed(NamedTuple):
    published: Index
    new: bool  # False: the index says so already


def edit(
    target: Target, change: Callable[[Index], Index], signer: Signer | None = None, new_key: bool = False
) -> Changed:
    """Change the index of a target. change: called again, with the newer index, whenever another was quicker. signer:
    signs the index. new_key: the index may have been signed by another key, or by none.

    Raises:
        ZooError: `change` refuses, others keep changing the index, or the index was signed and would not be any more.
    """
    deadline, tries = time.monotonic() + PATIENCE_SECONDS, 0
    while True:
        stored = target.read_index()
        before = None if stored is None else parse_index(stored.data, f"{target.name}: index.json")
        base = before or Index(schema_number=4, zoo=uuid.uuid4().hex, serial=1, releases=())
        after = change(base)
        if before is not None and after.releases == before.releases:
            return Changed(before, False)
        after = _numbered(after, before)
        data = index_text(after).encode()
        if len(data) > LARGEST_FILE:
            raise ZooError(f"{target.name}: the index would be larger than {LARGEST_FILE >> 20} MiB")
        check_signer(target, stored, signer, new_key)
        if signer is not None:
            comment = f"zoo:{after.zoo} serial:{after.serial}"
            target.put(places(data)[0], signer.sign(data, comment))
        if target.replace_index(data, None if stored is None else stored.tag):
            return Changed(after, True)
        tries += 1
        if time.monotonic() > deadline:
            raise ZooError(f"{target.name}: others changed the index {tries} times meanwhile; run the command again")
        time.sleep(PAUSE * random.uniform(0.5, 1.0) * min(tries, 20))


def check_signer(target: Target, stored: Stored | None, signer: Signer | None, new_key: bool) -> None:
    """Raise ZooError where an index was signed and the next one would not be, or not by the same key."""
    if stored is None:
        return
    found = (target.read(place, LONGEST) for place in places(stored.data))
    signature = next((one for one in found if one is not None), None)
    if signature is None and signer is not None and not new_key:
        raise ZooError(
            f"{target.name}: its index is not signed so far; give --new-key to begin, and tell those who added the zoo"
        )
    if signature is None:
        return
    if signer is None:
        raise ZooError(f"{target.name}: its index is signed, and would not be any more; give --sign KEYFILE")
    if not new_key:
        try:
            check_signature(stored.data, signature, signer.public, target.name)
        except ZooError:
            raise ZooError(
                f"{target.name}: its index was signed by another key than {key_id(signer.public)}, and those who added "
                "the zoo with that one would refuse yours; give --new-key if they know"
            ) from None


def _numbered(after: Index, before: Index | None) -> Index:
    """The index with the next serial number. An index of `miniwin zoo index` gets its first."""
    known = before is not None and before.serial is not None and before.zoo is not None
    return Index(
        schema_number=4,
        zoo=before.zoo if before is not None and known else uuid.uuid4().hex,
        serial=before.serial + 1 if before is not None and before.serial is not None else 1,
        releases=tuple(sorted(after.releases, key=lambda release: (release.name, release.parsed_version))),
    )


def set_status(
    target: Target,
    ref: str,
    status: ReleaseStatus,
    reason: str | None,
    signer: Signer | None = None,
    new_key: bool = False,
) -> Changed:
    """Mark a release in the index of a target as deprecated or yanked, or as active again. Others as for `edit`.

    Raises:
        ZooError: the index does not list the release, or `ref` does not name one exactly.
    """
    wanted = parse_ref(ref)
    if not wanted.exact:
        raise ZooError(f"{ref} names no version exactly; write {wanted.name}@MAJOR.MINOR.PATCH")
    if status != "active" and not (reason and reason.strip()):
        raise ZooError(f"{ref}: give a reason; whoever uses the model will read it")

    def change(index: Index) -> Index:
        old = index.find(ref)
        if old is None:
            listed = [release.version for release in index.releases if release.name == wanted.name]
            what = f"it lists {', '.join(listed[-8:])}" if listed else f"it lists no {wanted.name}"
            raise ZooError(f"{target.name} has no {ref}; {what}")
        new = old.model_copy(update={"status": status, "reason": None if status == "active" else reason})
        return index.model_copy(update={"releases": tuple(new if one is old else one for one in index.releases)})

    return edit(target, change, signer, new_key)


def with_release(index: Index, release: Release) -> Index:
    """The index, with a release that it does not have yet."""
    return index.model_copy(update={"releases": (*index.releases, release)})

"""What a new version number has to say of the model: which part of it must grow.

Major: another architecture (its canonical hash) or tokenizer. Minor: other weights or another chat format. Patch: the
card, or what was measured.
"""

from __future__ import annotations

from pathlib import Path

from miniwin.runs import CHAT
from miniwin.tokenizer import load_tokenizer
from miniwin.zoo.entry import TOKENIZER, WEIGHTS, Manifest
from miniwin.zoo.errors import ZooError
from miniwin.zoo.references import Bump, Version

PARTS: tuple[Bump, ...] = ("major", "minor", "patch")
_CHANGED = {
    "major": "the architecture or the tokenizer",
    "minor": "the weights or the chat format",
    "patch": "the card",
}


def needed_part(before: Manifest, *, spec_hash: str, same_tokenizer: bool, hashes: dict[str, str]) -> Bump:
    """The part that grows from the entry `before` to a new one. hashes: sha256 of the new one's files, by name."""
    if before.spec_hash != spec_hash or not same_tokenizer:
        return "major"
    old = {name: record.sha256 for name, record in before.files.items()}
    return "minor" if any(old.get(name) != hashes.get(name) for name in (WEIGHTS, *CHAT)) else "patch"


def tokenizer_identity(folder: Path) -> str:
    return load_tokenizer(folder / TOKENIZER).identity


def check_part(name: str, before: Version, after: Version, needed: Bump) -> None:
    """Raise ZooError where `after`, the next published version above `before`, does not say as much as it has to."""
    grown = "major" if after.major > before.major else "minor" if after.minor > before.minor else "patch"
    if PARTS.index(grown) > PARTS.index(needed):
        raise ZooError(
            f"{name}@{after} was not published: {_CHANGED[needed]} changed since {name}@{before}, which needs a new "
            f"{needed} version, {before.bump(needed)} or above; add the entry again with that version (miniwin zoo add "
            f"FOLDER --name {name} --version {before.bump(needed)})"
        )

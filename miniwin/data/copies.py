"""Copies of a text under several names: a text of the test split that is also trained on, or chosen by, tests nothing.

Such a document is left out of the test. Train and valid are what they are without a test split. Texts are compared
within one source, whole and as they are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from miniwin.data.plain_text import Replaced
from miniwin.data.sources import Source
from miniwin.specs.data import TaskData

COPIES = 1  # version of what is left out; part of a prepared corpus's name
Advance = Callable[[int], object]  # is given how many bytes were read


def looked_for(source: Source) -> bool:
    """Whether there may be copies: text, of which some is for a test. Generated examples differ by their seed."""
    return "test" in source.sides and not isinstance(source.spec, TaskData)


def seen(source: Source, advance: Advance) -> frozenset[bytes]:
    """Digests of all texts of train and valid. It reads the source once; only digests stay in memory."""
    found = set()
    for side, text, _ in replace(source, replaced=Replaced()).documents():
        raw = text.encode("utf-8")
        advance(len(raw))
        if side != "test":
            found.add(digest(raw))
    return frozenset(found)


def digest(raw: bytes) -> bytes:
    return hashlib.blake2b(raw, digest_size=16).digest()

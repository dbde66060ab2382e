"""All versions of all zoos, each once: on this machine, and in the indexes that are asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from miniwin.blocks.messages.nearest import near
from miniwin.zoo.catalogue.described import USER, Described, of_entry, of_offer
from miniwin.zoo.configured import sources
from miniwin.zoo.errors import ZooError
from miniwin.zoo.index_query import BUILT_IN, UNNAMED, ask
from miniwin.zoo.lookup import list_entries


@dataclass(frozen=True)
class Catalogue:
    """entries: sorted by name and version. broken: entries here that cannot be read. unread: indexes likewise."""

    entries: list[Described]
    broken: list[str]
    unread: list[str]

    @property
    def problems(self) -> list[str]:
        return [*self.unread, *self.broken]


def zoo_names() -> list[str]:
    """What `--source` takes: the package's zoo, the user's, the index of MINIWIN_ZOO_INDEX, and added ones."""
    chosen = [UNNAMED] if os.environ.get("MINIWIN_ZOO_INDEX") else []
    return [BUILT_IN, USER, *chosen, *(source.name for source in sources())]


def catalogue(zoo: str | None = None) -> Catalogue:
    """Every version that is here or offered. zoo: of this zoo only; no other index is asked then.

    Raises:
        ZooError: there is no such zoo.
    """
    if zoo is not None and zoo not in zoo_names():
        raise ZooError(f"--source: there is no zoo {zoo!r}; {near(zoo, zoo_names())}")
    asked = ask(zoo)  # before the entries are listed: an index may warn against some of them
    found: dict[tuple[str, str], Described] = {}
    broken = []
    for entry in list_entries():
        if entry.manifest is None:
            if zoo in (None, entry.source):
                broken.append(f"{entry.ref} is broken and was passed over: {entry.reason}")
            continue
        found.setdefault((entry.ref, entry.digest), of_entry(entry))
    for offer in asked.offers:
        key = offer.release.ref, offer.release.digest
        known = found.get(key)
        if known is None:
            found[key] = of_offer(offer)
        elif offer.called not in known.zoos:
            found[key] = replace(known, zoos=(*known.zoos, offer.called))
    entries = [one for one in found.values() if zoo is None or zoo in one.zoos]
    if zoo is not None:
        entries = [replace(one, zoos=(*(name for name in one.zoos if name != zoo), zoo)) for one in entries]
    entries.sort(key=lambda one: (one.name, one.parsed_version, one.zoo))
    return Catalogue(entries, broken, list(asked.problems.values()))


def newest(entries: Sequence[Described]) -> list[Described]:
    """Of each name in each zoo the newest version that was not yanked."""
    found: dict[tuple[str, str], Described] = {}
    for one in entries:  # from the oldest version
        if one.status != "yanked":
            found[one.name, one.zoo] = one
    return list(found.values())

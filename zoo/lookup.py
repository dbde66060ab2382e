"""From a reference to an entry on this disk.

The user's zoo is searched first, then the entries of the package. A reference that neither knows is looked for in the
indexes (`$MINIWIN_ZOO_INDEX`), and its entry is pulled into the user's zoo.

A zoo's own `index.json`, and every index as it was last read (see `yanks.py`), may mark a version as deprecated or
yanked. An alias passes over yanked versions; naming a yanked version gives a warning.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from pathlib import Path

from miniwin.blocks.messages.escaping import escaped_line
from miniwin.blocks.messages.listing import some
from miniwin.blocks.messages.nearest import nearest
from miniwin.zoo.configured import find_source
from miniwin.zoo.entry import Entry
from miniwin.zoo.errors import ZooError
from miniwin.zoo.index import ReleaseStatus, local_statuses
from miniwin.zoo.index_query import Offer, ask, choose, indexes, remember_files, warn_of
from miniwin.zoo.integrity import check
from miniwin.zoo.references import Ref, parse_ref
from miniwin.zoo.rollback import seen
from miniwin.zoo.store import Store, stores
from miniwin.zoo.yanks import Mark, marks

log = logging.getLogger("miniwin.zoo")


def list_entries(zoo: Path | str | None = None) -> list[Entry]:
    """Every entry of the user's zoo and of the package, or of `zoo` alone; also the broken ones."""
    marked = said_by_indexes()
    entries = [entry for store in stores(zoo) for entry in _entries(store, marked)]
    return sorted(entries, key=lambda entry: (entry.name, entry.parsed_version, entry.source))


def find(ref: str, zoo: Path | str | None = None) -> Entry:
    """The entry on this disk that `ref` stands for, its files not checked. Raises ZooError where there is none."""
    parsed = parse_ref(ref)
    entry = _find_local(parsed, zoo)
    if entry is None:
        raise ZooError(_unknown(parsed, zoo))
    return entry


def resolve(ref: str, zoo: Path | str | None = None) -> Entry:
    """The entry that `ref` stands for, its files checked. An entry that only an index has is pulled first.

    Raises:
        ZooError: there is no such entry, every version was yanked, the pull failed, or the entry is damaged.
    """
    parsed = parse_ref(ref)
    entry = _find_local(parsed, zoo)
    if entry is None:
        from miniwin.zoo.pull import install

        entry = install(_offered(parsed, zoo), zoo=zoo)
    if entry.warning:
        others = "; miniwin zoo list shows the others" if entry.status == "yanked" else ""
        warnings.warn(f"{entry.warning}{others}", stacklevel=2)
    log.info("%s is %s (%s, %s)", ref, entry.ref, entry.source, entry.folder)
    return check(entry)


def _find_local(ref: Ref, zoo: Path | str | None) -> Entry | None:
    marked = said_by_indexes()
    known = [entry for store in stores(zoo) for entry in _entries(store, marked, ref.name)]
    if ref.zoo is not None:  # what was pulled from that zoo, as far as it said
        theirs = seen(find_source(ref.zoo).place)
        known = [entry for entry in known if entry.manifest is not None and theirs.get(entry.ref) == entry.digest]
    found = [entry for entry in known if ref.matches(entry.parsed_version)]
    usable = [entry for entry in found if ref.exact or entry.status != "yanked"]
    if found and not usable:
        raise ZooError(
            f"every version of {ref} was yanked ({found[-1].ref}: {escaped_line(str(found[-1].reason))}); "
            f"miniwin zoo pull {ref.name} looks for another; name one exactly to use it all the same, for example "
            f"{found[-1].ref}"
        )
    # max keeps the first of equals: the user's zoo comes before the package
    return max(usable, key=lambda entry: entry.parsed_version, default=None)


def _offered(ref: Ref, zoo: Path | str | None) -> Offer:
    """What an index offers for a reference that is not on this disk."""
    try:
        asked = ask()
        offer = choose(ref, asked.offers)
    except ZooError as error:
        raise ZooError(f"{_unknown(ref, zoo)}; {error}") from error
    if offer is None:
        raise ZooError(_unknown(ref, zoo) + (f"; {asked.said()}" if indexes() else ""))
    warn_of(asked)
    return offer


def with_mark(entry: Entry, marked: dict[str, Mark]) -> Entry:
    """The entry, with the status and the reason that an index gave its digest."""
    mark = marked.get(entry.digest) if marked and entry.status == "active" else None
    return entry if mark is None else replace(entry, status=mark[0], reason=mark[1])


def said_by_indexes() -> dict[str, Mark]:
    """The marks of all indexes, by digest, as last read. An index that is a file is read again when it has changed."""
    remember_files()
    return marks()


def _statuses(store: Store) -> dict[str, tuple[ReleaseStatus, str | None]]:
    try:
        return local_statuses(store.root)
    except ZooError as error:  # a broken index hides no entry
        warnings.warn(f"{error}; which versions of this zoo are yanked is not known until it is mended", stacklevel=2)
        return {}


def _entries(store: Store, marked: dict[str, Mark], name: str | None = None) -> list[Entry]:
    statuses = _statuses(store)
    entries = []
    for known in [name] if name is not None else store.names():
        for version in store.versions(known):
            entry = store.entry(known, version)
            status, reason = statuses.get(entry.ref, ("active", None))
            if entry.status == "active" and status != "active":
                entry = replace(entry, status=status, reason=reason)
            entries.append(with_mark(entry, marked))
    return entries


def _unknown(ref: Ref, zoo: Path | str | None) -> str:
    if ref.zoo is not None:
        return f"nothing that was pulled from the zoo {ref.zoo} is {ref}"
    known = list_entries(zoo)
    versions = [entry.version for entry in known if entry.name == ref.name]
    where = ", ".join(str(store.root) for store in stores(zoo))
    if versions:
        wanted = ".".join(map(str, ref.prefix))
        return f"{ref.name} has no version {wanted}; it has {some(versions, 20)} (in {where})"
    names = sorted({entry.name for entry in known})
    near = nearest(ref.name, names)
    hint = f"; did you mean {near}?" if near else ""
    listed = f"it has {some(names, 20)}" if names else "it is empty"
    return f"the zoo has no entry {ref.name!r}{hint} ({listed}; looked in {where})"

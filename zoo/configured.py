"""Further zoos that the user added: `sources.json` in the folder of the user's configuration.

    {"format": 1, "sources": [{"name": "acme", "location": "https://example.org/zoo", "key": "RW...", "added": ...}]}

A zoo is trusted from the moment it is added: its index says which bytes a name stands for. With a key the index has to
be signed; then only the owner of the key is trusted, and not the server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import ValidationError

from miniwin.blocks.messages.nearest import nearest
from miniwin.files.folders import NoHome, config_folder
from miniwin.files.json_files import JSONProblem, parse_json
from miniwin.files.writing import write_text
from miniwin.zoo.entry import Name, Record, explain
from miniwin.zoo.errors import ZooError
from miniwin.zoo.locations import Location, index_location
from miniwin.zoo.references import check_name

FILE = "sources.json"
TAKEN = ("index", "package", "built-in", "user", "mirror")  # what messages and folders call other zoos
LARGEST = 1 << 20  # bytes


class Source(Record):
    name: Name
    location: str
    key: str | None = None  # a minisign public key
    added: str = ""

    @property
    def place(self) -> Location:
        return index_location(self.location)


class _File(Record):
    format: Literal[1]
    sources: list[Source]


def sources() -> list[Source]:
    """The zoos that were added, in this order. Raises ZooError where the file is damaged."""
    with suppress(NoHome):
        return _read(config_folder() / FILE)
    return []


def add_source(name: str, location: str, key: str | None) -> Source:
    """Add a zoo. location: a folder or a URL. key: a minisign public key in one line.

    Raises:
        ZooError: the name is taken, or the location is none.
    """
    if check_name(name) in TAKEN:
        raise ZooError(f"zoo source {name!r}: the name is taken by MiniWin itself; choose another")
    place = index_location(location)
    stored = str(place.absolute()) if isinstance(place, Path) else place
    new = Source(name=name, location=stored, key=key, added=datetime.now(UTC).date().isoformat())
    with _changing() as known:
        for one in known:
            if one.name == name:
                raise ZooError(
                    f"zoo source {name!r} exists already ({one.location}); miniwin zoo source remove {name} first"
                )
        known.append(new)
    return new


def remove_source(name: str) -> Source:
    """Remove a zoo; what was pulled from it stays. Raises ZooError for an unknown name."""
    with _changing() as known:
        found = find_source(name, known)
        known.remove(found)
    return found


def find_source(name: str, known: list[Source] | None = None) -> Source:
    """The zoo of that name. Raises ZooError where there is none."""
    known = sources() if known is None else known
    for one in known:
        if one.name == name:
            return one
    near = nearest(name, [one.name for one in known])
    there = ", ".join(one.name for one in known) or "none was added"
    hint = f"did you mean {near}?" if near else f"known are: {there}; miniwin zoo source add {name} URL adds one"
    raise ZooError(f"there is no zoo source {name!r}; {hint}")


@contextmanager
def _changing() -> Iterator[list[Source]]:
    """The sources, to be changed in place. They are written at the end of the block, unless it raises."""
    folder = config_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{FILE}.lock"):
            known = _read(folder / FILE)
            yield known
            content = _File(format=1, sources=known).model_dump(mode="json")
            write_text(folder / FILE, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise ZooError(f"{folder}: cannot be written to ({error.strerror}); set MINIWIN_CONFIG to a folder") from error


def _read(path: Path) -> list[Source]:
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
        found = _File.model_validate_json(json.dumps(parse_json(text[:LARGEST])))
    except FileNotFoundError:
        return []
    except (JSONProblem, ValidationError) as error:
        problem = explain(error) if isinstance(error, ValidationError) else f"is {error}"
        raise ZooError(f"{path}: {problem}; mend the file, or remove it and add the zoos again") from None
    except OSError as error:
        raise ZooError(f"{path}: cannot be read: {error.strerror}") from error
    return found.sources

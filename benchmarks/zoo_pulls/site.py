"""What the server serves: a zoo with one entry, which was published into a folder."""

from __future__ import annotations

import json
from pathlib import Path

from miniwin.zoo import Entry, add
from miniwin.zoo.publishing.publish import publish

SOURCES = ("", "b/", "c/")  # of a file: the same content, other faults
REF = "tiny@1.0.0"


def make_entry(folder: Path, hidden_size: int) -> Entry:
    """An entry that was not trained: distribution does not look at what a model knows."""
    from zoo_runs import METRICS, make_run  # of tests/support

    return add(make_run(folder / "run", hidden_size=hidden_size), name="tiny", metrics=METRICS, zoo=folder / "added")


def make_site(entry: Entry, folder: Path) -> dict[str, bytes]:
    """Path -> content of all that is published."""
    publish(entry.folder, str(folder), logits=False)
    paths = [path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0][0] != "."]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def with_sources(contents: dict[str, bytes], count: int) -> dict[str, bytes]:
    """The same, with an index that names so many sources of each file."""
    index = json.loads(contents["index.json"])
    for release in index["releases"]:
        for file in release["files"]:
            file["sources"] = [before + file["sources"][0] for before in SOURCES[:count]]
    return {**contents, "index.json": json.dumps(index).encode()}

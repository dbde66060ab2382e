"""Every scored placement, a line each, written at once. The same command reads them and scores nothing twice.

    {"format": 1, "settings": {...}}                          the first line: what the scores depend on
    {"rows": "search", "placement": [7, 8], "seconds": 4.1, "scores": [...]}

A line that was being written when the process died is cut off.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniwin.files.writing import said_if_unwritable
from miniwin.search.adapt.plan import Named
from miniwin.search.adapt.scoring import RowScore, Score
from miniwin.specs import UserError

FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """seconds: that scoring took."""

    score: Score
    seconds: float


class Journal:
    """path: the file. settings: everything that the scores depend on. known: a journal whose scores a new one begins
    with.

    Raises:
        UserError: a file is of other settings, or is no journal.
    """

    def __init__(self, path: Path, settings: dict[str, Any], known: Path | None = None) -> None:
        self.path = path
        self.known: dict[tuple[str, tuple[Named, ...]], Entry] = {}  # of `known` alone
        self.entries: dict[tuple[str, tuple[Named, ...]], Entry] = {}
        head = json.dumps({"format": FORMAT, "settings": settings}, sort_keys=True)
        with said_if_unwritable(path):
            whole = _whole_lines(path)
            earlier: list[str] = []
            if known is not None:
                earlier = known.read_text(encoding="utf-8").splitlines()
                self.known = _read(known, earlier, json.loads(head))
            if not whole:
                self.entries = dict(self.known)
                path.parent.mkdir(parents=True, exist_ok=True)
                _append(path, "\n".join([head, *earlier[1:]]))
            else:
                self.entries = _read(path, whole, json.loads(head))

    def add(self, rows: str, placement: tuple[Named, ...], score: Score, seconds: float) -> Entry:
        """Write one score, and see it on the disk."""
        entry = Entry(score, round(seconds, 3))
        data = {"rows": rows, "placement": list(placement), "seconds": entry.seconds}
        with said_if_unwritable(self.path):
            _append(self.path, json.dumps({**data, "scores": [one.to_list() for one in score]}))
        self.entries[rows, placement] = entry
        return entry

    def seconds(self, rows: str) -> float:
        """That scoring took so far, in all sessions."""
        return sum(entry.seconds for (name, _), entry in self.entries.items() if name == rows)


def _read(path: Path, lines: list[str], head: dict[str, Any]) -> dict[tuple[str, tuple[Named, ...]], Entry]:
    """The scores of a journal that has the same settings."""
    try:
        first = json.loads(lines[0])
        if first["format"] != FORMAT:
            raise ValueError
        found = {(e["rows"], tuple(e["placement"])): _entry(e) for e in map(json.loads, lines[1:])}
    except (ValueError, LookupError, TypeError):
        raise UserError(f"{path}: is not a journal of `miniwin adapt`; remove it, or choose another --out") from None
    other = sorted(name for name, value in head["settings"].items() if first["settings"].get(name) != value)
    if other:
        raise UserError(
            f"{path}: is of an unfinished `miniwin adapt` with other settings ({', '.join(other)}); give the "
            "same command to go on, choose another --out, or remove this file"
        )
    return found


def _entry(data: dict[str, Any]) -> Entry:
    return Entry(tuple(RowScore.from_list(one) for one in data["scores"]), float(data["seconds"]))


def _whole_lines(path: Path) -> list[str]:
    """The lines of the file. A last line without its end is cut off, on the disk too."""
    if not path.is_file():
        return []
    raw = path.read_bytes()
    end = raw.rfind(b"\n") + 1
    if end < len(raw):
        os.truncate(path, end)
    return raw[:end].decode("utf-8", "replace").splitlines()


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())

"""Every scored placement, a line each, written at once. The same command reads them and scores nothing twice.

    {"format": 1, "settings": {...}}                          the first line: what the scores depend on
    {"rows": "search", "placement": [7, 8], "seconds": 4.1, "scores": [...]}

A line that was being written when the process died is cut off. In a file of `--known` it is left alone, and not read.
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
OWN = "give the same command to go on, choose another --out, or remove this file"
ANOTHERS = "give the settings that it was made with, or leave --known out"

Key = tuple[str, tuple[Named, ...]]  # (rows, placement)


@dataclass(frozen=True)
class Entry:
    """seconds: that scoring took."""

    score: Score
    seconds: float


class Journal:
    """path: the file. settings: everything that the scores depend on. known: a journal whose scores a new one begins
    with; nothing is written to it.

    Raises:
        UserError: a file is of other settings, or is no journal, or cannot be read or written.
    """

    def __init__(self, path: Path, settings: dict[str, Any], known: Path | None = None) -> None:
        self.path = path
        self.known: dict[Key, Entry] = {}  # of `known` alone
        self.entries: dict[Key, Entry] = {}
        head = json.dumps({"format": FORMAT, "settings": settings}, sort_keys=True)
        asked, earlier = json.loads(head)["settings"], list[str]()
        if known is not None:
            try:
                raw = known.read_bytes()
            except OSError as error:
                raise UserError(f"--known: {known}: cannot be read: {error.strerror or error}") from None
            earlier = _whole_lines(raw)
            self.known = _read(f"--known: {known}", earlier, asked, ANOTHERS)
        with said_if_unwritable(path):
            raw = path.read_bytes() if path.is_file() else b""
            whole = _whole_lines(raw)
            if whole or not head.encode().startswith(raw):  # else nothing, or a first line that was being written
                self.entries = _read(str(path), whole, asked, OWN)
            if (end := raw.rfind(b"\n") + 1) < len(raw):
                os.truncate(path, end)
            path.parent.mkdir(parents=True, exist_ok=True)
            new = {_key(json.loads(line)): line for line in earlier[1:]}
            if lines := [*([] if whole else [head]), *(line for key, line in new.items() if key not in self.entries)]:
                _append(path, "\n".join(lines))
            self.entries = self.known | self.entries

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


def _read(where: str, lines: list[str], asked: dict[str, Any], mend: str) -> dict[Key, Entry]:
    """The scores of a journal that has the settings `asked`. where, mend: how the message begins and ends."""
    try:
        first = json.loads(lines[0])
        settings = dict(first["settings"])
        if first["format"] != FORMAT:
            raise ValueError
        found = {_key(data): _entry(data) for data in map(json.loads, lines[1:])}
    except (ValueError, LookupError, TypeError):
        raise UserError(f"{where}: is not a journal of `miniwin adapt`; {mend}") from None
    other = sorted(name for name, value in asked.items() if settings.get(name) != value)
    if other:
        raise UserError(f"{where}: is of a `miniwin adapt` with other settings ({', '.join(other)}); {mend}")
    return found


def _key(data: dict[str, Any]) -> Key:
    return data["rows"], tuple(data["placement"])


def _entry(data: dict[str, Any]) -> Entry:
    return Entry(tuple(RowScore.from_list(one) for one in data["scores"]), float(data["seconds"]))


def _whole_lines(raw: bytes) -> list[str]:
    """The lines that have an end."""
    return raw[: raw.rfind(b"\n") + 1].decode("utf-8", "replace").splitlines()


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())

"""Every scored placement, a line each, written at once. The same command reads them and scores nothing twice.

    {"format": 1, "settings": {...}}                          the first line: what the scores depend on
    {"rows": "search", "placement": [7, 8], "seconds": 4.1, "scores": [...]}
    {"gates": {"size": 5, ...}, "values": [...], ...}         a step of learning the gates, for these settings

A line that was being written when the process died is cut off. In a file of `--known` it is left alone, and not read.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from miniwin.files.writing import said_if_unwritable
from miniwin.search.adapt.gate_learning import GateStep
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
        self._steps: dict[Key, GateStep] = {}
        head = json.dumps({"format": FORMAT, "settings": settings}, sort_keys=True)
        asked, earlier = json.loads(head)["settings"], list[str]()
        steps: dict[Key, GateStep] = {}
        if known is not None:
            try:
                raw = known.read_bytes()
            except OSError as error:
                raise UserError(f"--known: {known}: cannot be read: {error.strerror or error}") from None
            earlier = _whole_lines(raw)
            self.known, steps = _read(f"--known: {known}", earlier, asked, ANOTHERS)
        with said_if_unwritable(path):
            raw = path.read_bytes() if path.is_file() else b""
            whole = _whole_lines(raw)
            if whole or not head.encode().startswith(raw):  # else nothing, or a first line that was being written
                self.entries, self._steps = _read(str(path), whole, asked, OWN)
            if (end := raw.rfind(b"\n") + 1) < len(raw):
                os.truncate(path, end)
            path.parent.mkdir(parents=True, exist_ok=True)
            new = {_key(json.loads(line)): line for line in earlier[1:]}
            have = {*self.entries, *self._steps}
            if lines := [*([] if whole else [head]), *(line for key, line in new.items() if key not in have)]:
                _append(path, "\n".join(lines))
            self.entries, self._steps = self.known | self.entries, steps | self._steps

    def add(self, rows: str, placement: tuple[Named, ...], score: Score, seconds: float) -> Entry:
        """Write one score, and see it on the disk."""
        entry = Entry(score, round(seconds, 3))
        data = {"rows": rows, "placement": list(placement), "seconds": entry.seconds}
        with said_if_unwritable(self.path):
            _append(self.path, json.dumps({**data, "scores": [one.to_list() for one in score]}))
        self.entries[rows, placement] = entry
        return entry

    def add_gates(self, settings: dict[str, Any], number: int, step: GateStep) -> None:
        """Write a step of learning the gates, and see it on the disk."""
        data = {"gates": settings, "number": number, **asdict(step)}
        with said_if_unwritable(self.path):
            _append(self.path, json.dumps(data))
        self._steps[_key(data)] = step

    def gates(self, settings: dict[str, Any]) -> list[GateStep]:
        """The first steps with these settings."""
        found: list[GateStep] = []
        while (step := self._steps.get(_key({"gates": settings, "number": len(found)}))) is not None:
            found.append(step)
        return found

    def seconds(self, rows: str) -> float:
        """That scoring took so far, in all sessions."""
        return sum(entry.seconds for (name, _), entry in self.entries.items() if name == rows)


def _read(
    where: str, lines: list[str], asked: dict[str, Any], mend: str
) -> tuple[dict[Key, Entry], dict[Key, GateStep]]:
    """The scores of a journal that has the settings `asked`. where, mend: how the message begins and ends."""
    try:
        first = json.loads(lines[0])
        settings = dict(first["settings"])
        if first["format"] != FORMAT:
            raise ValueError
        found: dict[Key, Entry] = {}
        steps: dict[Key, GateStep] = {}
        for data in map(json.loads, lines[1:]):
            if "gates" in data:
                steps[_key(data)] = _step(data)
            else:
                found[_key(data)] = _entry(data)
    except (ValueError, LookupError, TypeError):
        raise UserError(f"{where}: is not a journal of `miniwin adapt`; {mend}") from None
    other = sorted(name for name in {*asked, *settings} if settings.get(name) != asked.get(name))
    if other:
        raise UserError(f"{where}: is of a `miniwin adapt` with other settings ({', '.join(other)}); {mend}")
    return found, steps


def _key(data: dict[str, Any]) -> Key:
    if "gates" in data:
        return json.dumps(data["gates"], sort_keys=True), (int(data["number"]),)
    return data["rows"], tuple(data["placement"])


def _step(data: dict[str, Any]) -> GateStep:
    values, first, second = (tuple(map(float, data[name])) for name in ("values", "first", "second"))
    if not len(values) == len(first) == len(second):
        raise ValueError
    return GateStep(values, first, second, float(data["text"]), float(data["answers"]), float(data["seconds"]))


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

"""Commands that are killed at random moments, each followed by the same command, which nobody kills."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.checks import Check
from benchmarks.zoo_pulls.commands import Home, Running, run
from benchmarks.zoo_pulls.pulls import contents_of
from benchmarks.zoo_pulls.server import Server, User
from benchmarks.zoo_pulls.site import REF
from miniwin.files.hashing import sha256_file
from miniwin.zoo import Entry
from miniwin.zoo.index import blob_path, read_index_file

PACE = 0.02  # seconds for each answer of the server
IN_A_ROW = 3  # commands that may be killed one after the other, before one may end
COMMANDS: dict[str, tuple[str, ...]] = {
    "pull": ("zoo", "pull", REF),
    "publish": ("zoo", "publish", "{entry}", "--to", "{site}"),
    "verify": ("zoo", "verify", REF),
}


@dataclass
class Kills:
    """What came of all kills. killed: command -> kills. missed: commands that ended before they were killed."""

    killed: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    seconds: float = 0.0
    wrong: dict[str, list[str]] = field(default_factory=dict)

    def note(self, what: str, command: str, found: Iterator[str]) -> None:
        self.wrong.setdefault(what, []).extend(f"{command}: {one}" for one in found)

    def checks(self) -> list[Check]:
        return [Check(what, wrong) for what, wrong in self.wrong.items()]


def kills(folder: Path, entry: Entry, contents: dict[str, bytes], server: Server, count: int, seed: int) -> Kills:
    told, began, draw = Kills(), time.monotonic(), random.Random(seed)
    makers = {name: _maker(name, folder / name, entry, contents, server) for name in COMMANDS}
    usual = {name: _undisturbed(make()) for name, make in makers.items()}
    while sum(told.killed.values()) < count:
        name = min(COMMANDS, key=lambda one: told.killed[one])
        place, (seconds, files) = makers[name](), usual[name]
        for _ in range(min(draw.randint(1, IN_A_ROW), -(-count // len(COMMANDS)) - told.killed[name])):
            command = Running(place.home, *place.arguments)
            time.sleep(draw.uniform(0.0, seconds))
            killed = command.kill()
            told.killed[name] += killed
            told.missed += not killed
            told.note("what is there after a kill is whole", name, place.torn())
        answer = run(place.home, *place.arguments)
        told.note("the same command again succeeds", name, iter([answer.err.strip()] if answer.code != 0 else []))
        told.note("what is there then is whole, too", name, place.torn())
        told.note("no other files are left than by a command that nobody killed", name, _differences(place, files))
    told.seconds = time.monotonic() - began
    return told


@dataclass(frozen=True)
class Place:
    """Where a command is killed: what it is given, and what may be torn there."""

    home: Home
    arguments: tuple[str, ...]
    entry: Entry

    def torn(self) -> Iterator[str]:
        pulled, site = self.home.zoo / "tiny" / "1.0.0", self.home.folder / "site"
        if pulled.exists() and contents_of(pulled) != contents_of(self.entry.folder):
            yield "the entry has other bytes"
        if (site / "index.json").exists():
            for file in (file for release in read_index_file(site / "index.json").releases for file in release.files):
                if sha256_file(site / blob_path(file.sha256)) != file.sha256:
                    yield f"{file.path} is not what the index says"


def _maker(name: str, folder: Path, entry: Entry, contents: dict[str, bytes], server: Server) -> Callable[[], Place]:
    """Makes the same place anew each time."""

    def make() -> Place:
        shutil.rmtree(folder, ignore_errors=True)
        home = Home(folder, server.url(f"kill-{name}", User(contents, pace=PACE)) if name == "pull" else None)
        if name == "verify":
            shutil.copytree(entry.folder, home.zoo / "tiny" / "1.0.0")
        given = {"entry": str(entry.folder), "site": str(folder / "site")}
        return Place(home, tuple(word.format(**given) for word in COMMANDS[name]), entry)

    return make


def _undisturbed(place: Place) -> tuple[float, dict[str, int]]:
    """Seconds that the command takes, and the files that it leaves."""
    began = time.monotonic()
    answer = run(place.home, *place.arguments)
    assert answer.code == 0, answer.err
    return time.monotonic() - began, place.home.files()


def _differences(place: Place, usual: dict[str, int]) -> Iterator[str]:
    there = place.home.files()
    for path in sorted(there.keys() | usual.keys()):
        if there.get(path) != usual.get(path):
            yield f"{path}: {there.get(path)} bytes, usually {usual.get(path)}"

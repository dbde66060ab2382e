"""Pulls from a server with random faults, each followed by the same pull from a server without."""

from __future__ import annotations

import hashlib
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.checks import Check
from benchmarks.zoo_pulls.commands import SHORT, Answer, Home, run
from benchmarks.zoo_pulls.faults import Drawn, drawn
from benchmarks.zoo_pulls.server import Server, User
from benchmarks.zoo_pulls.site import REF, SOURCES, with_sources
from miniwin.zoo import Entry

CHANCES = (0.1, 0.3, 0.6, 0.9)  # that a source of a file has faults, one of them for each pull
_NOTING = threading.Lock()
OF_THE_INDEX = 0.25  # the same chance for the index, as a share


@dataclass
class Pulls:
    """What came of all pulls. wrong: for each thing that has to hold, where it does not."""

    succeeded: int = 0
    refused: int = 0
    resumed: int = 0  # requests for the rest of a file
    faults: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    wrong: dict[str, list[str]] = field(default_factory=dict)

    def note(self, what: str, number: int, found: list[str]) -> None:
        self.wrong.setdefault(what, []).extend(f"pull {number}: {one}" for one in found)

    def checks(self) -> list[Check]:
        return [Check(what, wrong) for what, wrong in self.wrong.items()]


def pulls(
    folder: Path, entry: Entry, contents: dict[str, bytes], server: Server, *, count: int, seed: int, at_once: int = 1
) -> Pulls:
    """at_once: how many go on side by side, each with a server's address and folders of its own."""
    told, began = Pulls(), time.monotonic()

    def one(number: int) -> None:
        draw = random.Random(f"{seed}/{number}")
        chance, sources = draw.choice(CHANCES), draw.randint(1, len(SOURCES))
        user = User(with_sources(contents, sources), _Faults(chance, f"{seed}/{number}"), seed=f"{seed}/{number}/at")
        home = Home(folder / str(number), server.url(f"pull-{number}", user))
        _one(told, number, user, home, entry)
        shutil.rmtree(home.folder)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(one, range(count)))
    told.seconds = time.monotonic() - began
    return told


class _Faults:
    """The faults of each file from each source: the same for a seed, in whatever order they are asked for."""

    def __init__(self, chance: float, seed: str) -> None:
        self._chance, self._seed = chance, seed

    def __call__(self, place: str) -> Drawn:
        share = OF_THE_INDEX if place == "index.json" else 1.0
        return drawn(self._chance * share, random.Random(f"{self._seed}/{place}"))


def _one(told: Pulls, number: int, user: User, home: Home, entry: Entry) -> None:
    answer = run(home, "zoo", "pull", REF, timeout=SHORT)
    first = list(_bytes(home, entry, answer.code == 0))
    user.behave()
    again = run(home, "zoo", "pull", REF)
    then = list(_bytes(home, entry, True)) + list(left_over(home))
    with _NOTING:
        told.note("each pull ends with success or with one message, exit code 2", number, list(answer.wrong()))
        told.note("no pull fails where the server was right", number, _groundless(answer, user))
        told.note("nothing but the right bytes has a final name", number, first)
        told.note("the same command again succeeds", number, [again.err.strip()] if again.code != 0 else [])
        told.note("nothing is left over then", number, then)
        told.note("only what is missing is asked for", number, user.wrong)
        told.succeeded += answer.code == 0
        told.refused += answer.code == 2
        told.resumed += user.resumed
        told.faults += user.done


def _groundless(answer: Answer, user: User) -> list[str]:
    return [answer.err.strip()] if answer.code != 0 and not user.done else []


def _bytes(home: Home, entry: Entry, there: bool) -> Iterator[str]:
    """What is wrong with the entry of the user, and with files in the cache that came whole."""
    name, _, version = REF.partition("@")
    pulled = home.zoo / name / version
    if pulled.exists() != there:
        yield f"the entry is {'' if pulled.exists() else 'not '}there"
    elif there and contents_of(pulled) != contents_of(entry.folder):
        yield "the entry has other bytes"
    for path in home.blobs.glob("*/*"):
        if path.is_file() and not path.suffix and hashlib.sha256(path.read_bytes()).hexdigest() != path.name:
            yield f"{path.name} in the cache has other bytes"


def contents_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left_over(home: Home) -> Iterator[str]:
    """Files that no user of an entry needs, but for locks."""
    for path in home.files():
        of_use = path.startswith(("zoo/tiny/", "config/seen/")) and not path.endswith(".tmp")
        if not of_use and not path.endswith(".lock"):
            yield path

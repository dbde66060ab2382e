"""The benchmark of pulls at its smallest: two pulls from a server with faults, a race, kills; each fault by itself; and
the checks, which find what does not hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.checks import Check
from benchmarks.zoo_pulls.commands import Answer, Home
from benchmarks.zoo_pulls.faults import FAULTS, Drawn
from benchmarks.zoo_pulls.kills import Place, kills
from benchmarks.zoo_pulls.page import FILE, FOLDER, page
from benchmarks.zoo_pulls.pulls import left_over, pulls
from benchmarks.zoo_pulls.server import Server, User
from benchmarks.zoo_pulls.site import make_entry, make_site
from benchmarks.zoo_pulls.together import together
from miniwin.files.hashing import sha256_file
from miniwin.zoo import Entry, ZooError, download, timeouts

CONTENT = bytes(range(256)) * 400


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    return make_entry(tmp_path_factory.mktemp("entry"), 16)


@pytest.fixture(scope="module")
def contents(entry: Entry, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return make_site(entry, tmp_path_factory.mktemp("site") / "site")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def broken(checks: list[Check]) -> list[str]:
    return [str(one) for one in checks if one.wrong]


def test_pulls_a_race_and_kills(tmp_path: Path, entry: Entry, contents: dict[str, bytes], server: Server) -> None:
    told = pulls(tmp_path, entry, contents, server, count=2, seed=3)
    assert not broken(told.checks()) and len(told.checks()) == 6
    assert told.succeeded + told.refused == 2 and told.faults
    assert not broken(together(tmp_path, entry, contents, server, processes=4))
    killed = kills(tmp_path, entry, contents, server, count=3, seed=0)
    assert not broken(killed.checks()) and len(killed.checks()) == 4
    assert killed.killed == {"pull": 1, "publish": 1, "verify": 1}


@pytest.mark.parametrize("before", [(), ("cuts the content off",)])
@pytest.mark.parametrize("kind", list(FAULTS))
def test_each_fault(
    server: Server, kind: str, before: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the beginning of a file and in an answer to a range. Whatever happens, only what is missing is asked for."""
    monkeypatch.setattr(timeouts, "TIMEOUT", 1.0)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    (tmp_path / "whole").write_bytes(CONTENT)
    sha256 = sha256_file(tmp_path / "whole")
    user = User({"file": CONTENT}, lambda place: Drawn((*before, kind)), seed=kind)
    url = server.url("user", user).replace("index.json", "file")

    def fetch() -> None:
        part = download.ResumingDownloader(tmp_path / "part", size=len(CONTENT), sha256=sha256)
        part(url, tmp_path / "done", None)

    try:
        fetch()
    except ZooError as error:
        assert url in str(error) and not (tmp_path / "done").exists()
        user.behave()
        fetch()
    assert (tmp_path / "done").read_bytes() == CONTENT and not (tmp_path / "part").exists()
    assert user.wrong == [] and user.done.keys() == {*before, kind}


def test_what_the_checks_find(tmp_path: Path, entry: Entry, contents: dict[str, bytes], server: Server) -> None:
    home = Home(tmp_path)
    assert [*Answer(0).wrong(), *Answer(2, "", "error: x\n").wrong(), *left_over(home)] == []
    for answer in (Answer(1), Answer(None), Answer(2), Answer(0, "", "error: x"), Answer(2, "x", "error: y")):
        assert len([*answer.wrong()]) == 1
    assert "a traceback" in next(Answer(2, "", "Traceback\nerror: x").wrong())
    for path in ("cache/blobs/00/00.part", "zoo/.staging/0/x", "config/seen/.x.json.1.tmp", "tmp/miniwin-0/x"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert len([*left_over(home)]) == 4
    place = Place(home, (), entry)
    assert [*place.torn()] == []
    for path, content in contents.items():
        (tmp_path / "site" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / path).write_bytes(content if path == "index.json" else content[:-1])
    (home.zoo / "tiny" / "1.0.0").mkdir(parents=True)
    assert len([*place.torn()]) == len(contents)


def test_the_page_is_that_of_the_results() -> None:
    results = json.loads(FILE.read_text(encoding="utf-8"))
    assert page(results) == (FOLDER / "README.md").read_text(encoding="utf-8")
    assert results["pulls"]["count"] >= 200 and sum(results["kills"]["killed"].values()) >= 50
    checks = [*results["pulls"]["checks"], *results["together"]["checks"], *results["kills"]["checks"]]
    assert [one["what"] for one in checks if one["wrong"]] == [] and len(checks) == 13

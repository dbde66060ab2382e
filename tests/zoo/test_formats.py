"""Every format that an index and an entry ever had: files of then, which are pulled, checked, loaded and used.

`tests/fixtures/zoo-formats` has an index of each number, and entries of each number as blobs. A new number needs new
files beside them; those that are there never change.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from paths import FIXTURES
from tiny import run_cli

import miniwin
from miniwin.zoo import verify
from miniwin.zoo.entry import NEWEST_SCHEMA, read_manifest
from miniwin.zoo.index import PUBLISHED_SCHEMA, read_index_file
from miniwin.zoo.pull import pull

OLD = FIXTURES / "zoo-formats"
ENTRIES = {"plain": 1, "measured": 2, "chat": 3}  # name -> number of its format
INDEXES = {int(path.stem.removeprefix("index-")): path for path in OLD.glob("index-*.json")}


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZOO", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"MINIWIN_{name}", str(tmp_path / name.lower()))
    monkeypatch.delenv("MINIWIN_ZOO_MIRROR", raising=False)
    monkeypatch.setenv("MINIWIN_OFFLINE", "1")


def test_there_is_a_file_of_each_format() -> None:
    assert sorted(INDEXES) == list(range(1, PUBLISHED_SCHEMA + 1))
    assert sorted(ENTRIES.values()) == list(range(1, NEWEST_SCHEMA + 1))
    assert all(json.loads(path.read_text(encoding="utf-8"))["schema"] == number for number, path in INDEXES.items())


@pytest.mark.parametrize("number", sorted(INDEXES))
def test_an_index_of_then_is_read(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", str(INDEXES[number]))
    index = read_index_file(INDEXES[number])
    assert (index.schema_number, index.serial is not None) == (number, number == PUBLISHED_SCHEMA)
    code, out, err = run_cli("zoo", "list", "--remote")
    assert code == 0 and all(release.name in out for release in index.releases), err


@pytest.mark.parametrize("name", list(ENTRIES))
def test_an_entry_of_then_is_pulled_checked_and_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the oldest index that lists it. The reference logits are those of then."""
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", str(INDEXES[ENTRIES[name]]))
    entry = pull(f"{name}@1.0.0")
    assert read_manifest(entry.folder).schema_number == ENTRIES[name] and verify(entry) == []
    assert (entry.suite is not None) == (name == "measured")
    model = miniwin.load(entry.ref, verify=True)
    assert (model.chat_format is not None) == (name == "chat")
    assert len(model.generate("def ", max_new_tokens=4, seed=0)) > 0


def test_a_format_to_come_says_to_upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = json.loads(INDEXES[PUBLISHED_SCHEMA].read_text(encoding="utf-8"))
    (tmp_path / "index.json").write_text(json.dumps({**data, "schema": PUBLISHED_SCHEMA + 1}), encoding="utf-8")
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", str(tmp_path))
    code, _, err = run_cli("zoo", "pull", "plain")
    assert code == 2 and f"schema {PUBLISHED_SCHEMA + 1} is newer than this miniwin reads" in err

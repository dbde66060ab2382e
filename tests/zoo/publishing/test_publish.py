"""Publishing to a folder: content first, index last, nothing overwritten, nothing lost."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from forked import start
from tiny import run_cli
from zoo_processes import publish as publish_there
from zoo_runs import METRICS, make_run

from miniwin.files.hashing import sha256_file
from miniwin.zoo import Entry, ZooError, add, resolve, verify, write_index
from miniwin.zoo.index import blob_path, read_index_file
from miniwin.zoo.publishing import editing
from miniwin.zoo.publishing.folder import FolderTarget
from miniwin.zoo.publishing.publish import publish

Entries = dict[str, Entry]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "site"


def put(entries: Entries, ref: str, site: Path) -> Any:
    return publish(entries[ref].folder, str(site), logits=False)


def listed(site: Path) -> list[str]:
    return [release.ref for release in read_index_file(site / "index.json").releases]


def is_whole(site: Path) -> bool:
    """Whether every file that the index lists is there with its hash."""
    files = [file for release in read_index_file(site / "index.json").releases for file in release.files]
    return all(sha256_file(site / blob_path(file.sha256)) == file.sha256 for file in files)


def test_what_is_published_can_be_pulled(entries: Entries, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = publish(entries["tiny@1.0.0"].folder, str(site))
    assert (done.new, done.serial, listed(site)) == (True, 1, ["tiny@1.0.0"])
    assert put(entries, "tiny@1.1.0", site).serial == 2 and put(entries, "another@1.0.0", site).serial == 3
    assert listed(site) == ["another@1.0.0", "tiny@1.0.0", "tiny@1.1.0"] and is_whole(site)
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", str(site))
    entry = resolve("tiny")
    assert entry.ref == "tiny@1.1.0" and verify(entry) == []


def test_the_same_again_is_said_to_be_there(entries: Entries, site: Path) -> None:
    put(entries, "tiny@1.0.0", site)
    index = (site / "index.json").read_bytes()
    assert not put(entries, "tiny@1.0.0", site).new and (site / "index.json").read_bytes() == index
    code, out, _ = run_cli("zoo", "publish", str(entries["tiny@1.0.0"].folder), "--to", str(site), "--no-logits")
    assert (code, "tiny@1.0.0 is at" in out, "already, with the same content" in out) == (0, True, True)


def test_a_version_with_other_content_is_refused(entries: Entries, site: Path, tmp_path: Path) -> None:
    put(entries, "tiny@1.0.0", site)
    before = {path: path.read_bytes() for path in site.rglob("*") if path.is_file() and path.suffix != ".lock"}
    other = add(make_run(tmp_path / "other", seed=7), name="tiny", version="1.0.0", metrics=METRICS)
    code, _, err = run_cli("zoo", "publish", str(other.folder), "--to", str(site), "--no-logits")
    assert code == 2 and "has another tiny@1.0.0" in err and "a version never changes once published" in err
    assert {path: path.read_bytes() for path in site.rglob("*") if path.is_file() and path.suffix != ".lock"} == before


@pytest.mark.parametrize(
    ("source", "version", "needed"),
    [
        (
            "tiny@2.0.0",
            "1.2.0",
            r"the architecture or the tokenizer changed since tiny@1\.0\.0, .* major version, 2\.0\.0",
        ),
        (
            "tiny@1.1.0",
            "1.0.1",
            r"the weights or the chat format changed since tiny@1\.0\.0, .* minor version, 1\.1\.0",
        ),
        (
            "tokenizer",
            "1.9.0",
            r"the architecture or the tokenizer changed since tiny@1\.0\.0, .* major version, 2\.0\.0",
        ),
    ],
)
def test_a_version_says_what_changed(
    entries: Entries, site: Path, tmp_path: Path, source: str, version: str, needed: str
) -> None:
    put(entries, "tiny@1.0.0", site)
    folder = entries[source].folder if source in entries else make_run(tmp_path / "run")
    if source == "tokenizer":
        model = {
            "type": "WordLevel",
            "vocab": {chr(i): i for i in range(32, 127)} | {"[UNK]": 200},
            "unk_token": "[UNK]",
        }
        tokenizer = {"version": "1.0", "added_tokens": [], "pre_tokenizer": None, "model": model}
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    wrong = add(folder, name="tiny", version=version, metrics=METRICS)
    with pytest.raises(ZooError, match=needed):
        publish(wrong.folder, str(site), logits=False)
    assert listed(site) == ["tiny@1.0.0"]


def test_a_version_may_say_more_than_it_has_to_and_come_late(entries: Entries, site: Path, tmp_path: Path) -> None:
    for ref in ("tiny@1.0.0", "tiny@2.0.0", "tiny@1.0.1", "tiny@1.1.0"):  # 1.x is compared with 1.x
        put(entries, ref, site)
    more = add(entries["tiny@2.0.0"].folder, name="tiny", version="3.0.0", description="Only a card.")
    assert publish(more.folder, str(site), logits=False).new


def test_a_broken_entry_is_not_published(entries: Entries, site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(entries["tiny@1.0.0"].folder, folder)
    (folder / "model.safetensors").chmod(0o644)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ZooError, match=r"tiny@1\.0\.0 was not published: model\.safetensors: has sha256"):
        publish(folder, str(site), logits=False)
    assert not site.exists()


def test_places_that_are_no_zoo(entries: Entries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").touch()
    (tmp_path / "file").touch()
    for place, message in (
        (str(tmp_path / "letters"), r"holds other things \(dear\.txt\) and no zoo"),
        (str(tmp_path / "file"), "is not a folder"),
        ("ftp://host/zoo", "expected a folder"),
        (str(Path(__file__).parents[3] / "zoo" / "entries"), "is the package's own zoo"),
    ):
        with pytest.raises(ZooError, match=message):
            publish(entries["tiny@1.0.0"].folder, place, logits=False)
    with pytest.raises(ZooError, match=r"is no zoo entry \(it has no entry\.json\)"):
        publish(tmp_path / "letters", str(tmp_path / "site"), logits=False)
    assert sorted(path.name for path in (tmp_path / "letters").iterdir()) == ["dear.txt"]


def test_a_damaged_index_is_not_replaced(entries: Entries, site: Path) -> None:
    put(entries, "tiny@1.0.0", site)
    for text in ("[" * 100_000, '{"schema": 4, "releases": []}', '{"schema": 1, "serial": 5, "releases": []}', "{"):
        (site / "index.json").write_text(text, encoding="utf-8")
        with pytest.raises(ZooError, match=r"index\.json"):
            put(entries, "tiny@1.1.0", site)
        assert (site / "index.json").read_text(encoding="utf-8") == text


def test_a_damaged_blob_is_put_again(entries: Entries, site: Path) -> None:
    put(entries, "tiny@1.0.0", site)
    for place, blob in enumerate(sorted((site / "blobs").glob("*/*"))):
        content = blob.read_bytes()
        blob.unlink()
        if place % 2:
            blob.write_bytes(content[:-1] + b"?")
    assert not put(entries, "tiny@1.0.0", site).new and is_whole(site)


def test_a_zoo_of_folders_may_be_published_to_and_indexed(entries: Entries, site: Path) -> None:
    """What one command listed, the other keeps."""
    shutil.copytree(entries["another@1.0.0"].folder, site / "another" / "1.0.0")
    write_index(site)
    assert put(entries, "tiny@1.0.0", site).serial == 1
    shutil.copytree(entries["tiny@2.0.0"].folder, site / "tiny" / "2.0.0")
    write_index(site)
    assert listed(site) == ["another@1.0.0", "tiny@1.0.0", "tiny@2.0.0"]
    assert read_index_file(site / "index.json").serial == 2


# ------------------------------------------------------------------------------------------ yanked and deprecated


def test_yank_deprecate_and_restore(entries: Entries, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for ref in ("tiny@1.0.0", "tiny@1.1.0"):
        put(entries, ref, site)
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", str(site))
    assert resolve("tiny").version == "1.1.0"
    at = ("--at", str(site))
    assert run_cli("zoo", "yank", "tiny@1.1.0", *at, "--reason", "bad data")[:2] == (
        0,
        f"tiny@1.1.0 is yanked at {site} (index number 3)\n",
    )
    assert "already" in run_cli("zoo", "yank", "tiny@1.1.0", *at, "--reason", "bad data")[1]
    with pytest.warns(UserWarning, match=r"tiny@1\.1\.0 was yanked: bad data"):
        resolve("tiny@1.1.0")
    assert put(entries, "tiny@1.1.0", site).new is False  # and does not come back by being published again
    assert run_cli("zoo", "deprecate", "tiny@1.1.0", *at, "--reason", "slow")[0] == 0
    with pytest.warns(UserWarning, match=r"tiny@1\.1\.0 is deprecated: slow"):
        assert resolve("tiny").version == "1.1.0"
    assert run_cli("zoo", "restore", "tiny@1.1.0", *at)[0] == 0
    assert resolve("tiny").warning is None
    for arguments, message in (
        (("yank", "tiny@1", *at, "--reason", "x"), "names no version exactly"),
        (("yank", "tiny@7.0.0", *at, "--reason", "x"), "has no tiny@7.0.0; it lists 1.0.0, 1.1.0"),
        (("yank", "tiny@1.0.0", *at, "--reason", " "), "give a reason"),
        (("restore", "tiny@1.0.0", "--at", str(site / "none")), "has no tiny@1.0.0; it lists no tiny"),
    ):
        code, _, err = run_cli("zoo", *arguments)
        assert code == 2 and message in err
    assert not (site / "none").exists()


# ------------------------------------------------------------------------------------------- at once, and killed


def test_publishers_at_once_lose_nothing(entries: Entries, site: Path) -> None:
    processes = [start(publish_there, entry.folder, site) for entry in entries.values()]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(entries)
    assert sorted(listed(site)) == sorted(entries) and is_whole(site)
    assert read_index_file(site / "index.json").serial == len(entries)


def test_who_was_second_reads_the_index_again(entries: Entries, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a check that held before may not hold any more."""
    monkeypatch.setattr(editing, "PAUSE", 0.0)
    replace, first = FolderTarget.replace_index, iter([True])

    def late(target: FolderTarget, data: bytes, tag: object) -> bool:
        if next(first, False):
            put(entries, "tiny@1.0.1", site)
        return replace(target, data, tag)

    monkeypatch.setattr(FolderTarget, "replace_index", late)
    put(entries, "tiny@1.0.0", site)
    assert listed(site) == ["tiny@1.0.0", "tiny@1.0.1"]


def test_kill_9_leaves_nothing_to_clean_up(entries: Entries, site: Path) -> None:
    put(entries, "another@1.0.0", site)
    draw = random.Random(0)
    killed = 0
    for ref in ("tiny@1.0.0", "tiny@1.0.1", "tiny@1.1.0", "tiny@2.0.0"):
        process = start(publish_there, entries[ref].folder, site)
        while not (site / ".staging").exists():
            time.sleep(0.001)
        time.sleep(draw.uniform(0.0, 0.1))
        if process.is_alive():
            process.kill()
        process.join()
        killed += process.exitcode != 0
        assert is_whole(site)
        assert not put(entries, ref, site).new or ref in listed(site)
    assert sorted(listed(site)) == sorted(entries) and is_whole(site)
    assert list((site / ".staging").iterdir()) == []
    assert not [path for path in site.rglob("*.tmp")]


def test_a_publisher_killed_at_its_end_leaves_nothing_to_the_next(entries: Entries, site: Path) -> None:
    """All is there then, so that the next one has nothing to write."""
    put(entries, "tiny@1.0.0", site)
    (site / ".staging" / "0.lock").touch()
    (site / ".staging" / "1").mkdir()
    assert not put(entries, "tiny@1.0.0", site).new and list((site / ".staging").iterdir()) == []

"""Lock files: exact versions and digests, honoured before anything is fetched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import run_cli
from zoo_runs import METRICS, make_run
from zoo_server import Server, change_index, environment, nothing_was_written, published, release, server

from miniwin.zoo import add, list_entries, user_zoo, write_index

__all__ = ["environment", "published", "server"]  # fixtures


@pytest.fixture
def locked(server: Server, tmp_path: Path) -> Path:
    path = tmp_path / "models.lock"
    code, out, err = run_cli("zoo", "lock", str(path), "tiny@1.0", "tiny", "miniwin-tasks")
    assert code == 0 and out.startswith("tiny@1.0: tiny@1.0.0, digest "), err
    assert [one["ref"] for one in json.loads(path.read_text(encoding="utf-8"))["entries"]] == [
        "tiny@1.0.0",
        "tiny@1.1.0",
        "miniwin-tasks@1.0.0",
    ]
    return path


def mine() -> list[str]:
    return [entry.ref for entry in list_entries() if entry.source == "user"]


def test_a_lock_is_honoured_though_there_is_something_newer(server: Server, tmp_path: Path, locked: Path) -> None:
    add(make_run(tmp_path / "run", seed=5), name="tiny", metrics=METRICS, zoo=server.folder)
    write_index(server.folder)
    code, out, err = run_cli("zoo", "pull", "--locked", str(locked))
    assert code == 0 and mine() == ["tiny@1.0.0", "tiny@1.1.0"], err
    assert out.splitlines()[0] == f"tiny@1.0.0: {user_zoo() / 'tiny' / '1.0.0'}"
    server.close()  # all is here: nobody is asked
    assert run_cli("zoo", "pull", "--locked", str(locked))[0] == 0


def test_another_digest_is_refused_before_anything_is_fetched(server: Server, locked: Path) -> None:
    change_index(server, lambda data: release(data).update(digest="0" * 64))
    code, _, err = run_cli("zoo", "source", "accept", f"{server.url}/index.json")
    assert code == 0, err
    code, _, err = run_cli("zoo", "pull", "--locked", str(locked))
    assert code == 2 and "tiny@1.1.0 has digest" in err and "nothing was pulled" in err and nothing_was_written()


def test_files_that_are_no_lock(server: Server, tmp_path: Path, locked: Path) -> None:
    entry = {"asked": "x", "ref": "tiny@1.0.0", "digest": "0" * 64}
    for content, message in (
        ("[" * 100_000, "nested too deeply"),
        ('{"format": 2, "entries": []}', "format"),
        (json.dumps({"format": 1, "entries": [{**entry, "ref": "tiny"}]}), "is no exact version"),
        (json.dumps({"format": 1, "entries": [{**entry, "ref": "../../x@1.0.0"}]}), "is not valid"),
        (json.dumps({"format": 1, "entries": [{**entry, "ref": "gone@1.0.0"}]}), "gone@1.0.0 is not on this machine"),
    ):
        locked.write_text(content, encoding="utf-8")
        code, _, err = run_cli("zoo", "pull", "--locked", str(locked))
        assert code == 2 and message in err and nothing_was_written()
    for arguments, message in (((), "give"), (("tiny", "--locked", str(locked)), "give")):
        code, _, err = run_cli("zoo", "pull", *arguments)
        assert code == 2 and message in err
    before = locked.read_bytes()
    code, _, err = run_cli("zoo", "lock", str(locked), "tiny", "nothing")
    assert code == 2 and "nothing@latest cannot be locked" in err and locked.read_bytes() == before

"""Weights that are not what the spec says, links that lead out, and downloads in the cache."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from tiny import run_cli
from zoo_server import WEIGHTS, Server, environment, nothing_was_written, published, server

import miniwin
from miniwin.files.folders import cache_folder
from miniwin.files.hashing import sha256_file
from miniwin.specs import UserError
from miniwin.zoo import user_zoo, write_index
from miniwin.zoo.cache import downloads
from miniwin.zoo.entry import FileRecord, read_manifest, write_manifest
from miniwin.zoo.pull import pull

__all__ = ["environment", "published", "server"]  # fixtures


def offered(server: Server, change: Callable[[Path], None]) -> None:
    """Other weights for tiny@1.1.0, by a publisher whose hashes are right."""
    folder = server.folder / "tiny" / "1.1.0"
    change(folder / WEIGHTS)
    manifest = read_manifest(folder)
    record = FileRecord(size=(folder / WEIGHTS).stat().st_size, sha256=sha256_file(folder / WEIGHTS))
    manifest = manifest.model_copy(update={"files": {**manifest.files, WEIGHTS: record}})
    (folder / "entry.json").write_text(write_manifest(manifest), encoding="utf-8")
    write_index(server.folder)


def tensors(change: Callable[[dict[str, Any], str], object]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        there = load_file(path)
        change(there, min(there))
        save_file(there, path)

    return write


def header(text: bytes, length: int | None = None, body: bytes = b"") -> Callable[[Path], None]:
    packed = struct.pack("<Q", len(text) if length is None else length)
    return lambda path: path.write_bytes(packed + text + body) and None


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (tensors(lambda t, name: t.pop(name)), r"tensor .* is missing"),
    "extra": (tensors(lambda t, name: t.update(more=torch.ones(1))), "tensor more is not part of the architecture"),
    "shape": (tensors(lambda t, name: t.update({name: torch.ones(3, 5)})), r"has shape \[3, 5\]"),
    "type": (tensors(lambda t, name: t.update({name: t[name].to(torch.uint8)})), "holds uint8"),
    "nan": (tensors(lambda t, name: t[name].view(-1)[0].fill_(float("nan"))), "holds NaN or infinity"),
    "pickle": (lambda path: torch.save({"a": torch.ones(1)}, path), "is not a safetensors file"),
    "long header": (header(b"{}", 1 << 60), "its header would be 1,152,921,504,606,846,976 bytes long"),
    "deep header": (header(b'{"a":' * 5000 + b"1" + b"}" * 5000), "is not a safetensors file"),
    "outside": (
        header(json.dumps({"a": ONE | {"data_offsets": [0, 400]}}).encode(), body=bytes(4)),
        "not a safetensors",
    ),
    "overlap": (header(json.dumps({"a": ONE, "b": ONE}).encode(), body=bytes(4)), "is not a safetensors file"),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_weights_that_do_not_fit_are_not_pulled(server: Server, what: str) -> None:
    change, message = REFUSED[what]
    offered(server, change)
    code, _, err = run_cli("zoo", "pull", "tiny@1.1.0")
    assert code == 2 and err.count("error:") == 1 and "tiny@1.1.0 was not pulled: model.safetensors: " in err
    with pytest.raises(UserError, match=message):
        pull("tiny@1.1.0")
    assert nothing_was_written()


def test_wrong_weights_are_refused_before_they_are_read(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = pull("tiny")
    monkeypatch.setattr("miniwin.loading.promised_weights", lambda path: {})
    monkeypatch.setattr("miniwin.stored_model.read_weights", None)
    with pytest.raises(UserError, match="does not hold the weights"):
        miniwin.load(entry.folder)


def test_reference_logits_are_replayed_on_load_when_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert miniwin.load("tiny", verify=True).ref == "tiny@1.1.0"
    monkeypatch.setattr("miniwin.zoo.verification.reference_error", lambda *_: 0.5)
    with pytest.raises(UserError, match=r"tiny@1\.1\.0 was not loaded: .*computes logits that differ by 0\.5"):
        miniwin.load("tiny", verify=True)
    assert miniwin.load("tiny").ref == "tiny@1.1.0"
    with pytest.raises(UserError, match="is no zoo entry"):
        miniwin.load("miniwin-tiny", verify=True)


def test_a_link_does_not_lead_out_of_a_zoo(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = server.folder / "tiny" / "1.1.0" / "README.md"
    card.rename(tmp_path / "outside.md")
    card.symlink_to(tmp_path / "outside.md")
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", str(server.folder / "index.json"))
    with pytest.raises(UserError, match="is a link that leads out of"):
        pull("tiny")
    assert nothing_was_written()


def test_a_dry_run_fetches_nothing(server: Server) -> None:
    code, out, _ = run_cli("zoo", "pull", "tiny", "--dry-run")
    size = sum(path.stat().st_size for path in (server.folder / "tiny" / "1.1.0").iterdir())
    assert code == 0 and f"{server.url}/tiny/1.1.0/{WEIGHTS}" in out and "nothing was fetched" in out
    assert f"{size / 1000:.0f}" in out
    assert {name for name, _ in server.asked} == {"index.json"}
    assert nothing_was_written() and not (cache_folder() / "blobs").exists()
    pull("tiny")
    assert "is here already" in run_cli("zoo", "pull", "tiny", "--dry-run")[1]


def test_a_pull_that_was_killed_at_its_end_leaves_nothing_to_the_next(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry is in the zoo then, and its downloads are still in the cache."""

    def killed(file: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("miniwin.zoo.pull._forget", killed)
        with pytest.raises(KeyboardInterrupt):
            pull("tiny")
    (user_zoo() / ".staging" / "0.lock").touch()
    assert any(one.bytes for one in downloads())
    assert pull("tiny").ref == "tiny@1.1.0" and not any(one.bytes for one in downloads())
    assert list((user_zoo() / ".staging").iterdir()) == []


def test_downloads_are_listed_and_pruned(server: Server) -> None:
    server.faults[WEIGHTS] = lambda request: ("cut", 10_000) if request == 1 else ("cut", 0)
    with pytest.raises(UserError):
        pull("tiny")
    (part,) = (one for one in downloads() if one.file == WEIGHTS)
    assert (part.ref, part.bytes, part.in_use) == ("tiny@1.1.0", 10_000, False)
    assert "tiny@1.1.0 model.safetensors: 10.0 kB of " in run_cli("zoo", "cache", "list")[1]
    run_cli("zoo", "cache", "prune")
    run_cli("zoo", "cache", "prune", "--keep", "tiny")
    assert [one.file for one in downloads() if one.file == WEIGHTS] == [WEIGHTS]
    with FileLock(f"{part.blob}.lock"):
        run_cli("zoo", "cache", "prune", "--all")
        assert [one.in_use for one in downloads()] == [True]
    assert " would be removed" in run_cli("zoo", "cache", "prune", "--all", "--dry-run")[1]
    assert len(downloads()) == 1
    run_cli("zoo", "cache", "prune", "--all")
    assert [path for path in (cache_folder() / "blobs").rglob("*") if path.is_file()] == []
    for wrong in (("--older-than", "soon"), ("--all", "--keep", "tiny")):
        assert run_cli("zoo", "cache", "prune", *wrong)[0] == 2

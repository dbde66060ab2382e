"""What an attacker or an accident can do to a zoo, by the command line: one message, exit code 2, nothing written.

Each line of the table damages what a server offers, and names a part of the message. Other tests look at each of them
more closely: test_zoo_distrust.py, test_zoo_pull.py, test_zoo_network.py, test_trust.py, test_cards.py and
importing/test_import_hostile.py.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import shard, toy_folder, toy_tensors, use_toys
from foreign import write_index as write_shard_index
from safetensors.torch import load_file, save_file
from tiny import run_cli
from zoo_runs import METRICS, make_run
from zoo_server import (
    WEIGHTS,
    Server,
    change_index,
    environment,
    file_of,
    nothing_was_written,
    published,
    release,
    server,
)

from miniwin.files.folders import cache_folder
from miniwin.files.hashing import sha256_file
from miniwin.zoo import add, signatures, write_index
from miniwin.zoo.entry import CARD, FileRecord, read_manifest, write_manifest
from miniwin.zoo.publishing.publish import publish
from miniwin.zoo.signatures import Signer, make_keys

__all__ = ["environment", "published", "server"]  # fixtures

ESCAPE = "\x1b]0;owned\x07\u202e"


def resealed(server: Server, name: str, change: Callable[[Path], object]) -> None:
    """A publisher whose hashes are right offers another file in tiny@1.1.0."""
    folder = server.folder / "tiny" / "1.1.0"
    change(folder / name)
    manifest = read_manifest(folder)
    record = FileRecord(size=(folder / name).stat().st_size, sha256=sha256_file(folder / name))
    manifest = manifest.model_copy(update={"files": {**manifest.files, name: record}})
    (folder / "entry.json").write_text(write_manifest(manifest), encoding="utf-8")
    write_index(server.folder)


def tensors(change: Callable[[dict[str, Any]], object]) -> Callable[[Server], None]:
    def write(path: Path) -> None:
        there = {name: tensor.clone() for name, tensor in load_file(path).items()}  # not mapped from the file
        change(there)
        save_file(there, path)

    return lambda server: resealed(server, WEIGHTS, write)


def weights(content: bytes) -> Callable[[Server], None]:
    return lambda server: resealed(server, WEIGHTS, lambda path: path.write_bytes(content))


def card(text: str) -> Callable[[Server], None]:
    return lambda server: resealed(server, CARD, lambda path: path.write_text(text, encoding="utf-8"))


def of_file(name: str, **values: Any) -> Callable[[Server], None]:
    return lambda server: change_index(server, lambda data: file_of(data, name).update(values))


def of_release(**values: Any) -> Callable[[Server], None]:
    return lambda server: change_index(server, lambda data: release(data).update(values))


def changed_byte(server: Server) -> None:
    path = server.folder / "tiny" / "1.1.0" / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def endless(server: Server) -> None:
    def bytes_without_end() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        for _ in range(1000):
            yield bytes(1 << 16)

    server.faults[WEIGHTS] = lambda request: bytes_without_end()


def linked(server: Server) -> None:
    """As a folder on this machine, or one that was unpacked."""
    path = server.folder / "tiny" / "1.1.0" / CARD
    path.rename(server.folder.parent / "outside.md")
    path.symlink_to(server.folder.parent / "outside.md")


def as_pickle(path: Path) -> None:
    torch.save({"tensor": torch.ones(1)}, path)


BOMB = struct.pack("<Q", 1 << 60) + b"{}"
DEEP = b'{"a":' * 5000 + b"1" + b"}" * 5000

PULLS: dict[str, tuple[Callable[[Server], None], str]] = {
    "a changed weight byte": (changed_byte, "has sha256"),
    "a changed index": (of_release(digest="0" * 64), "is listed with digest 000000000000"),
    "a path out of the entry": (of_file(WEIGHTS, path="../evil"), "path: Input should be"),
    "an absolute path": (of_file(WEIGHTS, path="/tmp/evil"), "path: Input should be"),
    "a source out of the zoo": (of_file(WEIGHTS, sources=["../../secret"]), "must be a plain relative path"),
    "a source of the machine": (of_file(WEIGHTS, sources=["file:///etc/passwd"]), "may not name files of this machine"),
    "an oversize file": (of_file(CARD, size=10**12), "README.md would be 1.0 TB"),
    "an endless file": (endless, "sends more than the expected"),
    "a header bomb": (weights(BOMB), "its header would be 1,152,921,504,606,846,976 bytes long"),
    "a deep header": (weights(struct.pack("<Q", len(DEEP)) + DEEP), "is not a safetensors file"),
    "a tensor missing": (tensors(lambda there: there.pop(min(there))), "is missing"),
    "a tensor too many": (tensors(lambda there: there.update(more=torch.ones(1))), "more is not part of"),
    "a wrong shape": (tensors(lambda there: there.update({min(there): torch.ones(3, 5)})), "has shape [3, 5]"),
    "NaN": (tensors(lambda there: there[min(there)].fill_(float("nan"))), "holds NaN or infinity"),
    "a pickle": (lambda server: resealed(server, WEIGHTS, as_pickle), "is not a safetensors file"),
    "a tag of YAML": (card("---\nlicense: !!python/name:os.system\n---\n"), "tag"),
    "markup in a card": (card("<script>alert(1)</script>\n"), "holds markup (<script)"),
    "markup in a name": (of_release(name="<b>tiny"), "name: String should match pattern"),
    "an escape in a card": (card(f"a{ESCAPE}\n"), "characters that a terminal would obey"),
    "an escape in a name": (of_release(name=f"tiny{ESCAPE}"), "name: String should match pattern"),
    "an escape in a key": (of_release(**{ESCAPE: 1}), "Extra inputs are not permitted"),
}


def is_refused(said: str, *arguments: str) -> None:
    code, out, err = run_cli(*arguments)
    assert (code, out) == (2, "") and said in err, err
    assert err.count("error: ") == 1 and "Traceback" not in err and len(err) < 2000
    assert not set(ESCAPE) & set(err) - set("]0;owned")


def left_in_the_cache() -> list[Path]:
    """Files of a final name: without a suffix."""
    return [path for path in (cache_folder() / "blobs").glob("*/*") if path.is_file() and not path.suffix]


@pytest.mark.parametrize("what", list(PULLS))
def test_no_pull(server: Server, what: str) -> None:
    damage, said = PULLS[what]
    damage(server)
    is_refused(said, "zoo", "pull", "tiny@1.1.0" if "name" not in what else "tiny")
    assert nothing_was_written()
    assert all(sha256_file(path) == path.name for path in left_in_the_cache())


def test_no_pull_of_a_link(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    linked(server)
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", str(server.folder))
    is_refused("is a link that leads out of", "zoo", "pull", "tiny@1.1.0")
    assert nothing_was_written()


def test_no_downgrade(server: Server) -> None:
    """An index without the newest release, and one with other bytes for it."""
    assert run_cli("zoo", "list", "--remote")[0] == 0
    index = (server.folder / "index.json").read_bytes()
    change_index(server, lambda data: data["releases"].pop())
    is_refused("tiny@1.1.0 is not listed any more", "zoo", "pull", "tiny")
    (server.folder / "index.json").write_bytes(index)
    change_index(server, lambda data: release(data).update(digest="0" * 64))
    is_refused("a version never changes once published", "zoo", "pull", "tiny")
    assert nothing_was_written()


def test_no_other_bytes_under_a_published_version(server: Server, tmp_path: Path) -> None:
    site = tmp_path / "site"
    publish(server.folder / "tiny" / "1.0.0", str(site), logits=False)
    before = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}
    other = add(make_run(tmp_path / "run", seed=7), name="tiny", metrics=METRICS, zoo=tmp_path / "other")
    is_refused("a version never changes once published", "zoo", "publish", str(other.folder), "--to", str(site))
    assert {path: path.read_bytes() for path in site.rglob("*") if path.is_file()} == before


def test_no_wrong_signature(server: Server, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINIWIN_ZOO_INDEX")
    mine, other = tmp_path / "mine.key", tmp_path / "other.key"
    make_keys(mine, None)
    make_keys(other, None)
    shutil.rmtree(server.folder)
    publish(published / "tiny" / "1.0.0", str(server.folder), logits=False, signer=Signer(mine))
    key = str(mine.with_suffix(".pub"))
    assert run_cli("zoo", "source", "add", "acme", server.url, "--key", key)[0] == 0
    index = (server.folder / "index.json").read_bytes()
    place = server.folder / signatures.places(index)[0]
    place.write_bytes(Signer(other).sign(index, "x"))
    is_refused("the signature is not one of these bytes", "zoo", "pull", "acme/tiny")
    place.unlink()
    is_refused("has no signature", "zoo", "pull", "acme/tiny")
    assert nothing_was_written()


def test_no_shards_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_toys(monkeypatch)
    source = toy_folder(tmp_path / "toy")
    there = shard(source)
    save_file(toy_tensors(), tmp_path / "secret.safetensors")
    for where in ("../secret.safetensors", str(tmp_path / "secret.safetensors"), "C:\\secret.safetensors"):
        write_shard_index(source, {**there, "model.ln.weight": where})
        is_refused("expected the name of a .safetensors file", "import", str(source), "--to", str(tmp_path / "to"))
    assert not (tmp_path / "to").exists()

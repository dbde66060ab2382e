"""Mirrors: complete, resumed, checked, and enough to pull without a network."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tiny import run_cli
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

from miniwin.zoo import ZooError, user_zoo, verify
from miniwin.zoo.mirroring import mirror
from miniwin.zoo.publishing.publish import publish
from miniwin.zoo.pull import pull
from miniwin.zoo.signatures import Signer, make_keys

__all__ = ["environment", "published", "server"]  # fixtures


@pytest.fixture
def signed(published: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Serves a signed zoo, which was added as acme."""
    monkeypatch.delenv("MINIWIN_ZOO_INDEX")
    make_keys(tmp_path / "mine.key", None)
    shutil.rmtree(server.folder)
    for version in ("1.0.0", "1.1.0"):
        entry = published / "tiny" / version
        publish(entry, str(server.folder), logits=False, signer=Signer(tmp_path / "mine.key"))
    assert run_cli("zoo", "source", "add", "acme", server.url, "--key", str(tmp_path / "mine.pub"))[0] == 0
    return server


def test_a_mirror_of_a_signed_zoo_is_enough(signed: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run_cli("zoo", "mirror", str(tmp_path / "mirror"))
    assert code == 0 and out.startswith(f"acme: 2 releases in {tmp_path / 'mirror' / 'acme'} (16 files fetched")
    assert (tmp_path / "mirror/acme/index.json").read_bytes() == (signed.folder / "index.json").read_bytes()
    signed.close()
    monkeypatch.setenv("MINIWIN_OFFLINE", "1")
    monkeypatch.setenv("MINIWIN_ZOO_MIRROR", str(tmp_path / "mirror"))
    with pytest.warns(UserWarning, match=r"tiny@1\.1\.0 comes from the zoo acme .*signed by key"):
        assert verify(pull("tiny"), logits=False) == []
    monkeypatch.delenv("MINIWIN_ZOO_MIRROR")
    run_cli("zoo", "source", "remove", "acme")
    place = str(tmp_path / "mirror" / "acme")
    assert run_cli("zoo", "source", "add", "disk", place, "--key", str(tmp_path / "mine.pub"))[0] == 0
    with pytest.warns(UserWarning, match="comes from the zoo disk"):
        assert verify(pull("disk/tiny@1.0"), logits=False) == []


def test_a_mirror_goes_on_and_mends_itself(server: Server, tmp_path: Path) -> None:
    """Of a zoo without numbers: its files lie where its index says."""
    server.faults[WEIGHTS] = lambda request: ("cut", 10_000) if request == 1 else ("cut", 0)
    with pytest.raises(ZooError, match="10000 of"):
        mirror(tmp_path / "mirror", [])
    assert not (tmp_path / "mirror/index/index.json").exists()
    server.faults.clear()
    server.asked.clear()
    assert mirror(tmp_path / "mirror", [])[0].releases == 2
    assert "bytes=10000-" in server.ranges(WEIGHTS)
    assert mirror(tmp_path / "mirror", [])[0].files == 0
    there = tmp_path / "mirror/index/tiny/1.1.0/README.md"
    there.write_bytes(there.read_bytes()[:-1] + b"?")
    assert mirror(tmp_path / "mirror", [])[0].files == 1


def test_some_entries_of_elsewhere(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files whose sources are elsewhere are found beside the index of the mirror."""
    where = f"{server.url}/tiny/1.1.0/{WEIGHTS}"
    change_index(server, lambda data: file_of(data, WEIGHTS).update(sources=[where]))
    (done,) = mirror(tmp_path / "mirror", ["tiny"])
    assert (done.releases, done.files) == (1, 8)
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", str(tmp_path / "mirror" / "index"))
    monkeypatch.setenv("MINIWIN_OFFLINE", "1")
    assert verify(pull("tiny"), logits=False) == []
    with pytest.raises(ZooError, match=r"tiny@1\.0\.0 was not pulled: no source gave"):
        pull("tiny@1.0.0")
    other = Server(tmp_path / "mirror")
    try:  # and over HTTP, where nobody can see what is there
        shutil.rmtree(user_zoo())
        monkeypatch.delenv("MINIWIN_OFFLINE")
        monkeypatch.setenv("MINIWIN_ZOO_INDEX", f"{server.url}/index.json")
        monkeypatch.setenv("MINIWIN_ZOO_MIRROR", other.url)
        server.asked.clear()
        assert verify(pull("tiny"), logits=False) == []
        assert [name for name, _ in server.asked] == ["index.json"]
    finally:
        other.close()


def test_what_cannot_be_mirrored(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZooError, match="other cannot be mirrored: none of index offers it"):
        mirror(tmp_path / "mirror", ["other"])
    change_index(
        server, lambda data: file_of(data, WEIGHTS).update(size=10**15) or release(data).update(parameters=10**15)
    )
    with pytest.raises(ZooError, match=r"the mirror needs 1,?000(\.0)? TB"):
        mirror(tmp_path / "mirror", ["tiny@1.1.0"])
    monkeypatch.delenv("MINIWIN_ZOO_INDEX")
    with pytest.raises(ZooError, match="there is no zoo to mirror"):
        mirror(tmp_path / "mirror", [])
    assert not (tmp_path / "mirror").exists()


def test_links_do_not_lead_out_of_a_mirror(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a file nor a folder, and not one with the right content."""
    folder, aside = server.folder / "tiny" / "1.1.0", tmp_path / "aside"
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", str(server.folder))
    shutil.move(folder, aside)
    folder.symlink_to(aside)
    with pytest.raises(ZooError, match=r"is a link that leads out of"):
        pull("tiny")
    folder.unlink()
    shutil.copytree(aside, folder)
    (folder / "README.md").unlink()
    os.link(aside / "README.md", folder / "linked")
    (folder / "README.md").symlink_to("/etc/passwd")
    with pytest.raises(ZooError, match=r"README\.md: is a link that leads out of"):
        pull("tiny")
    assert nothing_was_written()
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("linked")  # within the folder it does no harm
    assert verify(pull("tiny"), logits=False) == []

"""Further zoos, signatures and rollback: what is refused, in one message, with nothing written."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny import run_cli
from zoo_runs import METRICS, make_run
from zoo_server import Server, change_index, environment, nothing_was_written, published, release, server

import miniwin
from miniwin.files.hashing import sha256_file
from miniwin.zoo import ZooError, add, list_entries, resolve, signatures, verify
from miniwin.zoo.configured import sources
from miniwin.zoo.index_query import offers
from miniwin.zoo.publishing.publish import publish
from miniwin.zoo.pull import pull
from miniwin.zoo.signatures import Signer, check_signature, make_keys

__all__ = ["environment", "published", "server"]  # fixtures


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("keys")
    paths = [folder / "mine.key", folder / "other.key"]
    for path in paths:
        make_keys(path, None)
    return paths


@pytest.fixture(autouse=True)
def no_index(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINIWIN_ZOO_INDEX")


@pytest.fixture
def signed(published: Path, server: Server, keys: list[Path]) -> Server:
    """Serves a published and signed zoo with tiny@1.0.0 and tiny@1.1.0."""
    shutil.rmtree(server.folder)
    for version in ("1.0.0", "1.1.0"):
        publish(published / "tiny" / version, str(server.folder), logits=False, signer=Signer(keys[0]))
    return server


def source(*arguments: str) -> tuple[int, str]:
    code, out, err = run_cli("zoo", "source", *arguments)
    return code, out + err


def public(key: Path) -> str:
    return str(key.with_suffix(".pub"))


# ------------------------------------------------------------------------------------------------- added zoos


def test_a_zoo_is_added_listed_shown_and_removed(server: Server) -> None:
    code, said = source("add", "acme", server.url)
    assert code == 0 and "2 releases" in said and "whoever can write to" in said
    assert source("list")[1].startswith(f"acme  {server.url}  not signed  added 20")
    with pytest.warns(
        UserWarning, match=rf"tiny@1\.1\.0 comes from the zoo acme \({server.url}/index\.json; not signed"
    ):
        assert pull("tiny").version == "1.1.0"
    with pytest.warns(UserWarning, match="comes from the zoo acme"):
        assert miniwin.load("acme/tiny@1.0").ref == "tiny@1.0.0"
    server.close()
    assert miniwin.load("acme/tiny@1.0").ref == "tiny@1.0.0"  # what was pulled from it is here
    assert source("remove", "acme") == (0, f"removed the zoo acme ({server.url}); what was pulled from it stays\n")
    assert source("list")[1].startswith("no zoo was added") and miniwin.load("tiny").ref == "tiny@1.1.0"


def test_what_cannot_be_added(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source("add", "acme", str(server.folder))[0] == 0
    for arguments, message in (
        (("acme", server.url), "exists already"),
        (("package", server.url), "the name is taken by MiniWin itself"),
        (("<b>", server.url), "is not valid"),
        (("\x1b[31m", server.url), "is not valid"),
        (("other", "http://example.org/zoo"), "http is not safe"),
        (("other", str(tmp_path / "none")), "cannot be read"),
        (("other", f"{server.url}/tiny/1.0.0/README.md"), "is not JSON"),
        (("other", server.url, "--key", "RWnonsense"), "is no minisign public key"),
    ):
        code, said = source("add", *arguments)
        assert code == 2 and message in said and "\x1b" not in said
        assert [one.name for one in sources()] == ["acme"]
    monkeypatch.setenv("MINIWIN_OFFLINE", "1")
    assert "MINIWIN_OFFLINE is set" in source("add", "other", server.url)[1]
    assert source("remove", "acmee") == (2, "error: there is no zoo source 'acmee'; did you mean acme?\n")
    (tmp_path / "config" / "sources.json").write_text('{"format": 1, "sources": [{"name": "../x"}]}', encoding="utf-8")
    code, said = source("list")
    assert code == 2 and "sources.json: sources.0.name: String should match pattern" in said
    assert list_entries()  # what is here is used all the same


def test_names_resolve_in_order_and_never_by_chance(server: Server, published: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    publish(
        add(make_run(tmp_path / "run", seed=9), name="tiny", metrics=METRICS, zoo=tmp_path / "z").folder, str(other)
    )
    source("add", "acme", server.url)
    source("add", "globex", str(other))
    with pytest.raises(ZooError, match=r"several zoos.*acme/tiny@latest \(tiny@1\.1\.0\) or globex/tiny@latest"):
        pull("tiny")
    with pytest.raises(ZooError, match=r"say which: acme/tiny@1\.0\.0"):
        resolve("tiny@1.0.0")
    with pytest.warns(UserWarning, match="comes from the zoo globex"):
        theirs = pull("globex/tiny")
    assert verify(theirs, logits=False) == []
    with (
        pytest.warns(UserWarning, match="comes from the zoo acme"),
        pytest.raises(ZooError, match=r"is not what .* calls tiny@1\.0\.0"),
    ):
        pull("acme/tiny@1.0.0")  # one folder holds one tiny@1.0.0
    with pytest.raises(ZooError, match=r"nothing that was pulled from the zoo acme is acme/tiny@7"):
        resolve("acme/tiny@7")
    with pytest.raises(ZooError, match="there is no zoo source 'acm'; did you mean acme"):
        resolve("acm/tiny")


def test_the_same_entry_in_two_zoos_is_not_ambiguous(server: Server, published: Path, tmp_path: Path) -> None:
    source("add", "acme", server.url)
    source("add", "copy", str(published))
    with pytest.warns(UserWarning, match="comes from the zoo acme"):
        assert pull("tiny").version == "1.1.0"


def test_no_added_zoo_takes_a_known_name(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one of the package: its 1.0.0 stays, whatever another zoo calls miniwin-1m@9.0.0."""
    evil = add(make_run(tmp_path / "run"), name="miniwin-1m", version="9.0.0", metrics=METRICS, zoo=tmp_path / "z")
    publish(evil.folder, str(tmp_path / "evil"), logits=False)
    source("add", "evil", str(tmp_path / "evil"))
    assert resolve("miniwin-1m").source == "built-in" and pull("miniwin-1m").version == "1.0.0"
    tiny = add(make_run(tmp_path / "run2"), name="tiny", version="9.0.0", metrics=METRICS, zoo=tmp_path / "z")
    publish(tiny.folder, str(tmp_path / "evil"), logits=False)
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", server.url)
    assert pull("tiny").version == "1.1.0"


# -------------------------------------------------------------------------------------------------- signatures


def test_a_signed_zoo_is_used(signed: Server, keys: list[Path]) -> None:
    code, said = source("add", "acme", signed.url, "--key", public(keys[0]))
    assert code == 0 and "has to be signed by key" in said
    with pytest.warns(UserWarning, match=r"tiny@1\.1\.0 comes from the zoo acme \(.*; signed by key [0-9A-F]{16}\)"):
        assert verify(pull("tiny")) == []


def is_refused(server: Server, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        pull("acme/tiny")
    with pytest.raises(ZooError, match=message):
        offers()
    assert nothing_was_written()


def test_a_changed_index_is_refused(signed: Server, keys: list[Path]) -> None:
    source("add", "acme", signed.url, "--key", public(keys[0]))
    change_index(signed, lambda data: release(data).update(status="yanked", reason="so that an old one is taken"))
    is_refused(signed, "has no signature, and its source was added with key")
    index = (signed.folder / "index.json").read_bytes()
    names = sorted((signed.folder / "signatures").iterdir())
    place = signed.folder / signatures.places(index)[0]
    for content, message in (
        (names[0].read_bytes(), "the signature is not one of these bytes"),  # of an older index
        (Signer(keys[1]).sign(index, "x"), "the signature is not one of these bytes"),  # by another key
        (b"", "the signature is not one of these bytes"),
        (b"untrusted comment: x\nRWQ=\ntrusted comment: y\nAA==\n", "the signature is not one of these bytes"),
    ):
        place.write_bytes(content)
        is_refused(signed, message)
    change_index(signed, lambda data: data.update(serial=3))
    index = (signed.folder / "index.json").read_bytes()
    (signed.folder / signatures.places(index)[0]).write_bytes(Signer(keys[0]).sign(index, "x"))
    assert [offer.release.status for offer in offers() if offer.zoo == "acme"] == ["active", "yanked"]


def test_a_wrong_or_missing_signature_is_not_added(server: Server, signed: Server, keys: list[Path]) -> None:
    assert "the signature is not one of these bytes" in source("add", "acme", signed.url, "--key", public(keys[1]))[1]
    shutil.rmtree(signed.folder / "signatures")
    assert "has no signature" in source("add", "acme", signed.url, "--key", public(keys[0]))[1]
    (signed.folder / "index.json.minisig").write_bytes(
        Signer(keys[0]).sign((signed.folder / "index.json").read_bytes(), "by minisign -Sm index.json")
    )
    assert source("add", "acme", signed.url, "--key", public(keys[0]))[0] == 0


def test_an_index_of_another_zoo_is_refused_though_it_is_signed(
    signed: Server, keys: list[Path], published: Path, tmp_path: Path
) -> None:
    source("add", "acme", signed.url, "--key", public(keys[0]))
    other = tmp_path / "other"
    for version in ("1.0.0", "1.1.0"):
        publish(published / "tiny" / version, str(other), logits=False, signer=Signer(keys[0]))
    shutil.rmtree(signed.folder)
    shutil.copytree(other, signed.folder)
    is_refused(signed, "this is the index of another zoo than before")
    assert source("accept", "acme")[0] == 0 and len([o for o in offers() if o.zoo == "acme"]) == 2


def test_a_signed_zoo_stays_signed(signed: Server, keys: list[Path], published: Path, tmp_path: Path) -> None:
    place, entry = str(signed.folder), str(published / "tiny" / "1.0.0")
    index = (signed.folder / "index.json").read_bytes()
    at = ("tiny@1.0.0", "--at", place, "--reason", "x")
    for arguments, message in (
        (("publish", entry, "--to", place, "--no-logits"), "its index is signed, and would not be any more"),
        (("yank", *at), "its index is signed, and would not be any more; give --sign KEYFILE"),
        (("yank", *at, "--sign", str(keys[1])), "was signed by another key than"),
        (("yank", *at, "--sign", public(keys[1])), "the secret key cannot be used"),
        (("index", place), "its index is signed, and another one would have no signature"),
    ):
        code, _, err = run_cli("zoo", *arguments)
        assert code == 2 and message in err and (signed.folder / "index.json").read_bytes() == index
    assert run_cli("zoo", "yank", *at, "--sign", str(keys[1]), "--new-key")[0] == 0
    source("add", "acme", signed.url, "--key", public(keys[1]))
    unsigned = tmp_path / "unsigned"
    publish(entry, str(unsigned), logits=False)
    code, _, err = run_cli("zoo", "yank", "tiny@1.0.0", "--at", str(unsigned), "--reason", "x", "--sign", str(keys[0]))
    assert code == 2 and "is not signed so far; give --new-key" in err


def test_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = run_cli("zoo", "keygen", str(tmp_path / "a.key"), "--no-password")
    assert code == 0 and "has no password" in err and (tmp_path / "a.key").stat().st_mode & 0o777 == 0o600
    assert "exists already" in run_cli("zoo", "keygen", str(tmp_path / "a.key"), "--no-password")[2]
    monkeypatch.setenv("MINIWIN_SIGNING_PASSWORD", "correct horse")
    assert run_cli("zoo", "keygen", str(tmp_path / "b.key"))[2] == ""
    signer = Signer(tmp_path / "b.key")
    check_signature(b"text", signer.sign(b"text", "x"), signer.public, "here")
    with pytest.raises(ZooError, match=r"b\.key: the secret key cannot be used: wrong password"):
        Signer(tmp_path / "b.key", "battery staple")
    monkeypatch.delenv("MINIWIN_SIGNING_PASSWORD")
    with pytest.raises(ZooError, match="the key has a password; set MINIWIN_SIGNING_PASSWORD"):
        Signer(tmp_path / "b.key")


def test_signatures_are_those_of_minisign() -> None:
    """The examples of minisign's author: a prehashed signature of b"test", and one of the old kind."""
    key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
    head = b"untrusted comment: signature from minisign secret key\n"
    hashed = (
        b"RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n"
        b"trusted comment: timestamp:1556193335\tfile:test\n"
        b"y/rUw2y8/hOUYjZU71eHp/Wo1KZ40fGy2VJEDl34XMJM+TX48Ss/17u3IvIfbVR1FkZZSNCisQbuQY+bHwhEBg==\n"
    )
    check_signature(b"test", head + hashed, key, "here")
    assert signatures.key_id(key) == "E7620F1842B4E81F"
    with pytest.raises(ZooError, match="is not one of these bytes"):
        check_signature(b"Test", head + hashed, key, "here")
    with pytest.raises(ZooError, match="is not one of these bytes"):
        check_signature(b"test", head + hashed.replace(b"1556193335", b"1556193336"), key, "here")
    old = (
        b"RWQf6LRCGA9i59SLOFxz6NxvASXDJeRtuZykwQepbDEGt87ig1BNpWaVWuNrm73YiIiJbq71Wi+dP9eKL8OC351vwIasSSbXxwA=\n"
        b"trusted comment: timestamp:1555779966\tfile:test\n"
        b"QtKMXWyYcwdpZAlPF7tE2ENJkRd1ujvKjlj1m9RtHTBnZPa5WKU5uWRs5GoP5M/VqE81QFuMKI5k/SfNQUaOAA==\n"
    )
    with pytest.raises(ZooError, match="of the old kind"):
        check_signature(b"test", head + old, key, "here")


# ---------------------------------------------------------------------------------------------------- rollback


def served(server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", server.url)
    return server.folder / "index.json"


def test_an_older_index_is_refused(signed: Server, keys: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """From before a yank: rightly signed, and an attacker would like it to be taken."""
    source("add", "acme", signed.url, "--key", public(keys[0]))
    old = (signed.folder / "index.json").read_bytes()
    at = ("--at", str(signed.folder), "--reason", "bad data", "--sign", str(keys[0]))
    assert run_cli("zoo", "yank", "tiny@1.1.0", *at)[0] == 0
    with pytest.warns(UserWarning, match="comes from the zoo acme"):
        assert pull("tiny").version == "1.0.0"
    (signed.folder / "index.json").write_bytes(old)
    with pytest.raises(ZooError, match=r"the index is older than one that was read before: its number is 2, and was 3"):
        pull("tiny@1.1")
    assert resolve("tiny").version == "1.0.0"
    assert source("accept", "acme")[0] == 0
    with pytest.warns(UserWarning, match="comes from the zoo acme"):
        assert pull("tiny").version == "1.1.0"
    assert "nothing was remembered" in source("accept", str(signed.folder))[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["releases"].pop(), r"tiny@1\.1\.0 is not listed any more, without having been yanked"),
        (lambda data: release(data).update(digest="0" * 64), r"tiny@1\.1\.0 has digest 0{12}\.\.\., and had .* never"),
    ],
)
def test_a_release_neither_vanishes_nor_changes(
    server: Server, monkeypatch: pytest.MonkeyPatch, change: Any, message: str
) -> None:
    """Also in an index without a number: `latest` would go back, or mean other bytes."""
    served(server, monkeypatch)
    assert pull("tiny@1.0").version == "1.0.0"
    change_index(server, change)
    with pytest.raises(ZooError, match=message) as caught:
        pull("tiny")
    assert f"miniwin zoo source accept {server.url}" in str(caught.value)
    assert [entry.ref for entry in list_entries() if entry.source == "user"] == ["tiny@1.0.0"]


def test_two_indexes_with_one_number_are_refused(signed: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    served(signed, monkeypatch)
    offers()
    change_index(signed, lambda data: release(data).update(description="another"))
    with pytest.raises(ZooError, match="another index with the same number 2"):
        offers()


def test_damaged_memory_is_no_memory(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    served(server, monkeypatch)
    offers()
    (path,) = (tmp_path / "config" / "seen").glob("*.json")
    for text in ("[" * 100_000, "[]", '{"releases": 5, "serial": "x"}', ""):
        path.write_text(text, encoding="utf-8")
        assert len(offers()) >= 2
    about = json.loads(path.read_text(encoding="utf-8"))
    assert about["sha256"] == hashlib.sha256((server.folder / "index.json").read_bytes()).hexdigest()
    assert about["sha256"] == sha256_file(server.folder / "index.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": 3, "releases": [], "releases": []}', "the key 'releases' is given twice in one object"),
        ('{"schema": 3, "schema": 4, "releases": []}', "the key 'schema' is given twice"),
        (
            '{"schema": 4, "zoo": "' + "0" * 32 + '", "serial": 1' + "0" * 5000 + ', "releases": []}',
            "number is too long",
        ),
        ('{"schema": 4, "zoo": "' + "0" * 32 + '", "serial": 1e400, "releases": []}', "serial"),
        ('{"schema": 4, "zoo": "' + "0" * 32 + '", "serial": true, "releases": []}', "serial"),
        ('{"schema": 4, "zoo": "' + "0" * 32 + '", "serial": 9223372036854775808, "releases": []}', "serial"),
        ('{"schema": 4, "zoo": "../../x", "serial": 1, "releases": []}', "zoo"),
        ('{"schema": NaN, "releases": []}', "schema"),
        ('{"schema": 3, "releases": [{"parameters": NaN}]}', "releases"),
        ("[" * 1000, "nested too deeply"),
        ("{" * 5, "is not JSON"),
        ("", "is not JSON"),
    ],
)
def test_hostile_indexes(server: Server, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    served(server, monkeypatch).write_text(text, encoding="utf-8")
    with pytest.raises(ZooError, match=message) as caught:
        pull("tiny")
    assert len(str(caught.value)) < 1000 and nothing_was_written()


def test_the_chain_to_an_entry(server: Server) -> None:
    source("add", "acme", server.url)
    pull_code, _, err = run_cli("zoo", "pull", "acme/tiny")
    code, out, _ = run_cli("zoo", "show", "tiny", "--provenance")
    links = dict(line.split(":", 1) for line in out.splitlines())
    assert (pull_code, code) == (0, 0), err
    assert list(links) == ["search", "trial", "began with", "training run", "data", "architecture", "entry", "zoos"]
    assert "none: trained by hand" in links["search"] and "random weights" in links["began with"]
    assert "seed 1" in links["training run"] and "fingerprint " + "f" * 64 in links["data"]
    assert resolve("tiny").digest in links["entry"] and links["zoos"].strip() == "acme"
    code, out, _ = run_cli("zoo", "show", "miniwin-1m", "--provenance")
    assert code == 0 and "study period-window-ratio" in out and "number 15: ratio = 4, window = 16, factor = 2" in out

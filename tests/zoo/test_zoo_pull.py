"""Pulling from a zoo that a web server on this machine serves: resumed, checked, refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from forked import kill, start
from typer.testing import CliRunner, Result
from zoo_processes import pull as pull_there
from zoo_processes import wait_for
from zoo_runs import make_run
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

import miniwin
from miniwin.cli import app as miniwin_app
from miniwin.commands.zoo import app
from miniwin.files.folders import NoHome, cache_folder
from miniwin.files.hashing import sha256_file
from miniwin.specs import UserError
from miniwin.zoo import ZooError, add, list_entries, resolve, user_zoo, verify, write_index
from miniwin.zoo import index as index_module
from miniwin.zoo.entry import ENTRY_FILES, FileRecord, read_manifest, write_manifest
from miniwin.zoo.index_query import offers
from miniwin.zoo.locations import source_location
from miniwin.zoo.pull import pull

__all__ = ["environment", "published", "server"]  # fixtures


def parts() -> list[Path]:
    return list(cache_folder().rglob("*.part"))


# ------------------------------------------------------------------------------------------------- all is well


def test_resolve_pulls_what_is_not_here(server: Server, published: Path, capfd: Any) -> None:
    entry = resolve("tiny")
    assert (entry.ref, entry.source, entry.folder) == ("tiny@1.1.0", "user", user_zoo() / "tiny" / "1.1.0")
    assert verify(entry) == []
    for name in ENTRY_FILES:
        assert (entry.folder / name).read_bytes() == (published / "tiny" / "1.1.0" / name).read_bytes()
    assert sorted(file for file, _ in server.asked) == sorted([*ENTRY_FILES, "index.json"])
    assert list((user_zoo() / ".staging").iterdir()) == []
    blobs = [path for path in (cache_folder() / "blobs").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert blobs == []  # the entry holds the bytes now
    assert capfd.readouterr() == ("", "")  # a bar on a terminal, nothing elsewhere


def test_what_is_here_is_not_asked_for(server: Server) -> None:
    resolve("tiny@1.0.0")
    server.asked.clear()
    assert resolve("tiny").version == "1.0.0"  # an alias means what is here, until something newer is pulled
    assert miniwin.load("tiny@1").ref == "tiny@1.0.0"
    assert server.asked == []
    assert pull("tiny").version == "1.1.0"
    assert resolve("tiny").version == "1.1.0"


def test_load_pulls(server: Server) -> None:
    assert miniwin.load("tiny@1.0").ref == "tiny@1.0.0"


def test_pulling_twice_changes_nothing(server: Server) -> None:
    first = pull("tiny")
    written = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    server.asked.clear()
    assert pull("tiny@1.1.0") == first
    assert [file for file, _ in server.asked] == ["index.json"]
    assert {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()} == written


def test_an_index_may_be_a_file_and_name_sources_of_every_kind(
    published: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    index = json.loads((published / "index.json").read_text(encoding="utf-8"))
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for file in release(index)["files"]:
        source = published / file["sources"][0]
        file["sources"] = [source.as_uri()]
        if file["path"] == "README.md":
            shutil.copy(source, folder / "card.md")
            file["sources"] = ["missing.md", "card.md"]
    (folder / "my-index.json").write_text(json.dumps(index), encoding="utf-8")
    for location in (str(folder / "my-index.json"), (folder / "my-index.json").as_uri()):
        monkeypatch.setenv("MINIWIN_ZOO_INDEX", location)
        monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / f"zoo{len(location)}"))
        monkeypatch.setenv("MINIWIN_OFFLINE", "1")  # no network is needed
        assert verify(resolve("tiny"), logits=False) == []


def test_the_mirror_is_asked_first_and_trusted_with_nothing(server: Server, tmp_path: Path, monkeypatch: Any) -> None:
    mirror = tmp_path / "mirror"
    shutil.copytree(server.folder / "tiny", mirror / "tiny")
    (mirror / "tiny" / "1.1.0" / "README.md").write_text("# Another card\n", encoding="utf-8")
    monkeypatch.setenv("MINIWIN_ZOO_MIRROR", str(mirror))
    entry = pull("tiny")
    assert sorted(file for file, _ in server.asked) == ["README.md", "index.json"]  # what the mirror has wrong
    assert verify(entry, logits=False) == []

    other = Server(mirror)
    try:
        monkeypatch.setenv("MINIWIN_ZOO_MIRROR", f"{other.url}/")
        server.asked.clear()
        pull("tiny@1.0.0")
        assert [file for file, _ in server.asked] == ["index.json"]
        assert sorted(file for file, _ in other.asked) == sorted(ENTRY_FILES)
    finally:
        other.close()


def test_the_package_may_have_an_index_of_its_own(published: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """`package:` sources, and `write_index` of the package's zoo."""
    package = tmp_path / "package" / "entries"
    shutil.copytree(published, package)
    (package / "index.json").unlink()
    for module in ("index", "index_query", "store"):
        monkeypatch.setattr(f"miniwin.zoo.{module}.built_in_zoo", lambda: package)
    assert write_index(package) == package.parent / "index.json"
    monkeypatch.delenv("MINIWIN_ZOO_INDEX")
    assert {offer.release.ref for offer in offers()} == {"tiny@1.0.0", "tiny@1.1.0"}
    assert source_location("package:entries/tiny/1.0.0/model.yaml", package.parent / "index.json") == (
        package / "tiny" / "1.0.0" / "model.yaml"
    )
    shutil.move(package / "tiny" / "1.1.0", tmp_path / "gone")
    with pytest.raises(ZooError, match=r"tiny@1\.1\.0 was not pulled: no source gave "):
        resolve("tiny@1.1")
    assert resolve("tiny@1.0").source == "built-in"


# ------------------------------------------------------------------------------------- interrupted and resumed


def test_a_connection_that_breaks_is_continued(server: Server) -> None:
    server.faults[WEIGHTS] = lambda request: ("cut", 10_000)  # every answer stops after 10,000 bytes
    assert verify(pull("tiny"), logits=False) == []
    size = (server.folder / "tiny" / "1.1.0" / WEIGHTS).stat().st_size
    starts = [None, *(f"bytes={start}-" for start in range(10_000, size, 10_000))]
    assert server.ranges(WEIGHTS) == starts


def test_a_download_that_failed_is_continued_by_the_next_command(server: Server) -> None:
    server.faults[WEIGHTS] = lambda request: ("cut", 10_000) if request == 1 else ("cut", 0)
    with pytest.raises(ZooError, match=r"10000 of \d+ bytes arrived, .* run the same command again to continue"):
        pull("tiny")
    assert nothing_was_written()
    assert [part.stat().st_size for part in parts()] == [10_000]
    server.faults.clear()
    server.asked.clear()
    assert verify(pull("tiny"), logits=False) == []
    assert server.ranges(WEIGHTS) == ["bytes=10000-"]
    assert parts() == []


def test_kill_9_in_a_download_loses_nothing(server: Server, tmp_path: Path) -> None:
    there, go_on = tmp_path / "there", threading.Event()

    def stand_still(request: int) -> Any:
        if request == 1:
            return ("cut", 10_000)
        there.touch()
        go_on.wait(30)
        return 500

    server.faults[WEIGHTS] = stand_still
    process = start(pull_there, "tiny")
    wait_for(there, process)
    kill(process)
    go_on.set()
    assert not [entry for entry in list_entries() if entry.source == "user"]
    server.faults.clear()
    server.asked.clear()
    assert verify(resolve("tiny"), logits=False) == []
    assert server.ranges(WEIGHTS) == ["bytes=10000-"]
    assert list((user_zoo() / ".staging").iterdir()) == []


def begin(server: Server, content: bytes) -> Path:
    """A `.part` of the weights of tiny@1.1.0 with this content."""
    sha256 = sha256_file(server.folder / "tiny" / "1.1.0" / WEIGHTS)
    part = cache_folder() / "blobs" / sha256[:2] / f"{sha256}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content)
    return part


def test_a_server_without_ranges_sends_everything_again(server: Server) -> None:
    begin(server, (server.folder / "tiny" / "1.1.0" / WEIGHTS).read_bytes()[:5000])
    server.faults[WEIGHTS] = "no ranges"
    assert verify(pull("tiny"), logits=False) == []
    assert server.ranges(WEIGHTS) == ["bytes=5000-"]


@pytest.mark.parametrize("fault", ["wrong range", "wrong total"])
def test_an_answer_that_starts_elsewhere_is_not_appended(server: Server, fault: str) -> None:
    begin(server, (server.folder / "tiny" / "1.1.0" / WEIGHTS).read_bytes()[:5000])
    server.faults[WEIGHTS] = fault
    assert verify(pull("tiny"), logits=False) == []
    assert server.ranges(WEIGHTS) == ["bytes=5000-", None]


def test_a_wrong_beginning_is_fetched_again(server: Server) -> None:
    size = (server.folder / "tiny" / "1.1.0" / WEIGHTS).stat().st_size
    begin(server, b"?" * 5000)
    assert verify(pull("tiny"), logits=False) == []
    assert server.ranges(WEIGHTS) == ["bytes=5000-", None]
    shutil.rmtree(user_zoo())
    shutil.rmtree(cache_folder())
    server.asked.clear()
    begin(server, b"?" * (size + 1))  # longer than the file: of no use
    assert verify(pull("tiny"), logits=False) == []
    assert server.ranges(WEIGHTS) == [None]


def test_a_server_in_trouble_is_tried_again(server: Server) -> None:
    server.faults[WEIGHTS] = lambda request: 503 if request < 3 else None
    assert verify(pull("tiny"), logits=False) == []
    assert len(server.ranges(WEIGHTS)) == 3


def test_processes_that_pull_the_same_wait_for_each_other(server: Server) -> None:
    processes = [start(pull_there, "tiny") for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(server.ranges(WEIGHTS)) == 1 and verify("tiny", logits=False) == []


# ----------------------------------------------------------------------------------------------------- refused


def test_a_wrong_hash_is_refused(server: Server) -> None:
    path = server.folder / "tiny" / "1.1.0" / WEIGHTS
    content = bytearray(path.read_bytes())
    expected = hashlib.sha256(content).hexdigest()
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ZooError) as caught:
        resolve("tiny")
    assert f"has sha256 {hashlib.sha256(content).hexdigest()}, expected {expected}" in str(caught.value)
    assert "tiny@1.1.0 was not pulled: no source gave model.safetensors" in str(caught.value)
    assert nothing_was_written() and parts() == []


def test_a_file_of_another_size_is_refused(server: Server) -> None:
    (server.folder / "tiny" / "1.1.0" / "README.md").write_text("longer than it was " * 500, encoding="utf-8")
    with pytest.raises(ZooError, match=r"README\.md: is 9500 bytes long, expected \d+"):
        pull("tiny")
    assert nothing_was_written()


def test_no_more_than_the_expected_size_is_written(server: Server) -> None:
    server.faults[WEIGHTS] = "longer"  # without Content-Length: found out only while it comes
    with pytest.raises(ZooError, match=r"sends more than the expected \d+ bytes; it was thrown away"):
        pull("tiny")
    assert nothing_was_written() and parts() == []


def lying(server: Server, name: str, size: int, **more: Any) -> None:
    """The index says that a file of tiny@1.1.0 is so large, and the server would send that."""
    change_index(server, lambda data: (file_of(data, name).update(size=size), release(data).update(more)))
    server.asked.clear()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            WEIGHTS,
            r"model\.safetensors would be 1\.0 TB; a model of [\d,]+ parameters, which the index gives, has at most",
        ),
        ("tokenizer.json", r"tokenizer\.json would be 1\.0 TB; the largest that is read is 268\.4 MB"),
        ("README.md", r"README\.md would be 1\.0 TB; the largest that is read is 16\.8 MB"),
        ("entry.json", r"entry\.json would be 1\.0 TB; the largest that is read is 1\.0 MB"),
    ],
)
def test_what_no_entry_can_have_is_not_asked_for(server: Server, name: str, message: str) -> None:
    lying(server, name, 10**12)
    with pytest.raises(ZooError, match=rf"tiny@1\.1\.0 was not pulled: {message}"):
        pull("tiny")
    assert [file for file, _ in server.asked] == ["index.json"]
    assert nothing_was_written() and parts() == []


def with_room(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr("miniwin.zoo.size_limits.shutil.disk_usage", lambda path: SimpleNamespace(free=free))


def test_no_more_weights_come_than_the_spec_allows(server: Server, monkeypatch: Any) -> None:
    """An index that says a model of a trillion parameters, where there is room for it."""
    with_room(monkeypatch, 10**15)
    lying(server, WEIGHTS, 10**12, parameters=10**12)
    with pytest.raises(
        ZooError, match=r"would be 1\.0 TB; a model of [\d,]+ parameters, which its model\.yaml describes"
    ):
        pull("tiny")
    assert sorted(file for file, _ in server.asked) == ["entry.json", "index.json", "model.yaml"]
    assert nothing_was_written() and parts() == []


def test_a_disk_without_room_is_not_begun_to_be_filled(server: Server, monkeypatch: Any) -> None:
    size = next(offer.release.size for offer in offers() if offer.release.ref == "tiny@1.1.0")
    server.asked.clear()
    with_room(monkeypatch, 2 * size - 1)  # it comes through the cache, which is on the same disk
    message = r"tiny@1\.1\.0 was not pulled: it needs .* kB in .*zoo and .*cache, and .* kB are free; make room, or set"
    with pytest.raises(ZooError, match=message):
        pull("tiny")
    assert [file for file, _ in server.asked] == ["index.json"] and nothing_was_written()
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", str(server.folder / "index.json"))  # copied, and not through the cache
    assert verify(pull("tiny"), logits=False) == []
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", f"{server.url}/index.json")
    with_room(monkeypatch, 2 * size)
    assert verify(pull("tiny@1.0.0"), logits=False) == []


def test_a_spec_that_cannot_be_read_is_refused_before_the_weights(server: Server) -> None:
    path = server.folder / "tiny" / "1.1.0" / "model.yaml"
    path.write_text("kind: model\n", encoding="utf-8")
    told = {"size": path.stat().st_size, "sha256": sha256_file(path)}
    change_index(server, lambda data: file_of(data, "model.yaml").update(told))
    with pytest.raises(ZooError, match=r"tiny@1\.1\.0 was not pulled: .*model\.yaml"):
        pull("tiny")
    assert server.ranges(WEIGHTS) == [] and nothing_was_written()


def test_metrics_of_a_wrong_type_are_not_pulled(server: Server) -> None:
    folder = server.folder / "tiny" / "1.1.0"
    (folder / "metrics.json").write_text('{"bits_per_byte": [1]}', encoding="utf-8")
    manifest = read_manifest(folder)
    path = folder / "metrics.json"
    record = FileRecord(size=path.stat().st_size, sha256=sha256_file(path))
    manifest = manifest.model_copy(update={"files": {**manifest.files, "metrics.json": record}})
    (folder / "entry.json").write_text(write_manifest(manifest), encoding="utf-8")
    write_index(server.folder)
    with pytest.raises(ZooError, match=r"was not pulled: metrics\.json: bits_per_byte: got \[1\]; expected a mapping"):
        pull("tiny")
    assert nothing_was_written()


def test_a_missing_file_says_which(server: Server) -> None:
    (server.folder / "tiny" / "1.1.0" / "provenance.json").unlink()
    with pytest.raises(
        ZooError, match=r"no source gave provenance\.json: http.*provenance\.json: the server answered 404"
    ):
        pull("tiny")
    assert nothing_was_written()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("ftp://example.org/x", "ftp://example.org/x: scheme 'ftp' is not one the zoo reads"),
        ("file:///etc/passwd", "Redirection to url 'file:///etc/passwd' is not allowed"),
        ("http://example.org/x", "http://example.org/x: http is not safe against changes on the way"),
    ],
)
def test_a_redirect_to_something_unsafe_is_refused(server: Server, target: str, message: str) -> None:
    server.faults[WEIGHTS] = f"to {target}"
    with pytest.raises(ZooError) as caught:
        pull("tiny")
    assert message in str(caught.value) and nothing_was_written()


def test_a_redirect_is_followed(server: Server) -> None:
    shutil.copy(server.folder / "tiny" / "1.1.0" / WEIGHTS, server.folder / "moved")
    server.faults[WEIGHTS] = f"to {server.url}/moved"
    assert verify(pull("tiny"), logits=False) == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("path", "../../../evil.yaml", "path: Input should be 'README.md', 'model.yaml'"),
        ("path", "/etc/passwd", "path: Input should be 'README.md', 'model.yaml'"),
        ("path", "weights.pt", "path: Input should be 'README.md', 'model.yaml'"),
        ("path", "model.yaml\n", "path: Input should be"),
        ("sha256", "../" * 21 + "x", "sha256: String should match pattern"),
        ("size", -1, "size: Input should be greater than or equal to 0"),
        ("sources", [], "sources: Tuple should have at least 1 item"),
    ],
)
def test_a_bad_file_in_the_index_is_refused(server: Server, key: str, value: Any, message: str) -> None:
    change_index(server, lambda data: file_of(data, "model.yaml").update({key: value}))
    with pytest.raises(ZooError) as caught:
        resolve("tiny")
    assert f"{server.url}/index.json: releases" in str(caught.value) and message in str(caught.value)
    assert nothing_was_written()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("name", "../tiny", "name: String should match pattern"),
        ("name", "tiny/..", "name: String should match pattern"),
        ("version", "1.0.0/../../x", "version: String should match pattern"),
        ("version", "1.0.0", "tiny@1.0.0 is listed 2 times"),
        ("status", "yanked", "tiny@1.1.0 is yanked without a reason"),
        ("colour", "red", "colour: Extra inputs are not permitted"),
    ],
)
def test_a_bad_release_in_the_index_is_refused(server: Server, key: str, value: str, message: str) -> None:
    change_index(server, lambda data: release(data).update({key: value}))
    with pytest.raises(ZooError) as caught:
        resolve("tiny")
    assert message in str(caught.value)
    assert nothing_was_written()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("../../../etc/passwd", "must be a plain relative path that stays inside its folder"),
        ("/etc/passwd", "must be a plain relative path"),
        ("a/%2e%2e/b", "must be a plain relative path"),
        ("package:../../secrets", "must be a plain relative path"),
        ("package:entries/x", "an index from the network may not name files of this machine"),
        ("file:///etc/passwd", "an index from the network may not name files of this machine"),
        ("http://example.org/model.yaml", "http is not safe against changes on the way; use https"),
        ("ftp://example.org/model.yaml", "scheme 'ftp' is not one the zoo reads"),
        ("hf:org/repo@main/model.yaml", "expected hf:organisation/repository@<40-hex commit>/path"),
    ],
)
def test_a_bad_source_is_refused(server: Server, source: str, message: str) -> None:
    change_index(server, lambda data: file_of(data, "model.yaml").update(sources=[source]))
    with pytest.raises(ZooError) as caught:
        resolve("tiny")
    assert message in str(caught.value) and "no source gave model.yaml" in str(caught.value)
    assert nothing_was_written()


def test_where_sources_lead() -> None:
    index = "https://example.org/zoo/index.json"
    commit = "0123456789abcdef" * 2 + "01234567"
    assert source_location("tiny/1.0.0/README.md", index) == "https://example.org/zoo/tiny/1.0.0/README.md"
    assert source_location("https://elsewhere.org/x", index) == "https://elsewhere.org/x"
    assert source_location(f"hf:org/re.po@{commit}/a/b.yaml", index) == (
        f"https://huggingface.co/org/re.po/resolve/{commit}/a/b.yaml"
    )
    assert source_location("tiny/x", Path("/data/index.json")) == Path("/data/tiny/x")
    assert source_location("file:///a%20b/x", Path("/data/index.json")) == Path("/a b/x")


def test_an_index_that_disagrees_with_the_entry_is_refused(server: Server) -> None:
    change_index(server, lambda data: release(data).update(digest="0" * 64))
    with pytest.raises(
        ZooError, match=r"tiny@1\.1\.0 is listed with digest 000000000000\.\.\., its entry\.json is tiny@1\.1\.0"
    ):
        pull("tiny")
    assert nothing_was_written()


def test_another_entry_of_the_same_name_is_not_replaced(server: Server, tmp_path: Path) -> None:
    mine = add(make_run(tmp_path / "mine", seed=5), name="tiny", version="1.1.0")
    with pytest.raises(
        ZooError, match=r"tiny@1\.1\.0 in .* is not what http.* calls tiny@1\.1\.0 .*rename one of the two"
    ):
        pull("tiny")
    assert verify(mine, logits=False) == []


def test_a_newer_miniwin_is_asked_for(server: Server) -> None:
    change_index(server, lambda data: release(data).update(requires_miniwin=">=99.1"))
    with pytest.raises(ZooError, match=r"tiny@1\.1\.0 needs miniwin >=99\.1, this is .*; upgrade miniwin"):
        pull("tiny")
    change_index(server, lambda data: data.update(schema=5))
    with pytest.raises(
        ZooError, match=r"index\.json: schema 5 is newer than this miniwin reads \(4\); upgrade miniwin"
    ):
        pull("tiny")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<html>", "index.json: is not JSON"),
        ("[]", "index.json: is not a zoo index"),
        ('{"schema": 1}', "index.json: releases: Field required"),
        ('{"schema": "1", "releases": []}', "index.json: schema: Input should be 1, 2, 3 or 4"),
    ],
)
def test_something_that_is_not_an_index_is_refused(server: Server, content: str, message: str) -> None:
    (server.folder / "index.json").write_text(content, encoding="utf-8")
    with pytest.raises(ZooError) as caught:
        resolve("tiny")
    assert message in str(caught.value)


def test_an_index_of_any_length_is_answered_in_a_few_words(server: Server, monkeypatch: Any) -> None:
    """Junk is refused at its first piece, and what is offered is named in part."""
    change_index(server, lambda data: data.update(releases=[{}] * 400_000))
    with pytest.raises(ZooError, match=r"index\.json: lists 400,000 releases; at most 20,000 are read"):
        pull("tiny")
    change_index(server, lambda data: data.update(releases=[{}] * 20_000))
    with pytest.raises(ZooError, match=r"releases\.0\.name: Field required; .* and 4 more") as caught:
        pull("tiny")
    assert len(str(caught.value)) < 500
    monkeypatch.setattr(index_module, "LARGEST_FILE", 1 << 10)
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", str(server.folder))
    with pytest.raises(ZooError, match=r"index\.json: is larger than 0 MiB"):
        pull("tiny")


def test_lists_of_what_is_offered_are_short(server: Server) -> None:
    def many(data: dict[str, Any]) -> None:
        one = data["releases"][0]
        data["releases"] = [{**one, "name": f"model-{i}"} for i in range(1000)]
        data["releases"] += [{**one, "version": f"1.{i}.0"} for i in range(300)]

    change_index(server, many)
    for ask, message in (
        (lambda: pull("model-x"), r"model-0, .* and 98\d more; did you mean model-\d+\?"),
        (lambda: pull("tiny@2"), r"offered: tiny 1\.0\.0, 1\.1\.0, 1\.2\.0, .* and 280 more"),
        (lambda: miniwin.load("qqq"), r"Zoo entries: .* and 98\d more\. Shipped specs"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            ask()
        assert len(str(caught.value)) < 1500


def test_an_index_that_is_not_there(server: Server, tmp_path: Path, monkeypatch: Any) -> None:
    server.faults["index.json"] = 404
    with pytest.raises(ZooError, match=r"index\.json: the server answered 404"):
        resolve("tiny")
    monkeypatch.setattr("miniwin.zoo.index_query.MAX_INDEX_BYTES", 100)
    server.faults.clear()
    with pytest.raises(ZooError, match=r"index\.json: is larger than 100 bytes"):
        resolve("tiny")
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", str(tmp_path / "none.json"))
    with pytest.raises(ZooError, match=r"the zoo index .*none\.json cannot be read: No such file"):
        resolve("tiny")
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", "http://example.org/index.json")
    with pytest.raises(ZooError, match="http is not safe"):
        resolve("tiny")
    server.close()
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", f"{server.url}/index.json")
    with pytest.raises(ZooError, match=r"index\.json: could not be fetched: .*refused"):
        resolve("tiny")


def test_offline_nothing_is_asked(server: Server, monkeypatch: Any) -> None:
    monkeypatch.setenv("MINIWIN_OFFLINE", "1")
    with pytest.raises(ZooError, match=r"the zoo has no entry 'tiny'.*was not asked, as MINIWIN_OFFLINE is set"):
        resolve("tiny")
    with pytest.raises(ZooError, match=r"tiny@latest cannot be pulled: .*was not asked, as MINIWIN_OFFLINE is set"):
        pull("tiny")
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", str(server.folder / "index.json"))
    change_index(server, lambda data: file_of(data, WEIGHTS).update(sources=[f"{server.url}/tiny/1.1.0/{WEIGHTS}"]))
    with pytest.raises(ZooError, match="not fetched, because MINIWIN_OFFLINE is set; unset it to use the network"):
        pull("tiny")
    assert server.asked == []
    monkeypatch.setenv("MINIWIN_OFFLINE", "0")
    assert pull("tiny").version == "1.1.0"


def test_an_unknown_name_or_version(server: Server, monkeypatch: Any) -> None:
    with pytest.raises(ZooError, match=r"the zoo has no entry 'other' .*index\.json has no such entry"):
        resolve("other")
    with pytest.raises(ZooError, match=r"tiny@3 cannot be pulled: .* what is offered: tiny 1\.0\.0, 1\.1\.0"):
        pull("tiny@3")
    monkeypatch.delenv("MINIWIN_ZOO_INDEX")
    monkeypatch.setattr("miniwin.zoo.index_query.indexes", lambda: [])
    with pytest.raises(ZooError, match=r"cannot be pulled: there is no index to ask \(MINIWIN_ZOO_INDEX is not set\)"):
        pull("tiny")


# ---------------------------------------------------------------------------------------- deprecated and yanked


def mark(server: Server, version: str, status: str) -> None:
    change_index(server, lambda data: release(data, version).update(status=status, reason="wrong tokenizer"))


def test_a_yanked_release_is_passed_over_unless_named(server: Server) -> None:
    mark(server, "1.1.0", "yanked")
    assert resolve("tiny").version == "1.0.0"
    with pytest.warns(UserWarning, match=r"tiny@1\.1\.0 was yanked: wrong tokenizer"):
        assert resolve("tiny@1.1.0").version == "1.1.0"
    mark(server, "1.0.0", "yanked")
    with pytest.raises(ZooError, match=r"every version of tiny@latest was yanked \(tiny@1\.\d\.0: wrong tokenizer\)"):
        pull("tiny")


def test_a_deprecated_release_warns(server: Server) -> None:
    mark(server, "1.1.0", "deprecated")
    with pytest.warns(UserWarning, match=r"tiny@1\.1\.0 is deprecated: wrong tokenizer"):
        resolve("tiny")


def test_a_zoo_may_yank_its_own(server: Server, monkeypatch: Any) -> None:
    """The index in a zoo's own folder holds the status of its entries, and survives being written again."""
    mark(server, "1.1.0", "yanked")
    write_index(server.folder)
    monkeypatch.delenv("MINIWIN_ZOO_INDEX")
    monkeypatch.setenv("MINIWIN_ZOO", str(server.folder))
    statuses = {entry.ref: (entry.status, entry.reason) for entry in list_entries() if entry.name == "tiny"}
    assert statuses == {"tiny@1.0.0": ("active", None), "tiny@1.1.0": ("yanked", "wrong tokenizer")}
    assert resolve("tiny").version == "1.0.0"
    with pytest.warns(UserWarning, match="was yanked"):
        resolve("tiny@1.1.0")
    with pytest.raises(
        ZooError, match=r"every version of tiny@1\.1 was yanked .*name one exactly to use it all the same"
    ):
        resolve("tiny@1.1")


def pulled_and_yanked(server: Server, status: str = "yanked") -> None:
    """tiny@1.1.0 is here when the index turns against it."""
    pull("tiny@1.0.0")
    pull("tiny@1.1.0")
    mark(server, "1.1.0", status)


def zoo_command(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


SAID = "tiny@1.1.0 was yanked: wrong tokenizer"


@pytest.mark.parametrize(
    "asking",
    [
        ("pull", "tiny@1.1.0"),
        ("verify", "--no-logits", "--all"),
        ("verify", "--no-logits", "tiny@1.1.0"),
        ("list", "--remote"),
    ],
)
def test_a_yank_reaches_those_who_have_pulled(server: Server, asking: tuple[str, ...]) -> None:
    """Whatever reads the index says it, and from then on it is said without a network."""
    pulled_and_yanked(server)
    result = zoo_command(*asking)
    assert result.exit_code == 0
    said = "tiny@1.1.0 is yanked: wrong tokenizer" if asking[0] == "list" else SAID
    assert said in result.stdout + result.stderr
    assert "tiny@1.0.0 was" not in result.stdout + result.stderr

    server.close()
    server.asked.clear()
    with pytest.warns(UserWarning, match=rf"{SAID} \(says {server.url}/index\.json, read on 20"):
        assert miniwin.load("tiny@1.1.0").ref == "tiny@1.1.0"
    with pytest.warns(UserWarning, match=SAID):
        miniwin.load(user_zoo() / "tiny" / "1.1.0")
    assert miniwin.load("tiny").ref == "tiny@1.0.0"  # aliases pass over it
    rows = {row["ref"]: row["status"] for row in json.loads(zoo_command("list", "--json").stdout)}
    assert (rows["tiny@1.0.0"], rows["tiny@1.1.0"]) == ("active", "yanked")
    assert SAID in zoo_command("show", "tiny@1.1.0").stderr
    result = zoo_command("verify", "--no-logits", "tiny@1.1.0")
    assert result.exit_code == 0 and SAID in result.stdout
    assert "index.json: could not be fetched" in result.stderr and "what it said before holds" in result.stderr


def test_generate_says_that_its_model_was_yanked(server: Server) -> None:
    pulled_and_yanked(server)
    offers()
    with pytest.warns(UserWarning, match=SAID):
        result = CliRunner().invoke(miniwin_app, ["generate", "tiny@1.1.0", "--prompt", "a", "--max-new-tokens", "1"])
    assert result.exit_code == 0, result.exception


def test_what_was_yanked_can_be_taken_back(server: Server) -> None:
    pulled_and_yanked(server, "deprecated")
    offers()
    with pytest.warns(UserWarning, match=r"tiny@1\.1\.0 is deprecated: wrong tokenizer"):
        resolve("tiny")
    change_index(server, lambda data: release(data).update(status="active", reason=None))
    offers()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve("tiny").version == "1.1.0"


def test_a_mark_is_of_the_entry_and_not_of_its_name(server: Server, tmp_path: Path) -> None:
    """Somebody's own tiny@1.1.0 is another one."""
    mark(server, "1.1.0", "yanked")
    offers()
    add(make_run(tmp_path / "mine", seed=5), name="tiny", version="1.1.0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve("tiny").version == "1.1.0"


def test_every_version_that_is_here_was_yanked(server: Server) -> None:
    pull("tiny@1.1.0")
    mark(server, "1.1.0", "yanked")
    offers()
    with pytest.raises(ZooError, match=r"every version of tiny@latest was yanked .*zoo pull tiny looks for another"):
        miniwin.load("tiny")
    assert pull("tiny").version == "1.0.0" == resolve("tiny").version


def test_an_index_that_is_a_file_is_read_again_when_it_changed(server: Server, monkeypatch: Any) -> None:
    """That takes no network: nobody has to ask."""
    for location in (server.folder / "index.json", server.folder):
        monkeypatch.setenv("MINIWIN_ZOO_INDEX", str(location))
        change_index(server, lambda data: release(data).update(status="active", reason=None))
        assert pull("tiny").version == "1.1.0" == resolve("tiny").version
        mark(server, "1.1.0", "yanked")
        with pytest.warns(UserWarning, match=SAID):
            resolve("tiny@1.1.0")
        shutil.copy(server.folder / "index.json", server.folder / "whole")
        (server.folder / "index.json").write_text("[" * 100_000, encoding="utf-8")
        with pytest.warns(UserWarning, match=SAID):  # a broken index hides nothing, and takes nothing back
            resolve("tiny@1.1.0")
        shutil.copy(server.folder / "whole", server.folder / "index.json")


def test_damaged_marks_and_a_bad_address_stop_nothing(server: Server, monkeypatch: Any) -> None:
    pulled_and_yanked(server)
    offers()
    (path,) = (cache_folder() / "marks").iterdir()
    for text in ("[" * 100_000, "[]", '{"marks": 5}', '{"marks": {"a": 5}}', '{"marks": {"a": ["b", "c"]}}'):
        path.write_text(text, encoding="utf-8")
        assert resolve("tiny").version == "1.1.0"
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", "http://example.org/index.json")
    assert resolve("tiny").version == "1.1.0"
    result = zoo_command("verify", "--no-logits", "tiny")
    assert result.exit_code == 0 and "http is not safe" in result.stderr


def test_where_nothing_can_be_remembered_entries_are_used_all_the_same(server: Server, monkeypatch: Any) -> None:
    def nowhere() -> Path:
        raise NoHome("there is no home folder")

    pulled_and_yanked(server)
    monkeypatch.setattr("miniwin.zoo.yanks.cache_folder", nowhere)
    for index in (f"{server.url}/index.json", str(server.folder)):
        monkeypatch.setenv("MINIWIN_ZOO_INDEX", index)
        assert len(offers()) > 1
        assert resolve("tiny").version == "1.1.0"


def test_a_broken_index_of_a_zoo_hides_no_entry(server: Server, monkeypatch: Any) -> None:
    pull("tiny")
    (user_zoo() / "index.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.warns(UserWarning, match="nested too deeply .*which versions of this zoo are yanked is not known"):
        assert resolve("tiny").version == "1.1.0"


# -------------------------------------------------------------------------------------------- the command line


def test_the_commands(server: Server, published: Path) -> None:
    runner = CliRunner()
    lines = runner.invoke(app, ["list", "--remote"]).stdout.splitlines()
    assert [line.split()[0] for line in lines if "not pulled" in line] == ["tiny@1.0.0", "tiny@1.1.0"]
    result = runner.invoke(app, ["pull", "tiny@1"])
    assert result.exit_code == 0, result.exception
    assert result.stdout == f"tiny@1.1.0: {user_zoo() / 'tiny' / '1.1.0'}\n"
    assert "tiny@1 is tiny@1.1.0 (user)" in result.stderr
    lines = runner.invoke(app, ["list", "--remote"]).stdout.splitlines()
    assert [line.split()[0] for line in lines if "not pulled" in line] == ["tiny@1.0.0"]

    result = runner.invoke(app, ["index", str(user_zoo())])
    assert result.stdout == f"wrote {user_zoo() / 'index.json'}\n"
    data = json.loads((user_zoo() / "index.json").read_text(encoding="utf-8"))
    there = json.loads((published / "index.json").read_text(encoding="utf-8"))
    assert release(data) == release(there)
    error = runner.invoke(app, ["index", str(user_zoo() / "tiny")]).exception
    assert isinstance(error, ZooError) and "holds no entries" in str(error)

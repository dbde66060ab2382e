"""Publishing to a server that speaks S3: moto's, over HTTP on this machine."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tiny import run_cli

from miniwin.zoo import Entry, ZooError
from miniwin.zoo.index import Index, parse_index
from miniwin.zoo.publishing.publish import publish
from miniwin.zoo.publishing.s3 import S3Target

Entries = dict[str, Entry]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def account(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: Any) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def place(request: Any) -> str:
    """A new bucket, and a path in it."""
    import s3fs

    bucket = f"zoo-{abs(hash(request.node.name)) % 10**12}"
    s3fs.S3FileSystem(use_listings_cache=False).mkdir(bucket)
    return f"s3://{bucket}/models"


def index_at(place: str) -> Index:
    stored = S3Target(place).read_index()
    assert stored is not None
    return parse_index(stored.data, place)


def is_whole(place: str) -> bool:
    target, files = S3Target(place), [file for release in index_at(place).releases for file in release.files]
    return all(hashlib.sha256(target.read(f.sources[0], f.size) or b"").hexdigest() == f.sha256 for f in files)


def test_publish_yank_and_publish_again(entries: Entries, place: str) -> None:
    for ref in ("tiny@1.0.0", "tiny@1.1.0"):
        code, out, err = run_cli("zoo", "publish", str(entries[ref].folder), "--to", place, "--no-logits")
        assert (code, f"published {ref} to {place}" in out) == (0, True), err
    assert run_cli("zoo", "yank", "tiny@1.0.0", "--at", place, "--reason", "old")[0] == 0
    assert not publish(entries["tiny@1.1.0"].folder, place, logits=False).new
    assert {r.ref: r.status for r in index_at(place).releases} == {"tiny@1.0.0": "yanked", "tiny@1.1.0": "active"}
    assert index_at(place).serial == 3 and is_whole(place)


@pytest.mark.parametrize("known", [True, False])
def test_a_damaged_file_of_the_same_size_is_put_again(
    entries: Entries, place: str, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """known: whether our hash came with it. Without one the file is read; what is right is not sent again."""
    entry, target = entries["tiny@1.0.0"], S3Target(place)
    publish(entry.folder, place, logits=False)
    file = next(file for file in index_at(place).releases[0].files if file.path == "model.safetensors")
    at, content = f"{place}/{file.sources[0]}", (entry.folder / file.path).read_bytes()
    if known:
        target.put(file.sources[0], bytes(len(content)))
    else:
        target._store.pipe_file(at, bytes(len(content)))
    assert not target.holds(file.sources[0], file) and not is_whole(place)
    publish(entry.folder, place, logits=False)
    assert is_whole(place) and target.holds(file.sources[0], file)
    if not known:
        target._store.pipe_file(at, content)
    sent: list[str] = []
    monkeypatch.setattr(S3Target, "put", lambda self, path, content: sent.append(path))
    publish(entry.folder, place, logits=False)
    assert sent == []


def test_publishers_at_once_lose_nothing(entries: Entries, place: str) -> None:
    refs = ["tiny@1.0.0", "tiny@1.1.0", "another@1.0.0"]
    with ThreadPoolExecutor(len(refs)) as pool:
        done = list(pool.map(lambda ref: publish(entries[ref].folder, place, logits=False), refs))
    assert all(one.new for one in done)
    assert sorted(release.ref for release in index_at(place).releases) == sorted(refs)
    assert index_at(place).serial == len(refs) and is_whole(place)


def test_an_index_that_was_replaced_meanwhile_is_not_overwritten(entries: Entries, place: str) -> None:
    target = S3Target(place)
    assert target.read_index() is None and target.replace_index(b"one", None)
    assert not target.replace_index(b"two", None)
    first = target.read_index()
    assert first is not None and target.replace_index(b"three", first.tag) and not target.replace_index(b"4", first.tag)
    assert target.read_index().data == b"three"  # type: ignore[union-attr]


def test_a_server_without_conditions_is_refused(entries: Entries, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As old versions of some servers do: they answer 200 whatever the condition."""
    write = S3Target._write_if
    monkeypatch.setattr(S3Target, "_write_if", lambda self, path, data, condition: write(self, path, data, {}))
    with pytest.raises(ZooError, match="the server ignores If-None-Match and If-Match"):
        publish(entries["tiny@1.0.0"].folder, place, logits=False)
    assert S3Target(place).read_index() is None


def test_what_cannot_be_published_to(entries: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    for url, message in (
        ("s3://no-such-bucket/x", "there is no bucket no-such-bucket"),
        ("s3://UPPER/x", "expected s3://bucket or s3://bucket/path"),
        ("s3://bucket/../x", "expected s3://bucket or s3://bucket/path"),
    ):
        with pytest.raises(ZooError, match=message):
            publish(entries["tiny@1.0.0"].folder, url, logits=False)
    monkeypatch.setenv("MINIWIN_OFFLINE", "1")
    with pytest.raises(ZooError, match="MINIWIN_OFFLINE is set"):
        publish(entries["tiny@1.0.0"].folder, "s3://bucket", logits=False)

"""Servers that hang, drip, redirect without end or lead astray; and what is here, which never waits for one."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from zoo_server import WEIGHTS, Server, change_index, environment, file_of, nothing_was_written, published, server

import miniwin
from miniwin.commands.zoo import app
from miniwin.specs import UserError
from miniwin.zoo import ZooError, download, http_client, resolve, timeouts, user_zoo, verify
from miniwin.zoo.download import Fetched
from miniwin.zoo.errors import UnreachableError
from miniwin.zoo.http_client import open_url
from miniwin.zoo.index_query import offers
from miniwin.zoo.locations import check_url, source_location
from miniwin.zoo.private_addresses import host_is_near
from miniwin.zoo.pull import pull
from miniwin.zoo.timeouts import Clock

__all__ = ["environment", "published", "server"]  # fixtures

LONG = 60  # pieces of a slow answer, which has an end, so that a test without it fails and does not hang
PIECE = 0.05  # seconds


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "TIMEOUT", 1.0)


def slow(pieces: list[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        time.sleep(PIECE)
        yield piece


def answered(content: bytes, headers: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n{headers}\r\n".encode() + content


def dripping(content: bytes, how: str) -> Iterator[bytes]:
    """A whole and right answer that takes LONG pieces."""
    whole = answered(content)
    head, body = whole[: -len(content)], whole[-len(content) :]
    yield from {
        "content": slow([head, *(body[i : i + 1] for i in range(LONG)), body[LONG:]]),
        "headers": slow([*(head[i : i + 1] for i in range(len(head))), body]),
        "100 continue": slow([*[b"HTTP/1.1 100 Continue\r\n\r\n"] * LONG, whole]),
        "silence": slow([*[b""] * LONG, whole]),
    }[how]


SAID = {
    "content": "fewer than 4,096 bytes came in 1 s",
    "headers": "the answer did not begin within 1 s",
    "100 continue": "the answer did not begin within 1 s",
    "silence": "the answer did not begin within 1 s",
}


# ---------------------------------------------------------------------------------------------- without an end


@pytest.mark.parametrize("how", list(SAID))
def test_an_index_that_drips(server: Server, how: str, impatient: None) -> None:
    content = (server.folder / "index.json").read_bytes()
    server.faults["index.json"] = lambda request: dripping(content, how)
    with pytest.raises(ZooError, match=rf"index\.json: could not be fetched: {SAID[how]}"):
        pull("tiny")


def test_the_whole_has_an_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """However well it moves."""
    monkeypatch.setattr(timeouts, "MIN_RATE", 0)
    monkeypatch.setattr(download, "SMALL_SECONDS", 0.3)
    content = (server.folder / "index.json").read_bytes()
    server.faults["index.json"] = lambda request: dripping(content, "content")
    with pytest.raises(ZooError, match=r"it was not done after 0\.3 s"):
        pull("tiny")


def test_a_source_that_drips_does_not_stop_a_good_one(
    server: Server, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    content = (server.folder / "tiny" / "1.1.0" / WEIGHTS).read_bytes()
    server.faults["slow"] = lambda request: dripping(content, "content")
    change_index(server, lambda data: file_of(data, WEIGHTS)["sources"].insert(0, "slow"))
    assert verify(pull("tiny"), logits=False) == []
    assert server.ranges(WEIGHTS) != []


def test_a_byte_for_every_request_is_no_progress(server: Server) -> None:
    server.faults[WEIGHTS] = lambda request: ("cut", 1)
    with pytest.raises(ZooError, match=r"4 of \d+ bytes arrived, then: the connection ended early"):
        pull("tiny")
    assert server.ranges(WEIGHTS) == [None, "bytes=1-", "bytes=2-", "bytes=3-"]


def test_what_came_before_a_stall_is_kept(server: Server, impatient: None) -> None:
    """However little it is: on a slow line nothing else would ever come to an end."""
    content = (server.folder / "tiny" / "1.1.0" / WEIGHTS).read_bytes()
    server.faults[WEIGHTS] = lambda request: slow([answered(content)[:-1000], *[b""] * LONG]) if request == 1 else None
    assert verify(pull("tiny"), logits=False) == []
    assert server.ranges(WEIGHTS) == [None, f"bytes={len(content) - 1000}-"]


def test_redirects_without_end(server: Server) -> None:
    server.faults[WEIGHTS] = f"to {server.url}/tiny/1.1.0/{WEIGHTS}"
    with pytest.raises(ZooError, match=r"model\.safetensors: was redirected more than 5 times"):
        pull("tiny")
    assert len(server.ranges(WEIGHTS)) == 6
    assert nothing_was_written()


def test_the_content_of_a_redirect_is_not_waited_for(server: Server, impatient: None) -> None:
    head = f"HTTP/1.1 302 Found\r\nLocation: /tiny/1.1.0/{WEIGHTS}\r\nContent-Length: 1000\r\n\r\n".encode()
    server.faults["moved"] = lambda request: slow([head, *[b"x"] * LONG])
    change_index(server, lambda data: file_of(data, WEIGHTS).update(sources=["moved"]))
    assert verify(pull("tiny"), logits=False) == []
    assert len(server.ranges("moved")) == 1


# ---------------------------------------------------------------------------------------------------- not now


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been slept, and is not."""
    slept: list[float] = []
    monkeypatch.setattr(download, "sleep", slept.append)
    return slept


def refused(code: int, after: str) -> Iterator[bytes]:
    yield f"HTTP/1.1 {code} Not now\r\nRetry-After: {after}\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize("code", [408, 425, 429, 503])
@pytest.mark.parametrize("name", ["index.json", WEIGHTS])
def test_a_server_that_asks_to_wait(server: Server, name: str, code: int, naps: list[float]) -> None:
    server.faults[name] = lambda request: refused(code, "7") if request < 3 else None
    assert verify(pull("tiny"), logits=False) == []
    assert naps == [7.0, 7.0]
    assert len([asked for asked, _ in server.asked if asked == name]) == 3


@pytest.mark.parametrize("after", ["3600", "Fri, 01 Jan 2999 00:00:00 GMT"])
def test_a_server_that_asks_to_wait_too_long(server: Server, after: str, naps: list[float]) -> None:
    server.faults[WEIGHTS] = lambda request: refused(429, after)
    with pytest.raises(ZooError, match=r"the server answered 429 Not now, and asks to wait [\d,]+ s; run the same"):
        pull("tiny")
    change_index(server, lambda data: file_of(data, WEIGHTS)["sources"].append("good"))
    shutil.copy(server.folder / "tiny" / "1.1.0" / WEIGHTS, server.folder / "good")
    assert verify(pull("tiny"), logits=False) == []
    assert naps == []


def test_waiting_does_not_prolong_the_whole(server: Server, naps: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SMALL_SECONDS", 5.0)
    server.faults["index.json"] = lambda request: refused(503, "20")
    with pytest.raises(ZooError, match="asks to wait 20 s; run the same command again then"):
        pull("tiny")
    assert naps == [] and len(server.asked) == 1


@pytest.mark.parametrize(
    "after",
    [
        "soon",
        "-1",
        "Fri, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Thu, 01 Jan 1970",
        "Thu, 01 Jan 1970 00:00:00 GMT",
    ],
)
def test_a_wait_that_says_nothing(server: Server, after: str, naps: list[float]) -> None:
    server.faults["index.json"] = lambda request: refused(429, after)
    with pytest.raises(ZooError, match=r"index\.json: the server answered 429 Not now; run the same command again"):
        pull("tiny")
    assert naps == [0.0, 0.0, 0.0] and len(server.asked) == 4


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_a_no_is_a_no(server: Server, code: int) -> None:
    server.faults[WEIGHTS] = lambda request: refused(code, "1")
    with pytest.raises(ZooError, match=f"the server answered {code}"):
        pull("tiny")
    assert len(server.ranges(WEIGHTS)) == 1


@pytest.mark.parametrize("header", ["Content-Length: \u00b2", f"Content-Length: {'9' * 5000}", "Content-Length: -1"])
def test_strange_lengths(server: Server, header: str) -> None:
    content = (server.folder / "tiny" / "1.1.0" / WEIGHTS).read_bytes()
    whole = f"HTTP/1.1 200 OK\r\n{header}\r\n\r\n".encode("latin-1") + content
    server.faults[WEIGHTS] = lambda request: iter([whole])
    assert verify(pull("tiny"), logits=False) == []


def test_a_strange_range_and_a_long_reason(server: Server) -> None:
    part = server.folder / "tiny" / "1.1.0" / WEIGHTS
    head = f"HTTP/1.1 206 Partial\r\nContent-Range: bytes {'1' * 5000}-2/3\r\n\r\n".encode()
    server.faults[WEIGHTS] = lambda request: iter([head])
    with pytest.raises(ZooError) as caught:
        pull("tiny")
    assert "got Content-Range 'bytes 1111" in str(caught.value) and len(str(caught.value)) < 1000
    server.faults[part.name] = lambda request: iter([b"HTTP/1.1 404 " + b"x" * 60_000 + b"\r\n\r\n"])
    with pytest.raises(ZooError) as caught:
        pull("tiny")
    assert "404 xxx" in str(caught.value) and len(str(caught.value)) < 1000


# ------------------------------------------------------------------------------------------------ where to look


@pytest.mark.parametrize(
    "source",
    [
        "https://[",
        "https://exa mple.org/x",
        "https://example.org/\u00e4",
        "https://example.org:99999/x",
        f"https://{'a' * 70}.org/x",
        "https://user:secret@example.org/x",
        "a\0b",
        "file://[x",
        "missing",
        "hf:nowhere",
        f"hf:../..@{'0' * 40}/x",
        "package:../x",
        ".",
    ],
)
@pytest.mark.parametrize("as_file", [False, True])
def test_a_bad_first_source_does_not_stop_a_good_second_one(
    server: Server, source: str, as_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_index(server, lambda data: file_of(data, "README.md")["sources"].insert(0, source))
    if as_file:
        monkeypatch.setenv("MINIWIN_ZOO_INDEX", str(server.folder / "index.json"))
    assert verify(pull("tiny"), logits=False) == []
    change_index(server, lambda data: file_of(data, "README.md", "1.0.0").update(sources=[source]))
    with pytest.raises(ZooError, match=r"tiny@1\.0\.0 was not pulled: no source gave README\.md: ") as caught:
        pull("tiny@1.0.0")
    assert "secret" not in str(caught.value)


def test_a_bad_mirror_does_not_stop_a_good_source(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for mirror in ("https://[", "http://example.org/", f"{server.url}/?sig=a", "/nowhere", "~nobody-here/x"):
        monkeypatch.setenv("MINIWIN_ZOO_MIRROR", mirror)
        shutil.rmtree(user_zoo(), ignore_errors=True)
        assert verify(pull("tiny"), logits=False) == []


def test_a_host_that_is_silent_is_asked_last_from_then_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from miniwin.zoo import pull as module

    asked: list[str] = []
    download = module._download

    def silent(url: str, *arguments: Any) -> None:
        asked.append(url)
        if url.startswith("https://silent.example.org/"):
            raise UnreachableError(url)
        download(url, *arguments)

    monkeypatch.setattr(module, "_download", silent)
    monkeypatch.setenv("MINIWIN_ZOO_MIRROR", "https://silent.example.org/")
    assert verify(pull("tiny"), logits=False) == []
    assert len([url for url in asked if "silent" in url]) == 1


def test_nothing_at_all_is_another_answer_than_a_part(server: Server) -> None:
    for size, kind in ((0, UnreachableError), (10_000, ZooError)):
        server.faults["x"] = lambda request, size=size: ("cut", size if request == 1 else 0)
        (server.folder / "x").write_bytes(b"?" * 20_000)
        server.asked.clear()
        downloader = download.ResumingDownloader(server.folder / f"part{size}", size=20_000, sha256="0" * 64)
        with pytest.raises(ZooError, match=rf"{size} of 20000 bytes arrived") as caught:
            downloader(f"{server.url}/x", server.folder / "to", None)
        assert type(caught.value) is kind


def test_only_a_few_sources_are_tried(server: Server) -> None:
    change_index(server, lambda data: file_of(data, "README.md").update(sources=["missing"] * 1000))
    with pytest.raises(ZooError, match="only the first 8 of 1000 sources are tried"):
        pull("tiny")
    assert len(server.ranges("missing")) == 8


def test_a_query_belongs_to_the_index(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source_location("a/b c?.yaml", "https://example.org/zoo/index.json?sig=a/b#c/d") == (
        "https://example.org/zoo/a/b%20c%3F.yaml"
    )
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", f"{server.url}/index.json?sig=a/b")
    assert verify(pull("tiny"), logits=False) == []


@pytest.mark.parametrize("place", ["{url}", "{url}/", "{url}/?sig=a/b", "{folder}", "file://{folder}"])
def test_the_folder_of_an_index_will_do(server: Server, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", place.format(url=server.url, folder=server.folder))
    assert verify(pull("tiny"), logits=False) == []


def test_a_place_without_an_index_says_what_to_give(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (server.folder / "page").write_text("<html>", encoding="utf-8")
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", f"{server.url}/page")
    with pytest.raises(ZooError) as caught:
        pull("tiny")
    assert "/page: is not JSON" in str(caught.value) and "/page/index.json: the server answered 404" in str(
        caught.value
    )
    assert "give the URL of an index.json, or of the folder that holds it" in str(caught.value)
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", str(tmp_path))
    with pytest.raises(
        ZooError, match=rf"the zoo index {tmp_path}/index\.json cannot be read: No such file.*; miniwin zoo index"
    ):
        pull("tiny")


# ------------------------------------------------------------------------------------------- what is here first


def test_what_is_here_never_waits_for_an_index(server: Server) -> None:
    server.faults["index.json"] = 500
    assert miniwin.load("miniwin-tiny").ref == "miniwin-tiny (random weights)"
    pull_from = resolve("miniwin-1m")
    assert pull_from.source == "built-in" and server.asked == []


def test_what_is_nowhere_says_so_though_the_index_fails(server: Server) -> None:
    server.close()
    with pytest.raises(UserError, match=r"minwin-1m: no such file or folder, .*did you mean miniwin-1m") as caught:
        miniwin.load("minwin-1m")
    assert "Not all indexes could be asked: http" in str(caught.value)
    with pytest.raises(
        ZooError, match=r"the zoo has no entry 'minwin-1m'; did you mean miniwin-1m.*could not be fetched"
    ):
        resolve("minwin-1m")


def test_one_index_that_fails_does_not_stop_another(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package has one of its own."""
    folder = tmp_path / "package" / "entries"
    shutil.copytree(server.folder, folder)
    shutil.move(folder / "index.json", folder.parent / "index.json")
    data = json.loads((folder.parent / "index.json").read_text(encoding="utf-8"))
    for file in (file for one in data["releases"] for file in one["files"]):
        file["sources"] = [f"entries/{file['sources'][0]}"]
    (folder.parent / "index.json").write_text(json.dumps(data), encoding="utf-8")
    for module in ("index", "index_query"):
        monkeypatch.setattr(f"miniwin.zoo.{module}.built_in_zoo", lambda: folder)
    server.faults["index.json"] = 404
    with pytest.warns(UserWarning, match=r"an index was passed over: http.*the server answered 404"):
        assert pull("tiny").version == "1.1.0"
    with pytest.raises(ZooError, match=r"the server answered 404.*package/index\.json has no such entry"):
        pull("other")
    with pytest.raises(ZooError, match="the server answered 404"):
        offers()
    result = CliRunner().invoke(app, ["list", "--remote"])
    assert "tiny@1.0.0" in result.stdout and "the server answered 404" in result.stderr and result.exit_code == 2


# -------------------------------------------------------------------------------------- this machine's network


@pytest.mark.parametrize(
    ("host", "near"),
    [
        *((host, True) for host in ("localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.1", "0x7f000001")),
        *((host, True) for host in ("2130706433", "0.0.0.0", "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1")),
        *((host, True) for host in ("169.254.169.254", "::1", "::", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1")),
        *((host, True) for host in ("64:ff9b::7f00:1", "224.0.0.1", "255.255.255.255", "127.0.0.1.")),
        *((host, False) for host in ("8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "example.org", "localhost.org")),
    ],
)
def test_near_hosts(host: str, near: bool) -> None:
    assert host_is_near(host) is near


def test_an_index_from_elsewhere_names_nothing_here(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same index, as if it had come from the open network."""
    content = (server.folder / "index.json").read_bytes()
    monkeypatch.setattr("miniwin.zoo.index_query.read_url", lambda url, limit: Fetched(content, False))
    with pytest.raises(
        ZooError, match=r"127\.0\.0\.1 is on this machine or its network; only an index that is there itself"
    ):
        pull("tiny")
    assert server.asked == [] and nothing_was_written()
    monkeypatch.setenv("MINIWIN_ZOO_MIRROR", server.url)  # the user's own choice
    assert verify(pull("tiny"), logits=False) == []


@pytest.mark.parametrize("host", ["127.1", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:10.0.0.1]", "localhost"])
def test_addresses_are_refused_before_a_connection(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", None)
    with pytest.raises(ZooError, match="is on this machine or its network"):
        open_url(f"https://{host}/x", Clock(5), near=False)


def test_a_name_that_leads_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    place = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.168.0.1", 443))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [place])
    monkeypatch.setattr(socket, "create_connection", None)
    with pytest.raises(ZooError, match=r"example\.org \(192\.168\.0\.1\) is on this machine or its network"):
        open_url("https://example.org/x", Clock(5), near=False)


def test_the_address_that_was_checked_is_the_one_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may mean another address the next time it is looked up."""
    used: list[Any] = []
    real = socket.create_connection
    monkeypatch.setattr(
        socket, "create_connection", lambda place, timeout: used.append(place[0]) or real(place, timeout)
    )
    with open_url(server.url.replace("127.0.0.1", "localhost") + "/index.json", Clock(5)) as answer:
        assert answer.near and answer.status == 200
    assert used[-1] == "127.0.0.1"


def test_nobody_elsewhere_redirects_here(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 stands for a server of the open network, localhost for what is near."""
    monkeypatch.setattr(http_client, "is_near", lambda address: False)
    monkeypatch.setattr(http_client, "host_is_near", lambda host: host == "localhost")
    server.faults[WEIGHTS] = f"to {server.url.replace('127.0.0.1', 'localhost')}/moved"
    with pytest.raises(ZooError, match=r"Redirection to url 'http://localhost.*localhost is on this machine"):
        pull("tiny")
    assert server.ranges("moved") == [] and nothing_was_written()


@pytest.mark.parametrize("target", ["http://localhost/x", "http://example.org/x"])
def test_https_never_leads_to_http(target: str) -> None:
    request = http_client._Request("https://example.org/x", Clock(5), 0, True)
    with pytest.raises(ZooError, match=r"Redirection to url 'http://.*' is not allowed: .*http is not safe"):
        http_client._redirected(request, target)
    assert http_client._redirected(request, "/y z").full_url == "https://example.org/y%20z"


def test_a_proxy_may_be_near(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the user's. What is behind it, it looks up itself."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                asked.append(connection.recv(1000))
                connection.sendall(b"HTTP/1.1 403 No\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listening.getsockname()[1]}")
        with pytest.raises(OSError, match="Tunnel connection failed: 403"):
            open_url("https://example.org/x", Clock(5), near=False)
        thread.join(5)
    assert asked[0].startswith(b"CONNECT example.org:443")
    with pytest.raises(ZooError, match=r"169\.254\.169\.254 is on this machine"):
        open_url("https://169.254.169.254/x", Clock(5), near=False)


def test_a_url_is_checked() -> None:
    for url in ("https://example.org/x", "http://localhost:80/x", "https://[2606:4700::1111]/x"):
        assert check_url(url) == url
    for url in ("https:///x", "https://a..b/", "https://example.org:x/", "https://example.org/\n", "https://e:0/"):
        with pytest.raises(ZooError):
            check_url(url)

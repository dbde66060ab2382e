"""Publishing to the Hugging Face Hub: a server on this machine speaks the part of its API that is used."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from miniwin.zoo import Entry, ZooError
from miniwin.zoo.index import parse_index
from miniwin.zoo.locations import index_location
from miniwin.zoo.publishing import editing
from miniwin.zoo.publishing.hub import HubTarget
from miniwin.zoo.publishing.publish import publish

Entries = dict[str, Entry]


class Hub:
    """One repository, org/zoo. `commits`: the files after each commit."""

    def __init__(self) -> None:
        self.commits: list[dict[str, bytes]] = [{}]
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.get(self)

            do_HEAD = do_GET

            def do_POST(self) -> None:
                outer.post(self, self.rfile.read(int(self.headers["Content-Length"])))

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @staticmethod
    def name(commit: int) -> str:
        return f"{commit:040x}"

    def answer(self, handler: BaseHTTPRequestHandler, code: int, body: bytes, **headers: str) -> None:
        handler.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    def get(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        if path == "/api/models/org/zoo/revision/main":
            files = [{"rfilename": name} for name in self.commits[-1]]
            about = {"id": "org/zoo", "sha": self.name(len(self.commits) - 1), "siblings": files}
            return self.answer(handler, 200, json.dumps(about).encode(), Content_Type="application/json")
        if path.startswith("/org/zoo/resolve/"):
            commit, _, name = path.removeprefix("/org/zoo/resolve/").partition("/")
            data = self.commits[int(commit, 16)].get(name)
            if data is not None:
                return self.answer(handler, 200, data)
        return self.answer(handler, 404, b"{}", X_Error_Code="RepoNotFound")

    def post(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        path = handler.path.partition("?")[0]
        if path == "/api/models/org/zoo/preupload/main":
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            return self.answer(handler, 200, json.dumps({"files": files}).encode())
        if path == "/api/models/org/zoo/commit/main":
            lines = [json.loads(line) for line in body.splitlines()]
            with self.lock:
                if lines[0]["value"].get("parentCommit") != self.name(len(self.commits) - 1):
                    return self.answer(handler, 412, b'{"error": "A commit has happened since."}')
                files = {line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines[1:]}
                self.commits.append(self.commits[-1] | files)
                oid = self.name(len(self.commits) - 1)
            about = {"success": True, "commitOid": oid, "commitUrl": f"{self.url}/org/zoo/commit/{oid}"}
            return self.answer(handler, 200, json.dumps(about).encode())
        return self.answer(handler, 404, b"{}")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def listed(hub: Hub) -> list[str]:
    return [release.ref for release in parse_index(hub.commits[-1]["index.json"], "hub").releases]


def test_content_and_index_come_in_one_commit(entries: Entries, hub: Hub) -> None:
    assert publish(entries["tiny@1.0.0"].folder, "hf:org/zoo", logits=False).new
    assert len(hub.commits) == 2 and listed(hub) == ["tiny@1.0.0"]
    folder = entries["tiny@1.0.0"].folder
    assert all(hub.commits[-1][f"tiny/1.0.0/{path.name}"] == path.read_bytes() for path in folder.iterdir())
    assert not publish(entries["tiny@1.0.0"].folder, "hf:org/zoo", logits=False).new and len(hub.commits) == 2
    editing.set_status(HubTarget("hf:org/zoo"), "tiny@1.0.0", "yanked", "bad data")
    assert publish(entries["tiny@1.1.0"].folder, "hf:org/zoo", logits=False).serial == 3


def test_who_was_second_reads_the_index_again(entries: Entries, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editing, "PAUSE", 0.0)
    replace, first = HubTarget.replace_index, iter([True])

    def late(target: HubTarget, data: bytes, tag: object) -> bool:
        if next(first, False):
            publish(entries["another@1.0.0"].folder, "hf:org/zoo", logits=False)
        return replace(target, data, tag)

    monkeypatch.setattr(HubTarget, "replace_index", late)
    publish(entries["tiny@1.0.0"].folder, "hf:org/zoo", logits=False)
    assert listed(hub) == ["another@1.0.0", "tiny@1.0.0"]


def test_what_cannot_be_published_to(entries: Entries, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, message in (("hf:org", "expected hf:organisation"), ("hf:org/none", "there is no such repository")):
        with pytest.raises(ZooError, match=message):
            publish(entries["tiny@1.0.0"].folder, text, logits=False)
    monkeypatch.setenv("MINIWIN_OFFLINE", "1")
    with pytest.raises(ZooError, match="MINIWIN_OFFLINE is set"):
        publish(entries["tiny@1.0.0"].folder, "hf:org/zoo", logits=False)


def test_readers_may_name_the_repository() -> None:
    assert index_location("hf:org/zoo") == "https://huggingface.co/org/zoo/resolve/main/index.json"
    with pytest.raises(ZooError, match="expected hf:organisation/repository"):
        index_location("hf:org/../zoo")

"""A web server on this machine that serves a zoo with given faults."""

from __future__ import annotations

import json
import shutil
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from zoo_runs import METRICS, make_run

from miniwin.zoo import add, download, list_entries, user_zoo, write_index

WEIGHTS = "model.safetensors"


class Server:
    """Serves a folder on 127.0.0.1. `faults` maps a file's name to its fault; `asked` records every request.
    certificate: PEM, for https."""

    def __init__(self, folder: Path, certificate: Path | None = None) -> None:
        self.folder = folder
        self.faults: dict[str, Any] = {}
        self.asked: list[tuple[str, str | None]] = []  # (file name, Range header)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'' if certificate is None else 's'}://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def ranges(self, name: str) -> list[str | None]:
        return [asked for file, asked in self.asked if file == name]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = self.folder / handler.path.partition("?")[0].lstrip("/")
        wanted = handler.headers.get("Range")
        self.asked.append((path.name, wanted))
        fault = self.faults.get(path.name)
        if callable(fault):
            fault = fault(len(self.ranges(path.name)))  # by the number of the request, from 1
        if isinstance(fault, Iterator):  # of bytes: the answer as it goes over the wire
            handler.close_connection = True
            with suppress(OSError):  # whoever asked may have had enough
                for piece in fault:
                    handler.wfile.write(piece)
            return
        if isinstance(fault, int):
            handler.send_error(fault)
            return
        if isinstance(fault, str) and fault.startswith("to "):
            handler.send_response(302)
            handler.send_header("Location", fault[3:])
            handler.end_headers()
            return
        if not path.is_file():
            handler.send_error(404)
            return
        content = path.read_bytes()
        if fault == "longer":
            content += b"more"
        start, end = 0, len(content)
        if wanted is not None and fault != "no ranges":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if fault == "wrong range":
                start -= 1
            if start >= end:
                handler.send_error(416)
                return
            handler.send_response(206)
            total = end + 1 if fault == "wrong total" else end
            handler.send_header("Content-Range", f"bytes {start}-{end - 1}/{total}")
        else:
            handler.send_response(200)
        if fault != "longer":
            handler.send_header("Content-Length", str(end - start))
        handler.end_headers()
        if isinstance(fault, tuple):  # ("cut", n): the connection breaks after n bytes of this answer
            end = min(end, start + fault[1])
        handler.wfile.write(content[start:end])


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo with tiny@1.0.0 and tiny@1.1.0, and its index."""
    folder = tmp_path_factory.mktemp("published")
    for seed in (0, 1):
        add(make_run(folder / f"run{seed}", seed=seed), name="tiny", metrics=METRICS, zoo=folder / "zoo")
    write_index(folder / "zoo")
    return folder / "zoo"


@pytest.fixture
def server(published: Path, tmp_path: Path) -> Iterator[Server]:
    shutil.copytree(published, tmp_path / "served")
    for path in (tmp_path / "served").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
    server = Server(tmp_path / "served")
    yield server
    server.close()


@pytest.fixture(autouse=True)
def environment(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "zoo"))
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINIWIN_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", f"{server.url}/index.json")
    for name in ("MINIWIN_ZOO_MIRROR", "MINIWIN_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.0)


def change_index(server: Server, change: Any) -> None:
    path = server.folder / "index.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def release(data: dict[str, Any], version: str = "1.1.0") -> dict[str, Any]:
    return next(release for release in data["releases"] if release["version"] == version)


def file_of(data: dict[str, Any], name: str, version: str = "1.1.0") -> dict[str, Any]:
    return next(file for file in release(data, version)["files"] if file["path"] == name)


def nothing_was_written() -> bool:
    left = [path for path in user_zoo().rglob("*") if path.is_file() and path.suffix != ".lock"]
    return left == [] and not [entry for entry in list_entries() if entry.source == "user"]

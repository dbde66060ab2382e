"""A zoo over https, by a real server: whose certificate counts, and where it may lead to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import run_cli
from tls import make_certificate
from zoo_server import WEIGHTS, Server, environment, nothing_was_written, published, server

from miniwin.zoo import http_client, verify
from miniwin.zoo.pull import pull

__all__ = ["environment", "published", "server"]  # fixtures


@pytest.fixture
def secure(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The same zoo over https, besides the plain server. Its certificate is trusted."""
    certificate = make_certificate(tmp_path / "here.pem")
    shutil.copytree(server.folder, tmp_path / "secure")
    secure = Server(tmp_path / "secure", certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", secure.url)
    http_client._tls.cache_clear()
    yield secure
    secure.close()
    http_client._tls.cache_clear()


def test_a_zoo_over_https(secure: Server) -> None:
    secure.faults[WEIGHTS] = lambda request: f"to {secure.url}/tiny/1.1.0/{WEIGHTS}" if request == 1 else None
    assert secure.url.startswith("https:") and verify(pull("tiny"), logits=False) == []


def is_refused(said: str) -> None:
    code, out, err = run_cli("zoo", "pull", "tiny")
    assert (code, out) == (2, "") and said in err and err.count("error: ") == 1 and "Traceback" not in err
    assert nothing_was_written()


@pytest.mark.parametrize("name", ["index.json", WEIGHTS])
def test_https_does_not_lead_to_http(secure: Server, server: Server, name: str) -> None:
    """Though the plain server has the right bytes."""
    place = name if name == "index.json" else f"tiny/1.1.0/{name}"
    secure.faults[name] = f"to {server.url}/{place}"
    is_refused(f"Redirection to url '{server.url}/{place}' is not allowed")
    assert server.asked == []


def test_a_certificate_that_nobody_signed(secure: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(make_certificate(tmp_path / "another.pem")))
    http_client._tls.cache_clear()
    is_refused("certificate verify failed")
    assert secure.asked == []

"""Which folders `zoo site` writes into, and which zoos it shows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner
from zoo_server import Server, change_index, environment, published, release, server

from miniwin.commands import zoo_site
from miniwin.specs import UserError
from miniwin.zoo import ZooError
from miniwin.zoo.adding_sources import add_checked
from miniwin.zoo.site import build

__all__ = ["environment", "published", "server"]  # fixtures

app = typer.Typer()
app.command()(zoo_site.site)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """No index: the two models of the package."""
    monkeypatch.delenv("MINIWIN_ZOO_INDEX")


def refused(folder: Path, message: str) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} if folder.is_dir() else None
    with pytest.raises(ZooError, match=message):
        build(folder)
    if before is not None:
        assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_with_other_things_is_refused(tmp_path: Path, own: None) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for n in range(5):
        (other / f"{n}.txt").write_text("mine")
    refused(other, r"other is no site of miniwin \(0\.txt, 1\.txt, 2\.txt and 2 more\), and a site is replaced")
    (other / "site.json").write_text('{"kind": "something else", "files": ["0.txt"]}')
    refused(other, "has files that are not of the site")
    (other / "site.json").write_text("[")
    refused(other, "has files that are not of the site")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "is a file; expected a folder")
    refused(tmp_path / "file" / "site", r"file is a file, so there can be no folder in it")


def test_a_site_with_files_of_others_is_refused(tmp_path: Path, own: None) -> None:
    site = build(tmp_path / "site").folder
    (site / "CNAME").write_text("example.org")
    refused(site, r"has files that are not of the site \(CNAME\)")
    (site / "CNAME").unlink()
    (site / "index.html").write_text("changed")
    build(site)
    assert (site / "index.html").read_text() != "changed"


def test_the_current_folder_and_those_around_it_are_refused(
    tmp_path: Path, own: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "deep")
    for folder in (".", "..", str(tmp_path / "here"), "/"):
        with pytest.raises(ZooError, match="is the folder that you are in, or one around it"):
            build(folder)
    assert build("site").folder == tmp_path / "here" / "deep" / "site"


def test_an_empty_folder_and_a_link_to_one_are_filled(tmp_path: Path, own: None) -> None:
    (tmp_path / "real").mkdir()
    os.symlink(tmp_path / "real", tmp_path / "link")
    for _ in range(2):
        assert build(tmp_path / "link").folder == tmp_path / "real"
        assert (tmp_path / "link").is_symlink() and "index.html" in files(tmp_path / "real")


def test_pages_of_models_that_are_gone_go(tmp_path: Path, server: Server) -> None:
    site = build(tmp_path / "site").folder
    assert "tiny-1.1.0.html" in files(site)
    build(site, "built-in")
    assert files(site) == ["index.html", "miniwin-1m-1.0.0.html", "miniwin-tasks-1.0.0.html", "site.json"]


def test_models_of_elsewhere_are_read_without_their_weights(tmp_path: Path, server: Server) -> None:
    add_checked("lab", server.url, None)
    done = CliRunner().invoke(app, [str(tmp_path / "site"), "--source", "lab"])
    assert done.exit_code == 0 and "reading lab/tiny@1.0.0" in done.stderr and "(1 model, 2 versions)" in done.stdout
    assert server.ranges("model.safetensors") == [] and len(server.ranges("README.md")) == 2
    page = (tmp_path / "site" / "tiny-1.1.0.html").read_text(encoding="utf-8")
    assert "miniwin.load(&quot;lab/tiny@1.1.0&quot;)" in page and f"zoo source add lab {server.url}" in page
    assert str(tmp_path) not in page
    before = {path.name: path.read_bytes() for path in (tmp_path / "site").iterdir()}
    asked = len(server.asked)
    build(tmp_path / "site", "lab")
    assert {name for name, _ in server.asked[asked:]} <= {"index.json", "served"}  # the rest was kept
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "site").iterdir()}


def test_the_page_of_another_release_than_the_index_says_is_not_written(tmp_path: Path, server: Server) -> None:
    change_index(server, lambda data: release(data).update(digest="0" * 64))
    done = build(tmp_path / "site", "index")
    assert len(done.problems) == 1 and "tiny@1.1.0: the index lists it with digest 000000000000..." in done.problems[0]
    assert files(tmp_path / "site") == ["index.html", "site.json", "tiny-1.0.0.html"]


def test_a_site_is_not_replaced_by_half_of_it(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    site = build(tmp_path / "site").folder
    before = files(site)
    (tmp_path / "cache" / "cards").rename(tmp_path / "cache" / "gone")
    server.faults["README.md"] = lambda request: iter(())  # the connection ends at once
    with pytest.raises(UserError, match=r"would be missing: tiny@1\.0\.0 was not pulled: no source gave README\.md"):
        build(site)
    server.close()
    with pytest.raises(UserError, match=r"was not written, since models would be missing: .*--source NAME"):
        build(site)
    assert files(site) == before and "tiny-1.1.0.html" in before
    build(site, "built-in")  # no other index is asked
    monkeypatch.setenv("MINIWIN_OFFLINE", "1")
    assert "tiny-1.1.0.html" not in files(build(site).folder)

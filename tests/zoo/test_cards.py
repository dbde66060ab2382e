"""Cards with markup, tags and escapes: refused when an entry is added, published, pulled and verified."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from zoo_runs import METRICS, make_run
from zoo_server import Server, environment, nothing_was_written, published, server

from miniwin.files.hashing import sha256_file
from miniwin.zoo import ZooError, add, write_index
from miniwin.zoo.card_check import card_problems
from miniwin.zoo.entry import FileRecord, read_manifest, write_manifest
from miniwin.zoo.publishing.publish import publish
from miniwin.zoo.pull import pull

__all__ = ["environment", "published", "server"]  # fixtures

FRONT = "---\nlicense: mit\n---\n"


@pytest.mark.parametrize(
    ("card", "problem"),
    [
        ("---\nlicense: !!python/object/apply:os.system [id]\n---\n", "tag"),
        ("---\nlicense: mit\nlicense: mit\n---\n", "license"),
        ("---\n- a\n---\n", "front matter is not a mapping"),
        ("---\nlicense: gpl-3.0\n---\n", "front matter gives the licence 'gpl-3.0', entry.json gives 'mit'"),
        (FRONT + "a\n<script>alert(1)</script>", "line 5 holds markup (<script)"),
        (FRONT + "<img src=x onerror=alert(1)>", "line 4 holds markup (<img)"),
        (FRONT + "<!-- comment -->", "holds markup"),
        (FRONT + "[here](javascript:alert(1))", "holds a link that runs"),
        (FRONT + "[here]: JavaScript:alert(1)", "holds a link that runs"),
        (FRONT + "[here](data:text/html,x)", "holds a link that runs"),
        (FRONT + "\\`<b>\\`", "holds markup"),
        (FRONT + "``` a`b\n<b>\n```\n", "holds markup"),
        (FRONT + "````\n```\n````\n<b>\n", "holds markup"),
        (FRONT + "red \x1b[31m", "line 4 holds characters that a terminal would obey: red \\x1b[31m"),
        (FRONT + "\u202egnp.exe", "holds characters that a terminal would obey"),
        (FRONT.replace("mit", "mit\x00"), "holds characters that a terminal would obey"),
        ("a" * (1 << 20), "is longer than"),
    ],
)
def test_what_a_card_may_not_hold(card: str, problem: str) -> None:
    (found,) = card_problems(card.encode(), "mit")
    assert problem in found and "\x1b" not in found and "\n" not in found


def test_what_a_card_may_hold() -> None:
    text = (
        "5 < 6 and a <3 `<b>` <https://example.org> [x](https://example.org)\n```\n<script>\n```\n~~~ html\n<b>\n~~~\n"
    )
    assert card_problems((FRONT + text).encode(), "mit") == [] == card_problems(text.encode(), "mit")
    assert "is not UTF-8" in card_problems(b"\xff", "mit")[0]


def test_no_card_takes_long() -> None:
    began = time.process_time()
    runs = " ".join("`" * n for n in range(1, 400))
    for text in (
        runs,
        "`" * 100_000,
        "<" * 200_000,
        "```\n" * 50_000,
        "[](" * 60_000,
        "---\n" * 50_000,
        "] (" * 60_000,
    ):
        card_problems((FRONT + text).encode(), "mit")
    assert time.process_time() - began < 60, "a hang, and no measure of speed"


def with_card(folder: Path, text: str) -> None:
    """The entry in a folder gets another card, and says so."""
    path = folder / "README.md"
    path.chmod(0o644)
    (folder / "entry.json").chmod(0o644)
    path.write_text(text, encoding="utf-8")
    manifest = read_manifest(folder)
    record = FileRecord(size=path.stat().st_size, sha256=sha256_file(path))
    manifest = manifest.model_copy(update={"files": {**manifest.files, "README.md": record}})
    (folder / "entry.json").write_text(write_manifest(manifest), encoding="utf-8")


def test_such_an_entry_goes_nowhere(server: Server, tmp_path: Path) -> None:
    folder = server.folder / "tiny" / "1.1.0"
    with_card(folder, "---\nlicense: !!python/name:os.system\n---\n")
    write_index(server.folder)
    with pytest.raises(ZooError, match=r"tiny@1\.1\.0 was not pulled: README\.md: .*tag"):
        pull("tiny")
    assert nothing_was_written()
    with pytest.raises(ZooError, match=r"tiny@1\.1\.0 was not published: README\.md: .*tag"):
        publish(folder, str(tmp_path / "site"), logits=False)
    with pytest.raises(ZooError, match=r"evil was not added: its card line \d+ holds markup \(<b\)"):
        add(make_run(tmp_path / "run"), name="evil", metrics=METRICS, description="It is <b>good</b>.")
    assert nothing_was_written() and not (tmp_path / "site").exists()
    assert json.loads((server.folder / "index.json").read_text(encoding="utf-8"))["releases"]

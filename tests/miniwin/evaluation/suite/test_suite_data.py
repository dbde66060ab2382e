"""The text that a suite names itself: mistakes are said at their place in its file, by eval and by check."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import run_cli

HEAD = "kind: suite\nformat: 1\nname: mine\nlengths: [16]\n"
TEXT = "loss: {documents: 4, data: {source: text, paths: [a.txt]}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.txt").write_text("some text. " * 400)
    (tmp_path / "wide.txt").write_bytes("some text".encode("utf-16"))
    return tmp_path


def refused(here: Path, suite: str, *command: str) -> str:
    (here / "mine.yaml").write_text(HEAD + suite)
    code, out, err = run_cli(*command)
    assert code == 2 and not out and "Traceback" not in err, err
    assert not list(here.glob("*mine/"))
    return err


EVAL = ("eval", "miniwin-tiny", "--suite", "mine.yaml", "--quiet")
BOTH = [pytest.param(EVAL, id="eval"), pytest.param(("check", "mine.yaml"), id="check")]
GONE = "no such file or folder: 'gone.txt' (looked for "


@pytest.mark.parametrize("command", BOTH)
@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ("loss: {data: {source: text, paths: [gone.txt]}}\n", f"mine.yaml:5:36: loss.data.paths: {GONE}"),
        (
            "loss:\n  data:\n    source: text\n    paths: [a.txt]\n    test_paths: [gone.txt]\n",
            f"mine.yaml:9:17: loss.data.test_paths: {GONE}",
        ),
        (
            "loss:\n  data:\n    source: mixture\n    parts:\n      - {weight: 1, data: {source: python-stdlib}}\n"
            "      - {weight: 1, data: {source: text, paths: [gone.txt]}}\n",
            f"mine.yaml:10:49: loss.data.parts.1.data.paths: {GONE}",
        ),
        ("loss: {data: {source: text, paths: [wide.txt]}}\n", "mine.yaml:5:36: loss.data.paths: "),
        (
            "loss: {data: {source: examples, task: {type: recall}}}\n",
            "mine.yaml:5:23: loss.data.source: got examples, which has no text to measure bits per byte on; expected",
        ),
    ],
)
def test_a_mistake_in_the_data_has_its_place(here: Path, command: tuple[str, ...], suite: str, message: str) -> None:
    err = refused(here, suite, *command)
    assert err.startswith(f"error: {message}"), err


def test_a_split_that_the_data_lacks_has_its_place(here: Path) -> None:
    suite = f"{TEXT}, split: test}}\nshift: {{shifts: [1], length: 16}}\n"
    assert refused(here, suite, *EVAL) == (
        "error: mine.yaml:5:67: loss.split: got test, and loss.data keeps none back; set its test_fraction or "
        "test_paths, or take another split\n"
    )
    assert run_cli("check", "mine.yaml")[0] == 0

"""Consoles that cannot write every character, input that is no text, and warnings: a line each, and no traceback."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from tiny import run_cli, spec
from zoo_runs import make_run

from miniwin.cli import main
from miniwin.display.console import any_console
from miniwin.search.worker import MISTAKE
from miniwin.search.worker import main as worker
from miniwin.specs import dump_yaml


def run_on(monkeypatch: pytest.MonkeyPatch, encoding: str, *arguments: str) -> tuple[int, bytes, bytes]:
    """A command on a strict console of an encoding."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2)]
    monkeypatch.setattr("sys.stdout", streams[0])
    monkeypatch.setattr("sys.stderr", streams[1])
    monkeypatch.setattr("sys.argv", ["miniwin", *arguments])
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    for stream in streams:
        stream.flush()
    out, err = (stream.buffer.getvalue() for stream in streams)  # type: ignore[attr-defined]
    return code, out, err


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "модель.yaml"
    path.write_text(dump_yaml(spec()))
    return str(path)


@pytest.mark.parametrize("encoding", ["cp1252", "cp850"])
def test_a_console_of_another_code_page(monkeypatch: pytest.MonkeyPatch, model: str, encoding: str) -> None:
    for extra in ([], ["--no-stream"]):
        code, out, err = run_on(monkeypatch, encoding, "generate", model, "-p", "caf\u00e9 \u6f22", "-n", "9", *extra)
        assert code == 0 and b"Traceback" not in err
        assert out.startswith("caf\u00e9 ".encode(encoding, "backslashreplace") + b"\\u6f22")
        assert rb"\u043c\u043e\u0434\u0435\u043b\u044c.yaml (random weights)" in err
    code, out, _ = run_on(monkeypatch, encoding, "check", model)
    assert code == 0 and rb"\u043c" in out
    code, out, err = run_on(monkeypatch, encoding, "explain", model + "x")
    assert code == 2 and err.startswith(b"error: ") and rb"\u043c" in err


def test_a_strict_console_of_utf8(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A name of a file whose bytes are no text."""
    monkeypatch.chdir(tmp_path)
    name = "m\udcff.yaml"
    try:
        Path(name).write_text(dump_yaml(spec()))
    except OSError:
        pytest.skip("this file system has no such names")
    code, out, err = run_on(monkeypatch, "utf-8", "check", name)
    assert code == 0 and rb"m\udcff.yaml" in out and not err
    code, _, err = run_on(monkeypatch, "utf-8", "generate", name, "-n", "1")
    assert code == 0 and rb"m\udcff.yaml (random weights): " in err  # 0 or 1 tokens: the first may end the document


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "caf\udce9!"], "error: --prompt: byte 0xe9 at character 4 is not text; give it in UTF-8\n"),
        (["-p", "\ud800"], "error: --prompt: half a surrogate pair at character 1 is not text; give it in UTF-8\n"),
        (["--stop", "\udcff"], "error: --stop: byte 0xff at character 1 is not text; give it in UTF-8\n"),
    ],
)
def test_a_prompt_that_is_no_text(model: str, arguments: list[str], message: str) -> None:
    assert run_cli("generate", model, *arguments) == (2, "", message)


def test_a_prompt_from_standard_input(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    def given(raw: bytes, errors: str = "strict") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8", errors=errors))
        return run_cli("generate", model, "-n", "1", "-p", "-")

    code, out, _ = given("\ufeffcaf\u00e9".encode())
    assert code == 0 and out.startswith("caf\u00e9"), "without the byte order mark"
    code, _, err = given(b"caf\xe9!")
    assert code == 2 and err == (
        "error: --prompt -: byte 0xe9 of standard input is not utf-8; give it in that encoding\n"
    )
    code, _, err = given(b"caf\xe9!", "surrogateescape")  # as in the locale C
    assert code == 2 and "--prompt -: byte 0xe9 at character 4 is not text" in err


def test_a_description_that_is_no_text(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    arguments = ("zoo", "add", str(tmp_path / "run"), "--name", "a", "--no-evaluate", "--zoo", str(tmp_path / "zoo"))
    code, _, err = run_cli(*arguments, "--description", "caf\udce9")
    assert code == 2 and err.startswith("error: --description: byte 0xe9 at character 4 is not text")
    assert not (tmp_path / "zoo").exists()
    code, _, err = run_cli("search", "promote", "any", "--name", "a", "--description", "caf\udce9")
    assert code == 2 and err.startswith("error: --description: byte 0xe9 at character 4 is not text")


def test_a_worker_on_a_strict_console(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert worker([str(tmp_path / "\u6f22")]) == MISTAKE
    stream.flush()
    assert rb"\u6f22': expected a study's name or folder" in stream.buffer.getvalue()  # type: ignore[attr-defined]


def test_warnings_are_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    before = warnings.formatwarning
    with any_console():
        assert warnings.formatwarning("old \x1b[0m", UserWarning, "a.py", 3) == "warning: old \\x1b[0m\n"
        said = warnings.formatwarning("older", FutureWarning, "a.py", 3)
        assert said == "warning (FutureWarning, a.py:3): older\n"
    assert warnings.formatwarning is before


def test_as_a_process_of_its_own(model: str) -> None:
    """What a shell gives: bytes in the arguments, and a console that Python thinks is cp1252."""
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252:strict"}
    command = [sys.executable, "-m", "miniwin", "check", os.fsencode(model), b"m\xff.yaml"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=120)
    assert done.returncode == 2 and b"Traceback" not in done.stderr
    assert rb"\u043c" in done.stdout and rb"m\udcff.yaml: there is no such file" in done.stderr

"""No command passes control characters of somebody else's file, model or index on to a terminal."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from scripted import scripted
from typer.testing import CliRunner, Result
from zoo_runs import METRICS, make_run, tiny_spec

from miniwin.blocks.messages.escaping import escaped, escaped_line
from miniwin.cli import app
from miniwin.files.hashing import sha256_file
from miniwin.specs import UserError
from miniwin.zoo import Entry, add, resolve, user_zoo, write_index
from miniwin.zoo.entry import CARD, MANIFEST, FileRecord, read_manifest, write_manifest

TITLE = "\x1b]0;owned\x07"  # renames the window of a terminal
HOSTILE = f"a{TITLE}\x9b31m\x7f\u202e\u2066b"
SPELT = "a\\x1b]0;owned\\x07\\x9b31m\\x7f\\u202e\\u2066b"


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "zoo"))
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    for name in ("MINIWIN_ZOO_INDEX", "MINIWIN_ZOO_MIRROR", "MINIWIN_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    return add(make_run(tmp_path / "run"), name="tiny", metrics=METRICS)


def run(*arguments: str) -> Result:
    """Run a command, whose whole output must hold nothing that a terminal would obey."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, (UserError, SystemExit))
    said = result.output + ("" if result.exception is None else str(result.exception))
    assert not [character for character in said if character not in "\n\t" and escaped(character) != character]
    return result


def rewrite(entry: Entry, **changes: Any) -> None:
    """Write another manifest, and its digest."""
    path = entry.folder / MANIFEST
    path.chmod(0o644)
    manifest = read_manifest(entry.folder).model_copy(update=changes)
    path.write_text(write_manifest(manifest), encoding="utf-8")


def test_what_is_spelt_out() -> None:
    assert escaped(HOSTILE) == SPELT
    assert escaped("ä 日本 😀\n\tb\r\0") == "ä 日本 😀\n\tb\\r\\x00"
    assert escaped_line("a\nok\tb\x1b") == "a\\nok\\tb\\x1b"
    assert escaped(b"caf\xe9".decode("utf-8", "surrogateescape")) == "caf\\udce9"  # a file's name
    assert str(UserError(f"x: {HOSTILE}")) == f"x: {SPELT}"


def test_a_manifest_cannot_speak_to_the_terminal(entry: Entry) -> None:
    rewrite(entry, layout=f"{HOSTILE}[/b]\nevil@1.0.0")
    shown = run("zoo", "list").stdout
    assert f"{SPELT}[/b]\\nevil@1.0.0" in shown  # on one line, and no markup of rich
    assert SPELT in run("zoo", "verify", "tiny").output


def test_a_card_cannot_speak_to_the_terminal(entry: Entry) -> None:
    card = entry.folder / CARD
    card.chmod(0o644)
    card.write_text(f"# tiny\n\n{HOSTILE}\tx\n", encoding="utf-8")
    record = FileRecord(size=card.stat().st_size, sha256=sha256_file(card))
    rewrite(entry, files=read_manifest(entry.folder).files | {CARD: record})
    assert f"# tiny\n\n{SPELT}\tx\n" in run("zoo", "show", "tiny").stdout


@pytest.mark.parametrize("status", ["active", "deprecated", "yanked"])
def test_an_index_cannot_speak_to_the_terminal(
    entry: Entry, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = write_index(user_zoo())
    data = json.loads(index.read_text(encoding="utf-8"))
    reason = f"{HOSTILE}\ntiny@1.0.0: ok"
    data["releases"][0] |= {"layout": HOSTILE, "description": HOSTILE, "status": status, "reason": reason}
    index.write_text(json.dumps(data), encoding="utf-8")
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", str(index))
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "other"))
    shown = run("zoo", "list", "--remote")
    assert SPELT in shown.stdout and f"{SPELT}\\ntiny@1.0.0: ok" in shown.stderr
    if status == "yanked":
        assert f"{SPELT}\\ntiny@1.0.0: ok" in str(run("zoo", "pull", "tiny").exception)
    if status != "active":
        with pytest.warns(UserWarning) as warned:
            resolve("tiny@1.0.0")
        assert f"{SPELT}\\ntiny@1.0.0: ok" in str(warned[0].message)
    data["releases"][0][HOSTILE] = 1
    index.write_text(json.dumps(data), encoding="utf-8")
    assert SPELT in run("zoo", "list", "--remote").stderr


def test_a_run_cannot_speak_to_the_terminal(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", status="diverged", reason=HOSTILE)
    assert SPELT in str(run("zoo", "add", str(folder), "--name", "tiny", "--no-evaluate").exception)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("option", [(), ("--no-stream",)])
@pytest.mark.parametrize("stdout", [Terminal, io.StringIO])
def test_a_model_cannot_speak_to_the_terminal(
    stdout: type[io.StringIO], option: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal the model's text is spelt out; in a file or a pipe it is unchanged."""
    from miniwin.commands.generate import generate_command

    text, prompt = f"{HOSTILE}\r\n\tend", "p\x1b"
    monkeypatch.setattr("miniwin.loading.load", lambda ref, device: scripted(text, prompt))
    screen = stdout()
    monkeypatch.setattr(sys, "stdout", screen)
    settings: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "stop": None, "seed": 0, "device": "cpu"}
    settings |= {"quantize": None, "cache_dtype": None, "load_session": None, "save_session": None}
    size = len(text.encode())
    generate_command("x", prompt, max_new_tokens=size, temperature=0.0, no_stream=bool(option), **settings)
    written = prompt + text + "\n"
    assert screen.getvalue() == (escaped(written) if stdout is Terminal else written)
    assert ("\x1b" in screen.getvalue()) == (stdout is io.StringIO)


def test_an_import_cannot_speak_to_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": HOSTILE}), encoding="utf-8")
    save_file({HOSTILE: torch.zeros(1)}, tmp_path / "model.safetensors")
    assert "owned" in str(run("import", str(tmp_path), "--to", str(tmp_path / "to")).exception)

    said: dict[str, Any] = {"source": "x", "model_type": HOSTILE, "said": {HOSTILE: HOSTILE}, "inferred": {}}
    said |= {"converted": {}, "dtype": "float32", "tokenizer": None, "ignored": [f"{HOSTILE}\n"], "licence": HOSTILE}
    made = SimpleNamespace(notes=[HOSTILE], spec=tiny_spec(), record=said, folder=tmp_path / "to")
    monkeypatch.setattr("miniwin.zoo.importing.import_model", lambda *_, **__: made)
    shown = run("import", "x", "--to", "y")
    assert f"note: {SPELT}" in shown.stderr and f"left out     {SPELT}\\n" in shown.stdout


def test_an_evaluation_cannot_speak_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from miniwin.commands import evaluate
    from miniwin.evaluation.result import Metrics

    known: dict[str, Any] = METRICS | {"model": HOSTILE, "data": {"source": f"{HOSTILE}\n"}}
    for key in ("bits_per_byte", "loss", "recall", "cache_bytes"):
        known[key] = {32: 1.0}
    evaluate._print(Metrics(**known))
    assert f"{SPELT}: 1 parameters, 4,096 validation tokens of {SPELT}\\n" in capsys.readouterr().out

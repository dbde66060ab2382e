"""The command line as a user meets it: exit codes and what it prints.

It runs in this process where a new one would show nothing more. A mistake is told in one by test_spec_errors.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from processes import miniwin, miniwin_without_torch
from tiny import run_cli

from miniwin.specs import load_model_spec, load_search_spec, load_train_spec


def test_help_names_every_command() -> None:
    shown = miniwin("--help").stdout
    for command in ("check", "explain", "schema", "train", "eval", "generate", "search", "zoo", "demo"):
        assert command in shown


def test_the_version() -> None:
    from miniwin import __version__

    assert miniwin("--version").stdout == f"miniwin {__version__}\n"


WITHOUT_TORCH = [
    ("check", "miniwin-1m", "tiny", "period-window-ratio"),
    ("check", "minimind-1m", "miniwin-tiny"),
    ("schema", "model"),
    ("zoo", "list"),
    ("zoo", "list", "--json"),
    ("zoo", "show", "miniwin-1m"),
]


def test_what_only_describes_does_not_import_torch() -> None:
    answers, loaded = miniwin_without_torch(*WITHOUT_TORCH)
    for code, out, err in answers:
        assert code == 0 and out, err
    assert "miniwin.blocks.attention" in loaded and "torch" not in loaded
    for name in WITHOUT_TORCH[1][1:]:
        spec = load_model_spec(name)
        assert f"model {name}, {spec.layout}, {spec.parameters():,} parameters" in answers[1][1]


def test_check_reports_every_file_and_fails_if_one_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("kind: modle\n", encoding="utf-8")
    code, out, err = run_cli("check", str(wrong), "miniwin-1m")
    assert (code, err) == (2, f"error: {wrong}:1:7: kind: got 'modle'; did you mean 'model'?\n")
    assert "ok: " in out


def test_explain_prints_the_table_and_the_json() -> None:
    code, out, err = run_cli("explain", "miniwin-1m")
    assert code == 0, err
    spec = load_model_spec("miniwin-1m")
    for text in (
        "cache @4k",
        "cache @128k",
        "cache @1M",
        f"equal to the built model's {spec.parameters():,}",
        spec.hash,
    ):
        assert text in out
    facts = json.loads(run_cli("explain", "miniwin-1m", "--json", "--length", "1000", "--dtype", "bfloat16")[1])
    assert facts["cache_bytes"] == {"1000": spec.cache_bytes(1000, "bfloat16")}
    layers = sum(layer["parameters"] for layer in facts["layers"])
    assert layers + facts["embedding_parameters"] + 128 == facts["parameters"]


@pytest.mark.parametrize(
    "command, message",
    [
        (("explain", "miniwin-1m", "--dtype", "float8"), "--dtype: got 'float8'; expected one of float32, bfloat16"),
        (("explain", "miniwin-1m", "--length", "0"), "--length: got 0; expected at least 1"),
        (("schema", "modle"), "unknown kind of spec 'modle'"),
        (("generate", "nosuch", "--prompt", "x"), "nosuch: no such file or folder, zoo entry or shipped spec"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(command: tuple[str, ...], message: str) -> None:
    code, out, err = run_cli(*command)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and message in err and "Traceback" not in err


def test_shipped_specs_of_every_kind_load_by_name() -> None:
    assert load_model_spec("miniwin-1m").name == "miniwin-1m"
    assert load_train_spec("demo").name == "demo"
    assert load_search_spec("demo").name == "demo"


@pytest.mark.parametrize(
    "error, said",
    [
        (MemoryError(), "not enough memory; a smaller"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has"),
            "2.50 GiB were asked for",
        ),
    ],
)
def test_an_allocation_that_fails_is_one_line(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("miniwin.training.launch.train", fail)
    code, _, err = run_cli("train", "miniwin-tiny", "--train", "demo", "--out", str(tmp_path / "run"))
    assert code == 2 and err.startswith("error: not enough memory") and said in err and err.count("\n") == 1


def test_what_torch_says_of_an_allocation_that_fails_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)  # more than any machine has

    monkeypatch.setattr("miniwin.training.launch.train", fail)
    code, _, err = run_cli("train", "miniwin-tiny", "--train", "demo")
    assert code == 2
    assert (
        err.splitlines()[-1]
        == "error: not enough memory: 1,073,741,824.0 GiB were asked for at once; a smaller batch_size, seq_len "
        "or length needs less"
    )


def test_another_error_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("miniwin.training.launch.train", fail)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        run_cli("train", "miniwin-tiny", "--train", "demo")

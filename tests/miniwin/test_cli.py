"""The command line as a user meets it: real processes, their exit codes and what they print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import miniwin

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
    ("schema", "model"),
    ("zoo", "list"),
    ("zoo", "list", "--json"),
    ("zoo", "show", "miniwin-1m"),
]


@pytest.mark.parametrize("command", WITHOUT_TORCH)
def test_what_only_describes_does_not_import_torch(command: tuple[str, ...]) -> None:
    done = miniwin(*command, options=("-X", "importtime"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "miniwin.blocks.attention" in done.stderr, "importtime lists what was imported"
    assert "torch._C" not in done.stderr


def test_check_without_torch_says_what_torch_says() -> None:
    done = miniwin("check", "minimind-1m", "miniwin-tiny")
    for name in ("minimind-1m", "miniwin-tiny"):
        spec = load_model_spec(name)
        assert f"model {name}, {spec.layout}, {spec.parameters():,} parameters" in done.stdout


def test_check_reports_every_file_and_fails_if_one_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("kind: modle\n", encoding="utf-8")
    done = miniwin("check", str(wrong), "miniwin-1m")
    assert done.returncode == 2
    assert done.stderr == f"error: {wrong}:1:7: kind: got 'modle'; did you mean 'model'?\n"
    assert "ok: " in done.stdout


def test_explain_prints_the_table_and_the_json() -> None:
    done = miniwin("explain", "miniwin-1m")
    assert done.returncode == 0, done.stderr
    spec = load_model_spec("miniwin-1m")
    for text in (
        "cache @4k",
        "cache @128k",
        "cache @1M",
        f"equal to the built model's {spec.parameters():,}",
        spec.hash,
    ):
        assert text in done.stdout
    facts = json.loads(miniwin("explain", "miniwin-1m", "--json", "--length", "1000", "--dtype", "bfloat16").stdout)
    assert facts["cache_bytes"] == {"1000": spec.cache_bytes(1000, "bfloat16")}
    assert (
        sum(layer["parameters"] for layer in facts["layers"]) + facts["embedding_parameters"] + 128
        == (facts["parameters"])
    )


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
    done = miniwin(*command)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_shipped_specs_of_every_kind_load_by_name() -> None:
    assert load_model_spec("miniwin-1m").name == "miniwin-1m"
    assert load_train_spec("demo").name == "demo"
    assert load_search_spec("demo").name == "demo"

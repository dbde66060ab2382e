"""Broken specs: one clear message for each mistake, with file, line, column and field; exit code 2 and no traceback.

tests/fixtures/broken holds a file for each mistake. Its last lines say what is expected, one for each mistake:
`# expected: LINE:COLUMN: message`. An ending of ` ...` means that the message goes on.
"""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from paths import FIXTURES
from search_helpers import SEARCH
from tiny import TINY

from miniwin.specs import Strict, UserError, load_spec, parse_spec, shipped_specs
from miniwin.specs.validation_errors import explain

BROKEN = FIXTURES / "broken"
FILES = sorted(BROKEN.glob("*.yaml"))

TINY_FILE = shipped_specs("model")["miniwin-tiny"]

# What issue 2 asks for by name; a folder instead of a file is the tenth.
TEN_KINDS = [
    "typo-in-field",
    "wrong-type",
    "unknown-letter",
    "period-below-window",
    "heads-not-divisible",
    "empty-pattern",
    "cyclic-alias",
    "python-tag",
    "alias-bomb",
]


def expected(path: Path) -> list[str]:
    return re.findall(r"^# expected: (.*)$", path.read_text(), re.MULTILINE)


def same(line: str, wanted: str) -> bool:
    return line.startswith(wanted.removesuffix(" ...")) if wanted.endswith(" ...") else line == wanted


def refused(path: Path, **how: Any) -> str:
    with pytest.raises(UserError) as error:
        load_spec(path, **how)
    return str(error.value)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_mistake_is_one_message(path: Path) -> None:
    lines, wanted = refused(path).split("\n"), expected(path)
    assert wanted and len(lines) == len(wanted), lines
    for line, want in zip(lines, wanted, strict=True):
        assert same(line, f"{path}:{want}"), f"{line}\n  expected\n{path}:{want}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_was_got_stands_where_the_message_points(path: Path) -> None:
    """Independent of how places are found: the text at line and column is what the message quotes as wrong."""
    text = path.read_text().split("\n")
    for wanted in expected(path):
        line, column, _, rest = re.match(r"(\d+):(\d+): (?:([\w., ]+): )?(.*)", wanted).groups()  # type: ignore[union-attr]
        here = text[int(line) - 1][int(column) - 1 :]
        assert here.strip(), f"{wanted}: nothing stands there"
        quoted = re.match(r"(?:got|unknown field|unknown \w+|got the name) '([^']+)'|got (-?[\d.]+|true);", rest)
        if quoted and path.stem not in ("kind-missing", "name-octal", "format-missing"):
            assert here.lstrip("\"'").startswith(next(filter(None, quoted.groups()))), wanted


def test_the_ten_kinds_are_there() -> None:
    assert set(TEN_KINDS) <= {path.stem for path in FILES}


# -- the command line


def run_main(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[Any, str]:
    """Exit code and stderr of the console script's own entry point, in this process."""
    from miniwin.cli import main

    monkeypatch.setattr(sys, "argv", ["miniwin", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize("kind", TEN_KINDS)
@pytest.mark.parametrize("command", ["check", "explain"])
def test_commands_end_with_code_2_and_the_message(
    kind: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = BROKEN / f"{kind}.yaml"
    code, said = run_main([command, str(path)], monkeypatch, capsys)
    assert code == 2 and "Traceback" not in said
    assert said == f"error: {refused(path)}\n"


@pytest.mark.parametrize("command", ["check", "explain"])
def test_a_folder_ends_with_code_2(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run_main([command, str(tmp_path)], monkeypatch, capsys)
    assert code == 2 and said.startswith(f"error: {tmp_path}") and said.count("\n") == 1
    if command == "check":
        assert said == f"error: {tmp_path}: this is a folder; expected a YAML file\n"


def test_the_command_as_a_real_process(tmp_path: Path) -> None:
    """All broken files, a folder, and all good ones: as in a shell, where `check` does without PyTorch."""
    good = list(shipped_specs().values())
    command = [sys.executable, "-m", "miniwin", "check", *map(str, [*FILES, tmp_path, *good])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    for path in FILES:
        for want in expected(path):
            assert f"{path}:{want.removesuffix(' ...')}" in done.stderr
    assert f"error: {tmp_path}: this is a folder" in done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(good)
    for path, line in zip(good, lines, strict=True):
        assert line.startswith(f"ok: {path}: ")
    spec = load_spec(TINY_FILE)
    assert f"ok: {TINY_FILE}: model miniwin-tiny, {spec.layout}, {spec.parameters():,} parameters" in lines


# -- overrides


@pytest.mark.parametrize(
    "override, message",
    [
        ("blocks.S.attention.windw=16", "blocks.S.attention.windw: unknown field 'windw'; did you mean 'window'?"),
        ("blocks.S.attention.window=wide", "blocks.S.attention.window: got 'wide'; expected a whole number"),
        ("hidden_size=64.5", "hidden_size: got 64.5; expected a whole number"),
        ("last=X", "last: got 'X'; no block is called so (blocks: G, S)"),
        (
            "blocks.G.attention.position={type: nop}",
            "blocks.G.attention.position.type: unknown type 'nop'; did you mean 'nope'?",
        ),
        (
            "name=My model",
            "name: got 'My model'; expected small letters, digits and . _ -, beginning with a letter or a digit",
        ),
        ("kind=train", "kind: got 'train'; expected 'model'"),
        ("block.S.attention.window=16", "there is no 'block' in the spec; did you mean 'blocks'?"),
        ("blocks.X.attention.window=16", "there is no 'X' in blocks; it has: S, G, attention, mlp, norm"),
        ("blocks.S.atention.window=16", "there is no 'atention' in blocks.S; did you mean 'attention'?"),
        ("hidden_size.x=3", "'hidden_size' is 64; expected a mapping that has a 'x'"),
        (
            "layer.num_heads=2",
            "there is no 'layer' in the spec; it is already merged into the blocks: set the field in each block",
        ),
        ("blocks.S.attention.window=[16", "not valid YAML: did not find expected ',' or ']'"),
        (
            "blocks.S.attention.window=!!python/name:x y",
            "the tag !!python/name:x is not allowed; a spec is made of plain values",
        ),
        ("blocks.S.attention.window={a: 1, a: 2}", "'a' is given twice in the same mapping; remove one"),
        ("window", "expected field=value, such as blocks.S.attention.window=32"),
        ("=3", "expected field=value, such as blocks.S.attention.window=32"),
        ("blocks..S=3", "expected field=value, such as blocks.S.attention.window=32"),
        ("pattern=", "there is no value; expected one, such as pattern=32, or pattern=null"),
    ],
)
def test_a_wrong_override_is_blamed_on_the_option(override: str, message: str) -> None:
    said = refused(TINY_FILE, overrides=[override])
    assert said.startswith(f"--set {override}: {message}") and "\n" not in said


def test_a_mistake_in_the_file_is_not_blamed_on_the_option() -> None:
    path = BROKEN / "typo-in-field.yaml"
    assert refused(path, overrides=["num_layers=4"]) == f"{path}:{expected(path)[0]}"
    # The window fits no longer: the period, which does not fit it, is the file's.
    said = refused(TINY_FILE, overrides=["blocks.S.attention.window=65"])
    assert re.match(
        rf"{re.escape(str(TINY_FILE))}:\d+:\d+: blocks.S.attention.position.period: got period 64 with window 65", said
    )


# -- from Python


def test_plain_python_gives_the_field_without_a_place() -> None:
    data: dict[str, Any] = {
        "name": "x",
        "vocab_size": 256,
        "hidden_size": "big",
        "num_layers": 2,
        "pattern": "S",
        "block": {},
    }
    with pytest.raises(UserError) as error:
        parse_spec(data, "model")
    assert str(error.value).split("\n") == [
        "hidden_size: got 'big'; expected a whole number",
        "block: unknown field 'block'; did you mean 'blocks'?",
    ]


def test_strange_python_values_are_shown_shortly() -> None:
    for value in (10**5000, {1: 2, (3, 4): 5}, object(), "x" * 1000, b"bytes", [[1] * 1000]):
        with pytest.raises(UserError) as error:
            parse_spec({"name": value}, "model")
        assert all(len(line) < 200 for line in str(error.value).split("\n"))


def test_an_unknown_kind() -> None:
    with pytest.raises(UserError, match="unknown kind of spec 'modle': expected one of model, train, search"):
        parse_spec({}, "modle")


def test_many_mistakes_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(TINY_FILE.read_text() + "".join(f"unknown{number}: 1\n" for number in range(2000)))
    lines = refused(path).split("\n")
    assert len(lines) == 21 and lines[-1] == "... and 1980 more"


def test_a_validator_may_blame_several_fields_at_once() -> None:
    from pydantic import ValidationError, model_validator
    from pydantic_core import PydanticCustomError

    class Pair(Strict):
        a: int
        b: int | None = None

        @model_validator(mode="after")
        def _both(self) -> Pair:
            raise PydanticCustomError(
                "located", "{message}", {"message": "x", "all": [("a", "too odd"), ("b", "too even")]}
            )

    with pytest.raises(ValidationError) as error:
        Pair.model_validate({"a": 1})
    assert str(explain(error.value, {"a": 1}, Pair, None)) == "a: too odd\nb: too even"


def test_every_registered_choice_is_named() -> None:
    from miniwin.blocks import POSITIONS

    data = load_spec(TINY_FILE).model_dump(mode="json")
    data["blocks"]["G"]["attention"]["position"] = {"type": "nothing-like-it"}
    with pytest.raises(UserError, match=f"expected one of: {', '.join(POSITIONS.names())}$"):
        parse_spec(data, "model")


# -- null, and words that are meant as null


def nothing_refused(kind: str, path: str, value: Any) -> str:
    """The message for a value in a field of a small spec."""
    specs: dict[str, dict[str, Any]] = {
        "model": TINY,
        "train": {"kind": "train", "format": 1, "name": "t", "tokens": 1, "data": {"source": "text", "paths": ["a"]}},
        "search": {"kind": "search", "format": 1, **SEARCH},
    }
    data = copy.deepcopy(specs[kind])
    place, names = data, path.split(".")
    for name in names[:-1]:
        place = place.setdefault(name, {})
    place[names[-1]] = value
    with pytest.raises(UserError) as error:
        parse_spec(data, kind)
    return str(error.value)


@pytest.mark.parametrize("value", ["none", "None", "nil", "off", "undefined", False, float("inf")])
def test_a_word_for_nothing_names_null(value: object) -> None:
    got = f"got {'false' if value is False else '.inf' if value == float('inf') else repr(value)}"
    message = nothing_refused("model", "blocks.S.attention.window", value)
    assert message == f"blocks.S.attention.window: {got}; expected a whole number, or null: write null"
    # A field that may not be null says nothing of it.
    assert nothing_refused("model", "blocks.S.attention.num_heads", value).endswith("expected a whole number")


@pytest.mark.parametrize("value", ["~", "null", "Null"])
def test_null_in_quotes_says_so(value: str) -> None:
    message = nothing_refused("model", "blocks.S.attention.window", value)
    assert message.endswith(f"got '{value}'; expected a whole number, or null: remove the quotes")


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("model", "blocks.S.attention.qk_norm"),  # a block
        ("model", "blocks.S.attention.position.harmonics"),  # one of several things
        ("model", "logit_scale"),
        ("model", "last"),
        ("train", "data.split"),
        ("train", "data.valid_paths"),
        ("train", "clip_grad_norm"),
        ("train", "stop.loss_spike"),
        ("search", "pruner"),
        ("search", "baseline"),
        ("search", "report_lengths"),
        ("search", "budget.tokens_per_trial"),
    ],
)
def test_every_kind_of_field_that_may_be_null_names_it(kind: str, path: str) -> None:
    assert ", or null: write null" in nothing_refused(kind, path, "none")


def test_an_override_names_null_too() -> None:
    with pytest.raises(UserError, match=r"--set blocks.S.attention.window=none: .*or null: write null"):
        load_spec("miniwin-tiny", "model", ["blocks.S.attention.window=none"])

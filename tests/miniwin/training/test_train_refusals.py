"""What `miniwin train` refuses is said as `miniwin check` says it, with its place, before anything starts."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tiny import run_cli
from tiny_runs import MIXTURE, tiny_model, tiny_train, write_text

from miniwin.specs import UserError, dump_yaml
from miniwin.training.launch import train

LONG = {"source": "examples", "task": {"type": "recall", "num_pairs": 16}}  # takes 100 bytes
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "field": ({"data": {"source": "jsonl", "paths": ["a.jsonl"], "field": "txt"}}, "/a.jsonl:1: got the fields"),
    "column": ({"data": {"source": "table", "paths": ["a.parquet"], "field": "txt"}}, "/a.parquet: there is no column"),
    "missing": ({"data": {"source": "text", "paths": ["no.txt"]}}, "data.paths: "),
    "task": ({"data": LONG}, "data.task: task recall: an example takes at least 100 bytes"),
    "part": (
        {**MIXTURE, "data": {**MIXTURE["data"], "parts": [MIXTURE["data"]["parts"][0], {"weight": 1, "data": LONG}]}},
        "data.parts.1.data.task: task recall: an example takes at least 100 bytes",
    ),
    "tokenizer": ({"tokenizer": "no.json"}, "tokenizer: "),
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)
    Path("a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    Path("model.yaml").write_text(dump_yaml(tiny_model()))
    if find_spec("pyarrow") is not None:
        import pyarrow
        from pyarrow.parquet import write_table

        write_table(pyarrow.table({"text": ["one", "two"]}), "a.parquet")


def write(**changes: Any) -> None:
    """train.yaml: one field of the spec a line."""
    spec = {**tiny_train().model_dump(mode="json"), **changes}
    Path("train.yaml").write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in spec.items()))


def refused(*more: str) -> str:
    """What `miniwin train` says, having written nothing."""
    code, out, err = run_cli("train", "model.yaml", "--train", "train.yaml", "--out", "run", "--quiet", *more)
    assert code == 2 and out == ""
    assert not Path("run").exists()
    return err


@pytest.mark.parametrize("case", CASES)
def test_train_says_what_check_says(case: str) -> None:
    if case == "column" and find_spec("pyarrow") is None:
        pytest.skip("pyarrow is not installed")
    changes, message = CASES[case]
    write(**changes)
    code, _, checked = run_cli("check", "train.yaml")
    assert code == 2 and message in checked
    assert checked.startswith("error: train.yaml:")
    assert refused() == checked
    assert not Path("cache").exists(), "refused before any text is prepared"
    with pytest.raises(UserError) as caught:
        train("model.yaml", "train.yaml", out="run", progress=False, tracking="off")
    assert f"error: {caught.value}\n" == checked


def test_an_override_is_named_as_it_was_written() -> None:
    write()
    assert refused("--set-train", "data.paths=[no.txt]").startswith("error: --set-train data.paths=[no.txt]: ")


def test_lengths_beyond_the_text_are_said_with_their_place() -> None:
    write(eval={"every": 1000, "lengths": [64, 100_000]})
    line = Path("train.yaml").read_text().splitlines().index('eval: {"every": 1000, "lengths": [64, 100000]}') + 1
    assert refused().startswith(f"error: train.yaml:{line}:34: eval.lengths: the validation split has ")


def test_a_part_without_enough_text_is_said_with_its_place() -> None:
    Path("few.txt").write_text("a few words\n" * 4)
    few = {"weight": 1, "name": "few", "data": {"source": "text", "paths": ["few.txt"], "split": "tail"}}
    write(**{**MIXTURE, "data": {"source": "mixture", "parts": [MIXTURE["data"]["parts"][0], few]}})
    err = refused()
    assert err.startswith("error: train.yaml:4:") and ": data.parts.1: few: " in err, err

"""Entries with the result of a suite: measured for a model of tasks alone, or given; kept, pulled, checked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result
from zoo_runs import METRICS, make_run, overwrite, sign_again

from miniwin.commands.zoo import app
from miniwin.evaluation.suite.result import SuiteResult
from miniwin.evaluation.suite.run import run_suite
from miniwin.specs import SuiteSpec, UserError, parse_spec
from miniwin.zoo import Entry, ZooError, add, adding, list_entries, resolve, user_zoo, verify, write_index
from miniwin.zoo.pull import pull
from miniwin.zoo.store import Store

TASK = {"type": "which-first", "num_marks": 2, "num_queries": 1}
OTHER = {"type": "recall", "num_pairs": 2, "num_queries": 1, "key_length": 1}


@pytest.fixture(autouse=True)
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty zoo and cache of the test's own."""
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "zoo"))
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    for name in ("MINIWIN_ZOO_INDEX", "MINIWIN_ZOO_MIRROR", "MINIWIN_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on text."""
    return make_run(tmp_path_factory.mktemp("runs") / "text")


@pytest.fixture(scope="module")
def of_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a mixture of two tasks, with the weights of its best evaluation."""
    parts = [{"weight": 1.0, "data": {"source": "examples", "task": task}} for task in (TASK, OTHER)]
    folder = make_run(
        tmp_path_factory.mktemp("runs") / "tasks",
        seed=3,
        train={"name": "t", "seq_len": [16, 32], "data": {"source": "mixture", "parts": parts}},
        data={"source": "mixture", "fingerprint": "e" * 64, "parts": [{"name": "a"}, {"name": "b"}]},
        best={"step": 4},
    )
    other = make_run(folder.parent / "other", seed=4)
    shutil.copyfile(other / "model.safetensors", folder / "best.safetensors")
    return folder


@pytest.fixture(scope="module")
def measured(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a suite of the run on text."""
    folder = tmp_path_factory.mktemp("suites") / "small"
    run_suite(run, small(), out=folder)
    return folder


def small() -> SuiteSpec:
    asked = {"lengths": ["1x", 64], "examples": 6, "tasks": [{"task": TASK}]}
    spec = parse_spec({"kind": "suite", "format": 1, "name": "small", **asked}, "suite")
    assert isinstance(spec, SuiteSpec)
    return spec


def zoo_command(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def refused(*arguments: str) -> str:
    """What the command says, having written nothing."""
    result = zoo_command("add", *arguments)
    assert isinstance(result.exception, UserError), result.output
    assert [entry.ref for entry in list_entries() if entry.source == "user"] == []
    return str(result.exception)


def suite_of(entry: Entry) -> SuiteResult:
    assert entry.suite is not None
    return entry.suite


# ---------------------------------------------------------------------------------------------- adding


def test_a_model_of_tasks_alone_is_measured_by_its_tasks(of_tasks: Path) -> None:
    result = zoo_command("add", str(of_tasks), "--name", "asked")
    assert result.exit_code == 0, result.exception
    entry = resolve("asked")
    found = suite_of(entry)
    assert [row.key for row in found.rows if row.unit == "share"] == [
        f"{name}@{length}" for name in ("which-first", "recall") for length in (32, 128, 512, 2048)
    ]
    row = found["which-first@2048"]
    assert (row.n, row.chance, row.setting["split"]) == (64, 0.5, "test") and row.low is not None and row.times == 64
    assert entry.metrics == {} and verify(entry) == []
    assert json.loads((entry.folder / "entry.json").read_text())["schema"] == 2

    front, card = entry.card.split("---\n")[1:3]
    (listed,) = yaml.safe_load(front)["model-index"][0]["results"]
    assert listed["dataset"] == {"type": "miniwin-suite", "name": "own-tasks"}
    assert len(listed["metrics"]) == 8 and listed["metrics"][3]["args"]["n"] == 64
    assert listed["metrics"][3] | {"args": 0} == {
        "type": "which-first",
        "name": "which-first at 2048 tokens",
        "value": row.value,
        "args": 0,
    }
    shown = [line for line in card.splitlines() if line.startswith(("| Measure", "| which-first", "| recall"))]
    assert len(shown) == 9 and len({line.count("|") for line in shown}) == 1
    assert "## What it answers\n\n**which-first** (num_marks 2, num_queries 1). Which came first:" in card
    assert "def main(" not in card


def test_the_example_on_the_card_is_one_of_the_tasks(of_tasks: Path) -> None:
    """The prompt ends where the answer begins, and both can be seen in the example below."""
    entry = add(of_tasks, name="asked")
    line = next(line for line in entry.card.splitlines() if line.startswith("prompt = "))
    prompt = json.loads(line.removeprefix("prompt = "))
    assert prompt.endswith("=") and "print(model.generate(prompt, max_new_tokens=1, temperature=0.0))" in entry.card
    answer = entry.card.split("whose answers are `")[1][0]
    assert (prompt + answer).strip("\n") in entry.card


def test_its_best_weights_are_measured_and_not_its_last(of_tasks: Path) -> None:
    assert zoo_command("add", str(of_tasks / "best.safetensors"), "--name", "best", "--lengths", "32").exit_code == 0
    assert zoo_command("add", str(of_tasks), "--name", "last", "--lengths", "32,64").exit_code == 0
    best, last = suite_of(resolve("best")), suite_of(resolve("last"))
    assert best.model.weights != last.model.weights
    assert [row.length for row in best.rows if row.measure == "recall"] == [32]


def test_text_is_still_what_a_model_of_tasks_can_be_asked_for(of_tasks: Path, monkeypatch: Any) -> None:
    asked: list[Any] = []

    def evaluation(source: Path, lengths: Any, data: Any) -> dict[str, Any]:
        asked.append(data)
        return METRICS

    monkeypatch.setattr("miniwin.commands.zoo_measures.evaluate", evaluation)
    assert zoo_command("add", str(of_tasks), "--name", "asked", "--data", "python-stdlib").exit_code == 0
    assert asked == ["python-stdlib"] and resolve("asked").suite is None


def test_any_model_may_bring_a_result(run: Path, measured: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS), encoding="utf-8")
    given = ("--metrics", str(tmp_path / "metrics.json"), "--suite-result")
    for name, place in (("folder", measured), ("file", measured / "result.json")):
        assert zoo_command("add", str(run), "--name", name, *given, str(place)).exit_code == 0
        entry = resolve(name)
        assert suite_of(entry).rows == SuiteResult.read(measured / "result.json").rows
        listed = yaml.safe_load(entry.card.split("---\n")[1])["model-index"][0]["results"]
        assert [one["dataset"]["name"] for one in listed] == ["python-stdlib", "small"]
        assert entry.metrics == METRICS and verify(entry) == [] and "def main(" in entry.card
        assert "| Length | Bits per byte |" in entry.card and "| which-first | 64 | 2x |" in entry.card


def test_an_entry_says_no_folder_of_this_machine(run: Path, measured: Path) -> None:
    found = SuiteResult.read(measured / "result.json")
    assert Path(found.model.ref).is_absolute()
    entry = add(run, name="mine", suite=found)
    assert suite_of(entry).model.ref == run.name and str(run.parent) not in (entry.folder / "suite.json").read_text()


def test_a_new_card_keeps_the_result(run: Path, measured: Path) -> None:
    first = add(run, name="mine", suite=SuiteResult.read(measured / "result.json"))
    second = add(first.folder, name="mine", description="Said better.")
    assert second.version == "1.0.1" and suite_of(second) == suite_of(first)
    assert "| which-first | 64 | 2x |" in second.card


# ---------------------------------------------------------------------------------------------- refused


def test_the_result_of_another_model_is_refused(run: Path, of_tasks: Path, measured: Path, tmp_path: Path) -> None:
    wider = make_run(tmp_path / "wider", window=4)
    given = ("--no-evaluate", "--name", "mine", "--suite-result", str(measured))
    assert "the result of suite small is of weights " in refused(str(of_tasks), *given)
    assert "the result of suite small is of architecture " in refused(str(wider), *given)
    assert list((user_zoo() / ".staging").iterdir()) == []
    assert zoo_command("add", str(run), *given).exit_code == 0


def test_it_is_refused_before_anything_is_measured(of_tasks: Path, measured: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("miniwin.commands.zoo_measures.evaluate", None)  # would raise another error
    said = refused(str(of_tasks), "--name", "mine", "--suite-result", str(measured), "--data", "python-stdlib")
    assert "is of weights " in said


def test_what_is_no_result_is_refused(run: Path, of_tasks: Path, measured: Path, tmp_path: Path) -> None:
    name = ("--name", "mine", "--no-evaluate", "--suite-result")
    assert "is no result of a suite; expected the file or the folder" in refused(str(run), *name, str(run))
    assert "is no result of a suite" in refused(str(run), *name, str(tmp_path / "nowhere"))
    (tmp_path / "other.json").write_text('{"kind": "suite-result", "format": 7}')
    assert "has format 7; this version of miniwin reads format 1" in refused(
        str(run), *name, str(tmp_path / "other.json")
    )
    unfinished = tmp_path / "unfinished"
    shutil.copytree(measured, unfinished)
    (unfinished / "result.json").unlink()
    assert "is a suite that has not ended" in refused(str(run), *name, str(unfinished))
    own = tmp_path / "own"
    run_suite(of_tasks, small(), out=own)
    said = refused(str(of_tasks), "--name", "mine", "--suite-result", str(own), "--lengths", "64")
    assert "--lengths says where to measure, but --suite-result has it" in said


def test_a_result_that_is_too_large_is_refused(run: Path, measured: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(adding.LARGEST, "suite.json", 100)
    with pytest.raises(ZooError, match=r"the result of suite small takes .*; an entry has room for 100 B: measure few"):
        add(run, name="mine", suite=SuiteResult.read(measured / "result.json"))


# ---------------------------------------------------------------------------------------------- kept and shared


@pytest.fixture
def entry(run: Path, measured: Path) -> Entry:
    return add(run, name="mine", suite=SuiteResult.read(measured / "result.json"))


def test_a_change_of_the_result_is_found(entry: Entry) -> None:
    before = (entry.folder / "suite.json").read_bytes()
    overwrite(entry.folder / "suite.json", before.replace(b'"small"', b'"large"'))
    assert [str(problem)[:22] for problem in verify(entry)] == ["suite.json: has sha256"]
    (entry.folder / "suite.json").unlink()
    assert [str(problem) for problem in verify(entry)] == ["suite.json: the file is missing"]


def test_a_signed_result_of_other_weights_is_found(entry: Entry) -> None:
    text = (entry.folder / "suite.json").read_text(encoding="utf-8")
    other = text.replace(suite_of(entry).model.weights, "0" * 64)
    assert other != text
    overwrite(entry.folder / "suite.json", other.encode())
    sign_again(entry.folder)
    (problem,) = verify(entry, logits=False)
    assert problem.file == "suite.json" and "is of weights 000000000000..." in problem.message
    overwrite(entry.folder / "suite.json", b"[]")
    sign_again(entry.folder)
    (problem,) = verify(entry, logits=False)
    assert problem.file == "suite.json" and "is not the result of a suite" in problem.message


def test_a_result_that_the_entry_does_not_name_is_found(run: Path, measured: Path) -> None:
    entry = add(run, name="mine", metrics=METRICS)
    assert entry.suite is None and json.loads((entry.folder / "entry.json").read_text())["schema"] == 1
    shutil.copyfile(measured / "result.json", entry.folder / "suite.json")
    assert [str(problem) for problem in verify(entry)] == ["suite.json: does not belong to an entry"]


def test_it_is_listed_and_pulled(entry: Entry, run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    shutil.copytree(user_zoo(), tmp_path / "site", ignore=shutil.ignore_patterns(".*"))
    index = json.loads(write_index(tmp_path / "site").read_text())
    assert index["schema"] == 2
    assert "suite.json" in {file["path"] for file in index["releases"][0]["files"]}
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "mine"))
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", str(tmp_path / "site"))
    pulled = pull("mine", progress=False)
    assert pulled.source == "user" and suite_of(pulled) == suite_of(entry) and verify(pulled) == []


def test_an_index_without_results_stays_of_schema_1(run: Path, tmp_path: Path) -> None:
    add(run, name="plain", zoo=tmp_path / "site")
    assert json.loads(write_index(tmp_path / "site").read_text())["schema"] == 1
    assert [found.ref for found in Store(tmp_path / "site", "user").entries()] == ["plain@1.0.0"]

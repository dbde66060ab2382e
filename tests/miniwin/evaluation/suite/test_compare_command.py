"""`miniwin compare`: stored results and models, what it writes, and what it refuses before anything is measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from html_page import Page
from suite_results import made_up
from tiny import run_cli

from miniwin.evaluation.suite.result import SuiteResult

SUITE = """
kind: suite
format: 1
name: needles
lengths: [64]
examples: 4
tasks: [{task: {type: needle}}]
cache: {}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two stored results in the current folder: a file, and the folder of a suite."""
    monkeypatch.chdir(tmp_path)
    made_up("runs/good").write(tmp_path / "good.json")
    (tmp_path / "poor").mkdir()
    (tmp_path / "poor" / "suite.json").write_text("{}")
    made_up("runs/poor", skill=0.5, loss=1.5).write(tmp_path / "poor" / "result.json")
    return tmp_path


def test_stored_results_side_by_side(here: Path) -> None:
    code, out, err = run_cli("compare", "good.json", "poor", "--json", "found.json")
    assert code == 0, err
    assert out.startswith("A  runs/good: ") and "B against A: of 28 rows, " in out
    assert err.splitlines() == ["written to found.json", "page comparison.html"]
    words = Page((here / "comparison.html").read_text()).words
    assert words.count("MiniWin comparison runs/good / runs/poor") == 1
    found = json.loads((here / "found.json").read_text())
    assert [model["ref"] for model in found["models"]] == ["runs/good", "runs/poor"]
    code, out, err = run_cli("compare", "poor", "good.json", "--json", "-", "--page", "other.html")
    assert code == 0 and err == "page other.html\n" and (here / "other.html").exists()
    swapped = {row["key"]: row for row in json.loads(out)["rows"]}
    for row in found["rows"]:
        forth, back = row["differences"][0], swapped[row["key"]]["differences"][0]
        assert (forth is None) == (back is None)
        if forth is not None:
            assert forth["value"] == pytest.approx(-back["value"])


def test_models_are_measured_first_and_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "needles.yaml").write_text(SUITE)
    command = ("compare", "miniwin-tiny", "minimind-tiny", "--suite", "needles.yaml", "--quiet")
    code, out, err = run_cli(*command)
    assert code == 0, err
    assert "A  miniwin-tiny (random weights): " in out and "cache bytes" in out and "needle-nats" in out
    folders = sorted(path.name for path in here.iterdir() if (path / "result.json").is_file())
    assert folders == ["minimind-tiny-random-weights-needles", "miniwin-tiny-random-weights-needles", "poor"]
    first = SuiteResult.read(here / folders[0] / "result.json")
    assert (here / folders[0] / "index.html").read_text().startswith("<!DOCTYPE html>")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("miniwin.evaluation.suite.tasks.score_task", never)
    assert run_cli(*command)[:2] == (0, out)
    # The suite of a stored result is that of the others.
    stored = f"{folders[0]}/result.json"
    code, out, err = run_cli("compare", stored, "miniwin-tiny", "--quiet")
    assert code == 0, err
    assert first.model.ref in out
    monkeypatch.undo()
    monkeypatch.chdir(here)
    code, out, err = run_cli("compare", stored, "miniwin-tiny", "--quiet", "--out", "elsewhere")
    assert code == 0 and (here / "elsewhere" / folders[1] / "result.json").is_file()


@pytest.mark.parametrize("option", ["--page", "--json"])
def test_only_a_comparison_is_replaced(here: Path, option: str) -> None:
    target = here / ("comparison.html" if option == "--page" else "found.json")
    command = ("compare", "good.json", "poor", option, target.name)
    for first in (None, "", target):  # nothing, an empty file, and the comparison before
        if first == "":
            target.write_text("")
        assert run_cli(*command)[0] == 0 and len(target.read_text()) > 1000
    other = "<html>my notes about the comparison</html>"
    target.write_text(other)
    kind = "the page of a comparison" if option == "--page" else "a comparison"
    code, out, err = run_cli(*command)
    assert (code, out) == (2, "") and target.read_text() == other
    assert err == (
        f"error: {target.name} is there already, and is not {kind} of miniwin; move it, or choose another file\n"
    )


@pytest.mark.parametrize("other", ["c.html", "./c.html", "poor/../c.html", "link.html", "linked/c.html"])
def test_the_page_and_the_json_file_are_two(here: Path, other: str) -> None:
    (here / "link.html").symlink_to("c.html")
    (here / "linked").symlink_to(here)
    for page, found in (("c.html", other), (other, "c.html")):
        # A model that cannot be loaded: the paths are refused first.
        code, out, err = run_cli("compare", "good.json", "no-such-model", "--page", page, "--json", found)
        assert (code, out) == (2, "") and not (here / "c.html").exists()
        assert err == f"error: compare: --page and --json are one file, {Path(page)}; choose two\n"


def test_the_default_page_is_not_written_over_a_file_of_the_user(here: Path) -> None:
    (here / "comparison.html").write_text("mine")
    assert run_cli("compare", "good.json", "poor", "--json", "found.json")[0] == 2
    assert (here / "comparison.html").read_text() == "mine" and not (here / "found.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("good.json",), "compare: got 1; expected at least two models or results to compare"),
        (("good.json",) * 7, "compare: got 7; expected at most 6"),
        (
            ("good.json", "nowhere.json"),
            "nowhere.json: cannot be read (No such file or directory); expected a file that",
        ),
        (("good.json", "no-such-model"), "no-such-model"),
        (
            ("good.json", "other.json"),
            "other.json is not the result of a suite: it has kind 'metrics'; expected a file",
        ),
        (("good.json", "newer.json"), "newer.json has format 9; this version of miniwin reads format 1"),
        (
            ("good.json", "started"),
            "started is a suite that has not ended; the same miniwin eval command goes on with it",
        ),
        (("good.json", "longer.json"), "runs/good was measured by the suite quick, and runs/long by long"),
        (
            ("good.json", "poor", "--suite", "needles.yaml"),
            "runs/good was measured by another suite (quick) than --suite",
        ),
        (("good.json", "poor", "--page", "."), "."),
        (("good.json", "poor", "--json", "./good.json"), "good.json is one of the results that are compared"),
        (("good.json", "poor", "--json", "poor/result.json"), "result.json is one of the results that are compared"),
        (("good.json", "poor", "--json", "nowhere/found.json"), "nowhere"),
    ],
)
def test_what_cannot_be_compared_is_one_message(here: Path, arguments: tuple[str, ...], message: str) -> None:
    good = json.loads((here / "good.json").read_text())
    (here / "other.json").write_text(json.dumps({"kind": "metrics"}))
    (here / "newer.json").write_text(json.dumps({**good, "format": 9}))
    long = made_up("runs/long")
    long.model_copy(update={"suite": "long", "spec": {**long.spec, "name": "long"}}).write(here / "longer.json")
    (here / "started").mkdir()
    (here / "started" / "suite.json").write_text("{}")
    (here / "needles.yaml").write_text(SUITE)
    before = {path.name for path in here.iterdir()}
    code, out, err = run_cli("compare", *arguments)
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1, err
    assert message in err
    assert {path.name for path in here.iterdir()} == before  # nothing written

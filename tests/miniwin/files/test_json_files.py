"""JSON from outside: whatever it holds, it is an answer of one line, and harms nothing beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from zoo_runs import make_run

from miniwin.data.corpus_files import open_corpus
from miniwin.files.json_files import LARGEST, JSONProblem, parse_json, read_json
from miniwin.runs import read_metrics, read_result, read_run
from miniwin.search.leases import read_lease
from miniwin.search.live_table import tokens_so_far
from miniwin.search.outcome import Outcome, _tokens
from miniwin.search.report.study_page import _about
from miniwin.search.study import Study
from miniwin.sessions import _about as about_session
from miniwin.specs import UserError
from miniwin.tokenizer import load_tokenizer
from miniwin.zoo.entry import open_entry
from miniwin.zoo.importing.hf_folder import read_object
from miniwin.zoo.index import local_index, parse_index

BOMB = "[" * 200_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "nested too deeply (more than 64 levels)"),
        ('{"a":' * 200_000, "nested too deeply (more than 64 levels)"),
        ("[" * 65 + "]" * 65, "nested too deeply (more than 64 levels)"),
        ("9" * 5000, "not JSON (a number is too long)"),
        ('["\\ud800"]', "not JSON (it holds half of a surrogate pair, which is no character)"),
        (b"[\xff]", "not JSON (byte 0xff is not UTF-8)"),
        ('{\n"a" 1}', "not JSON (Expecting ':' delimiter) in line 2, column 5"),
        ("", "not JSON (Expecting value) in line 1, column 1"),
        ('{"a": 1}'.encode("utf-16"), "not JSON (it is UTF-16; save it as UTF-8)"),
        ('{"a": 1}'.encode("utf-16-be"), "not JSON (it is UTF-16; save it as UTF-8)"),
    ],
)
def test_what_is_not_json_says_why(text: str | bytes, message: str) -> None:
    with pytest.raises(JSONProblem) as caught:
        parse_json(text)
    assert str(caught.value) == message


def test_what_is_json_is_read() -> None:
    assert parse_json("[" * 64 + "]" * 64) == eval("[" * 64 + "]" * 64)
    assert parse_json('\ufeff{"a": "\\ud83d\\ude00"}') == {"a": "😀"} == parse_json('{"a": "😀"}'.encode("utf-8-sig"))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(JSONProblem, match="larger than 16 MiB"):
        read_json(tmp_path / "a.json")


# Each reads a file that somebody may have sent: what it does with it, the file's name, and what comes of a bomb.
RAISE: list[tuple[Callable[[Path], Any], str]] = [
    (read_run, "run.json"),
    (read_result, "run.json"),
    (Study, "study.json"),
    (Outcome.read, "trial.json"),
    (load_tokenizer, "tokenizer.json"),
    (lambda folder: open_entry(folder, "folder"), "entry.json"),
    (local_index, "index.json"),
    (lambda folder: parse_index((folder / "index.json").read_bytes(), "index.json"), "index.json"),
    (lambda folder: read_object(folder / "config.json", LARGEST), "config.json"),
]
PASS: list[tuple[Callable[[Path], Any], str, Any]] = [
    (lambda folder: read_lease(folder / "0.json"), "0.json", None),
    (_tokens, "run.json", 0),
    (open_corpus, "corpus.json", None),
    (lambda folder: _about(_study_of(folder)), "run.json", {}),
    (lambda folder: tokens_so_far(_trial_of(folder)), "metrics.jsonl", 7),
]


def _trial_of(folder: Path) -> Any:
    return SimpleNamespace(run_folder=folder, run_folders=[folder], trained=False, state="running", tokens=7)


def _study_of(folder: Path) -> Any:
    return SimpleNamespace(best=None, trials=[_trial_of(folder)])


@pytest.mark.parametrize(("read", "name"), RAISE)
def test_a_bomb_is_refused_by_its_name(read: Callable[[Path], Any], name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(BOMB, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert f"{name}" in str(caught.value) and "nested too deeply" in str(caught.value)


@pytest.mark.parametrize(("read", "name"), RAISE)
@pytest.mark.parametrize("text", ["[]", "null", "1", '"a"', '{"format": 1}', '{"schema": 1}', '{"format": []}'])
def test_json_of_another_kind_is_refused(read: Callable[[Path], Any], name: str, text: str, tmp_path: Path) -> None:
    if read in (read_run, RAISE[-1][0]) and text.startswith("{"):
        return  # what a run.json or a config.json has to say is asked where it is used
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=name if read is not Study else r"study\.json|search\.yaml"):
        read(tmp_path)


@pytest.mark.parametrize(("read", "name", "answer"), PASS)
@pytest.mark.parametrize("text", [BOMB, "[]", "null", "{}", '{"tokens": []}', '{"tokens": "x"}'])
def test_what_may_be_missing_is_passed_over(
    read: Callable[[Path], Any], name: str, answer: Any, text: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text + "\n", encoding="utf-8")
    found = read(tmp_path)
    assert found == answer or (isinstance(answer, dict) and isinstance(found, dict))


def test_a_bomb_among_the_metrics_of_a_run_is_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "metrics.jsonl").write_text(f'{{"step": 1}}\n{BOMB}\n[]\n{{"step": 2}}\n', encoding="utf-8")
    with pytest.warns(UserWarning, match=r"metrics\.jsonl:[23]: no line of metrics; it is left out"):
        assert [line["step"] for line in read_metrics(run)] == [1, 2]


def test_a_bomb_in_a_session_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it is not a session"):
        about_session(tmp_path, BOMB)

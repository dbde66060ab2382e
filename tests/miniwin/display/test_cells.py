"""What comes from elsewhere is shown on a terminal: no control character gets there, and rich sees no markup."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from search_helpers import write_search
from typer.testing import CliRunner

from miniwin.commands.search import app as search_app
from miniwin.display.cells import cell
from miniwin.search.claims import Claim, finish, take_work
from miniwin.search.creation import create_study
from miniwin.search.live_table import SearchDisplay
from miniwin.search.records import collect
from miniwin.search.study import Study
from miniwin.search.study_data import StudyData
from miniwin.specs import load_search_spec

ESCAPE = "\x1b]0;owned\x07"
EVIL = f"[/b][red]{ESCAPE}\u202e\x9b2J"
SEEN = "[/b][red]\\x1b]0;owned\\x07\\u202e\\x9b2J"  # every sign of it, for a person to read
OBEYED = re.compile("\x1b\\]|[\x07\u202e\x80-\x9f\ud800-\udfff]")  # rich's own sequences begin otherwise


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Both streams are a terminal, wide enough for every cell, once it is called: pytest changes them before a test."""

    def become() -> Terminal:
        screen = Terminal()
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "400")
        monkeypatch.setattr(sys, "stdout", screen)
        monkeypatch.setattr(sys, "stderr", screen)
        return screen

    return become


def check(text: str, times: int = 1) -> None:
    assert not OBEYED.search(text), repr(text)
    plain = re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", text)
    assert plain.count(SEEN) >= times, repr(plain)


def test_a_cell_is_text() -> None:
    assert cell(EVIL, "red").plain == SEEN and cell("[b]\n").plain == "[b]\\n" and cell(1).plain == "1"


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Every kind of trial, with a choice and a reason that are markup and escapes."""
    spec = write_search(
        tmp_path,
        variables={"odd": {"choice": [EVIL, f"{EVIL}2", f"{EVIL}3", f"{EVIL}4"]}, "window": {"choice": [4, 8]}},
        set={"blocks.S.attention.window": "window if odd else 16"},
        constraints=[],
        budget={"trials": 2},
    )
    made = create_study(load_search_spec(spec), tmp_path, out=tmp_path / "study")
    while isinstance(claim := take_work(made, "0"), Claim):
        claim.outcome.values = {"loss@64": 1.0}
        claim.outcome.end("complete", EVIL)
        finish(made, claim)
        claim.entry.let_go()
    return made


@pytest.fixture
def data(study: Study) -> StudyData:
    found = collect(study)
    trials = [replace(trial, layout=EVIL) for trial in found.trials]
    assert found.baseline is not None
    return replace(found, trials=trials, baseline=replace(found.baseline, reason=EVIL))


def test_search_status(study: Study) -> None:
    for path in (study.folder / "trials").glob("*/trial.json"):  # as somebody else may have written it
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "layout": EVIL}), encoding="utf-8")
    result = CliRunner().invoke(search_app, ["status", str(study.folder), "--all"], env={"COLUMNS": "400"})
    assert result.exit_code == 0, result.output
    check(result.output, times=5)


def test_the_table_of_a_running_search(data: StudyData, on_terminal: Callable[[], Terminal]) -> None:
    terminal = on_terminal()
    with SearchDisplay() as display:
        display.note(EVIL)
        display.update(data)
    check(terminal.getvalue(), times=4)


def test_the_lines_of_a_running_search(data: StudyData, capsys: pytest.CaptureFixture[str]) -> None:
    display = SearchDisplay()
    display.update(replace(data, trials=[]))
    display.update(data)
    check(capsys.readouterr().err, times=4)


def test_explain(on_terminal: Callable[[], Terminal]) -> None:
    from miniwin.commands import specs
    from miniwin.explain.page import page
    from miniwin.specs import load_model_spec

    sizes = {"cache_bytes": {512: 1}, "parameters": 1}
    layer = {"layer": 0, "block": EVIL, "sees": EVIL, "heads": EVIL, "encoding": EVIL, "periods": [], **sizes}
    criterion = {"name": EVIL, "value": 1.0, "bound": 1.0, "verdict": "ok", "says": EVIL}
    verdict = {"block": EVIL, "encoding": EVIL, "layers": [0], "rotary": True, "says": EVIL, "criteria": [criterion]}
    shift = {"block": EVIL, "encoding": EVIL, "tokens": 1, "shifts": [1, 2], "mean": 0.1, "max": 0.1}
    backend = {"block": EVIL, "layers": [0], "device": "cpu", "phase": "decode", "backend": EVIL, "declined": {}}
    counts = dict.fromkeys(("built_parameters", "active_parameters", "embedding_parameters", "hidden_size"), 1)
    facts = {
        **{
            "name": EVIL,
            "layout": EVIL,
            "hash": "0" * 64,
            "vocab_size": 1,
            "cache_dtype": "float32",
            **sizes,
            **counts,
        },
        **{"layers": [layer], "forward_flops_per_token": {512: 1.0}, "soundness": {512: [verdict]}, "shift": [shift]},
        **{"backends": [{**backend, "declined": {EVIL: EVIL}}], "generation": {"cpu": EVIL}},
        "products": {"float32 on a cpu": "mkl", "milliseconds": None},
    }
    shown: list[tuple[Callable[..., None], tuple[Any, ...], int]] = [
        (specs.print_explanation, (), 6),
        (specs.print_soundness, (None,), 5),
        (specs.print_shift, (), 2),
        (specs.print_backends, (), 5),
    ]
    for print_it, more, times in shown:
        terminal = on_terminal()
        print_it(facts, *more)
        check(terminal.getvalue(), times)
    facts["name"] = facts["layers"][0]["encoding"] = "<script>alert(1)</script>"
    text = page(load_model_spec("minimind-tiny", ["blocks.G.attention.position={type: nope}"]), facts)
    assert "<script>" not in text and text.count("&lt;script&gt;") == 5


def test_errors(on_terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from miniwin.cli import main

    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump({"kind": "model", "format": 1, EVIL: EVIL}))
    for arguments in (
        ["check", str(path), EVIL],
        ["explain", EVIL],
        ["search", "status", EVIL],
        ["train", EVIL, "--train", EVIL],
    ):
        terminal = on_terminal()
        monkeypatch.setattr(sys, "argv", ["miniwin", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        assert "error: " in terminal.getvalue() and not OBEYED.search(terminal.getvalue()), arguments


def test_bars(on_terminal: Callable[[], Terminal]) -> None:
    from miniwin.commands.importing import _Shown
    from miniwin.evaluation.progress import EvaluationProgress
    from miniwin.training.progress import TrainProgress
    from miniwin.zoo.pull import _Bar

    terminal = on_terminal()
    with TrainProgress(EVIL, 10, 1) as bar:
        bar.update(1, 1.0, 1.0)
        bar.note(EVIL)
    check(terminal.getvalue(), times=2)
    with EvaluationProgress(True) as bars:
        bars.task(EVIL, 2)(1)
    check(terminal.getvalue(), times=3)
    with _Shown() as shown:
        shown.update(EVIL, 1, 2)
        shown._bar.refresh()
    check(terminal.getvalue(), times=4)
    with _Bar(SimpleNamespace(ref=EVIL, size=2), True) as pulled:  # type: ignore[arg-type]
        pulled.counter()(1)
    check(terminal.getvalue(), times=5)


def test_eval_and_the_list_of_entries(on_terminal: Callable[[], Terminal]) -> None:
    from miniwin.commands import evaluate, zoo_listing
    from miniwin.evaluation.result import Metrics

    terminal = on_terminal()
    evaluate._print(Metrics(EVIL, 1, {"source": EVIL}, 1, {8: 1.0}, {8: 1.0}, {EVIL: 1.0}, {}, {8: 1}))
    check(terminal.getvalue(), times=3)
    names = dict.fromkeys(("ref", "layout", "source", "status", "reason"), EVIL)
    zoo_listing.print_table(
        zoo_listing._table([{**names, "parameters": 1, "bits_per_byte": {}, "trained_at": None, "size": 1}])
    )
    check(terminal.getvalue(), times=7)

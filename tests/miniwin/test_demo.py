"""`miniwin demo`, all of it, on a search that takes a moment."""

from __future__ import annotations

from pathlib import Path

import pytest
from search_helpers import write_search
from tiny import run_cli

from miniwin.commands import demo
from miniwin.search import read_study
from miniwin.search.creation import create_study
from miniwin.search.worker import DONE, work
from miniwin.specs import load_search_spec, load_train_spec
from miniwin.zoo import list_entries


def test_the_demo_tells_its_story_and_tells_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "zoo"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "off")
    path = write_search(
        tmp_path,
        {"data": {"source": "text", "paths": ["text.txt"], "test_fraction": 0.2}},
        budget={"trials": 2},
        constraints=[],
        confirm={"top": 1, "seeds": 2, "split": "test"},
    )
    study = create_study(load_search_spec(path), tmp_path, out=tmp_path / "demo" / "search")
    assert work(study.folder, "0") == DONE, "in this process: no workers have to be started"
    monkeypatch.setattr(demo, "SEARCH", str(path))
    monkeypatch.setattr(demo, "TOKENS", 3000)
    monkeypatch.setattr(demo, "SHOWN", 20)
    code, out, err = run_cli("demo", "--out", str(tmp_path / "demo"))
    assert code == 0, err
    (entry,) = [one for one in list_entries() if one.name == "demo-winner"]
    assert entry.ref == "demo-winner@1.0.0" and entry.provenance["retrained"]
    data = read_study(study.folder)
    assert data.best is not None and data.confirmation is not None and data.confirmation.result is not None
    (comparison,) = data.confirmation.result.comparisons
    pair = (
        f"{data.best.label} and the baseline" if comparison.measures[0].verdict.startswith("not") else data.best.label
    )
    assert "Trained anew with 2 other seeds and measured on the test split, " in out and f"so {pair} " in out
    rows = [line for line in out.splitlines() if line.startswith("  at ")]
    assert [row.split()[1:4] for row in rows] == [["32", "(", "1x)"], ["64", "(", "2x)"]]
    assert all(f"winner {data.best.layout} " in row and "baseline " in row for row in rows)
    shown = "--tokens 3000 --set-train batch_size=4"
    assert f"$ miniwin search promote {study.folder} --name demo-winner {shown}" in out
    assert (tmp_path / "demo" / "report.html").is_file() and "\ndef main(" in out

    code, out, err = run_cli("demo", "--out", str(tmp_path / "demo"))
    assert code == 0 and "demo-winner@1.0.0 is in the zoo already" in out, err


def test_the_shipped_search_is_what_the_demo_says() -> None:
    spec, train = load_search_spec("demo"), load_train_spec("demo")
    assert len(spec.parsed_objectives) == 2 and spec.pruner is not None and spec.pruner.type == "halving"
    assert spec.confirm is not None and spec.confirm.seeds == 2 and train.data.test_fraction  # type: ignore[union-attr]
    longer = load_train_spec("demo", [f"tokens={demo.TOKENS}", *demo.LONGER], "--set-train")
    assert longer.tokens == demo.TOKENS > 10 * train.tokens

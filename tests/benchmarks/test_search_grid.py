"""The search grid: a space without holes, runs that go on, result files that can be trusted, a table to ask."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.search_grid import __main__ as command
from benchmarks.search_grid import grid, noise, results, running
from benchmarks.search_grid.card import card
from benchmarks.search_grid.grid import EVERY, RUNGS, Run, of_shard, runs, shard
from benchmarks.search_grid.making import made
from benchmarks.search_grid.table import TABLE, Row, Rung, Table
from benchmarks.search_grid.table_file import save
from miniwin import provenance
from miniwin.specs import UserError

NAMES = ("loss@2048", "recall@2048", "recall-nats@2048")


def result(run: Run, loss: float, status: str = "complete", rungs: int = len(RUNGS)) -> dict[str, Any]:
    """A result whose metrics fall from rung to rung to `loss`."""
    reached = [
        {
            "tokens": tokens,
            "train_seconds": 1.5 * (place + 1),
            "evaluation_seconds": 0.25,
            "metrics": {name: loss + (len(RUNGS) - 1 - place) / 10 for name in NAMES},
        }
        for place, tokens in enumerate(running.rung_tokens(run)[:rungs])
    ]
    return {
        "hash": run.candidate.hash,
        "values": run.values,
        "seed": run.seed,
        "status": status,
        "reason": None if status == "complete" else "because",
        "rungs": reached,
        "commit": "0.1.0+g1",
        "text": "abc",
        "machine": "cpu",
        "python": "3.11.1",
        "torch": "2.10",
        "threads": 1,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Results of the first 22 runs: three diverged, failed and stopped at a rung."""
    for place, run in enumerate(runs()[:22]):
        status, reached = {2: ("diverged", 2), 3: ("failed", 0)}.get(place, ("complete", len(RUNGS)))
        results.write(run, result(run, 2 + place / 100, status, reached), tmp_path)
    return tmp_path


def test_the_grid_is_the_whole_space_with_two_seeds_for_a_tenth() -> None:
    firsts = [run for run in runs() if run.seed == 0]
    assert len(firsts) == grid.space().variables.size >= 240
    assert len(runs()) == len(firsts) + -(-len(firsts) // EVERY)
    assert len({run.candidate.model.hash for run in firsts}) == len(firsts), "no architecture is there twice"
    assert len({run.name for run in runs()}) == len(runs())
    assert all(400_000 > run.candidate.model.parameters() > 200_000 for run in firsts)


def test_a_part_of_the_runs_is_a_fair_sample_and_a_second_seed_follows_its_first() -> None:
    for place, run in enumerate(runs()):
        if run.seed == 1:
            assert runs()[place - 1].values == run.values
            assert runs()[place - 1].candidate.train.data != run.candidate.train.data, "the examples are others, too"
    part = runs()[: len(runs()) // 4]
    assert sum(run.seed for run in part) >= len(part) // (EVERY + 1) - 1
    for name in grid.space().spec.variables:
        assert len({repr(run.values[name]) for run in part}) == len({repr(run.values[name]) for run in runs()})


def test_rungs_are_whole_steps() -> None:
    train = runs()[0].candidate.train
    for tokens in running.rung_tokens(runs()[0]):
        assert tokens % train.tokens_per_step == 0
    assert running.rung_tokens(runs()[0])[-1] == train.tokens


@pytest.mark.parametrize("count", [1, 2, 3])
def test_shards_are_disjoint_and_complete(count: int) -> None:
    each = [run.name for number in range(count) for run in of_shard((number + 1, count))]
    assert sorted(each) == sorted(run.name for run in runs())


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/0", "-1/2", "1/2/3"])
def test_a_bad_shard_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--shard: got"):
        shard(text)


def test_a_table_comes_back_as_it_was_written(folder: Path, tmp_path: Path) -> None:
    table = made(folder)
    save(table, tmp_path / "grid.parquet")
    again = Table.load(tmp_path / "grid.parquet")
    assert again == table
    assert (tmp_path / "grid.parquet").stat().st_size < 100_000
    assert len(table.rows) == 22 and table.planned == len(runs())


def test_a_row_is_found_by_its_values(folder: Path) -> None:
    table, run = made(folder), runs()[5]
    row = table.row(dict(reversed(run.values.items())))
    assert row.value("loss@2048") == row.value("loss@16x") == result(run, 2.05)["rungs"][-1]["metrics"]["loss@2048"]
    assert row.value("loss@2048", 0) > row.value("loss@2048")
    assert row.value("cache_bytes@16x") == run.candidate.model.cache_bytes(2048)
    assert table.rungs(run.values)[1].tokens == running.rung_tokens(run)[1]
    with pytest.raises(UserError, match="no loss@4096; it has parameters"):
        row.value("loss@4096")
    with pytest.raises(UserError, match="the table has no run of"):
        table.row(run.values, seed=7)
    with pytest.raises(UserError, match="the table's variables are"):
        table.row({"window": 16})


def test_a_run_that_diverged_or_failed_is_a_row_with_its_reason(folder: Path, tmp_path: Path) -> None:
    save(made(folder), tmp_path / "grid.parquet")
    table = Table.load(tmp_path / "grid.parquet")
    diverged, failed = (table.row(run.values, run.seed) for run in runs()[2:4])
    assert (diverged.status, diverged.reason, len(diverged.rungs)) == ("diverged", "because", 2)
    assert (failed.status, failed.reason, failed.rungs) == ("failed", "because", ())
    with pytest.raises(UserError, match="the run has 2 \\(diverged: because\\)"):
        diverged.value("loss@2048", 2)
    assert failed.value("parameters") > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("{", "is damaged"),
        ("[]", "got format"),
        ({"format": 2}, "got format 2; expected 1"),
        ({"rungs": None}, "rungs is None"),
        ({"seed": 9}, "is of another run"),
        ({"hash": "0" * 64}, "is of another run"),
    ],
)
def test_a_bad_result_file_is_refused(folder: Path, change: str | dict[str, Any], said: str, capsys: Any) -> None:
    path = results.path_of(runs()[1], folder)
    text = change if isinstance(change, str) else json.dumps(json.loads(path.read_text()) | change)
    path.write_text(text)
    for arguments in (["--list"], ["--table"], ["--dirty", "--shard", "1/1"]):
        assert command.main([*arguments, "--results", str(folder)]) == 2
        error = capsys.readouterr().err
        assert said in error and path.name in error and "Traceback" not in error


def test_results_of_different_text_are_refused(folder: Path) -> None:
    run = runs()[1]
    results.write(run, result(run, 2.0) | {"text": "other"}, folder)
    with pytest.raises(UserError, match="different text cannot be compared"):
        made(folder)


@pytest.mark.parametrize("content", [None, b"", b"PAR1 no table PAR1"])
def test_a_bad_table_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "grid.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=str(path)):
        Table.load(path)


def test_runs_without_a_result_are_done_and_no_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    asked: list[str] = []

    def measured(run: Run, work: Path) -> dict[str, Any]:
        asked.append(run.name)
        if len(asked) == 3:
            raise UserError("stopped")
        return result(run, 2.0)

    monkeypatch.setattr(running, "measured", measured)
    before = results.path_of(runs()[1], folder).read_bytes()
    assert command.main(["--results", str(folder), "--dirty"]) == 2  # stopped in its third run
    assert command.main(["--results", str(folder), "--dirty", "--most", "2"]) == 0
    assert asked == [run.name for run in runs()[22:25]] + [run.name for run in runs()[24:26]]
    assert results.path_of(runs()[1], folder).read_bytes() == before
    capsys.readouterr()
    assert command.main(["--results", str(folder), "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(runs())
    assert lines[3].endswith("failed") and lines[25].endswith("complete") and lines[26].endswith("to do")


def test_a_checkout_with_changes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(provenance, "code_version", lambda: "0.1.0+g1.dirty")
    monkeypatch.setattr(running, "measured", lambda *_: pytest.fail("it ran"))
    assert command.main(["--results", str(tmp_path)]) == 2
    assert "the checkout has changes" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def shortened(run: Run, steps: int) -> Run:
    """The run with rungs at 1 and 3 of `steps`, on two kinds of examples: no text has to be read."""
    examples = run.candidate.train.model_dump(mode="json")
    parts = examples["data"]["parts"]
    parts[0]["data"] = {**parts[1]["data"], "task": {"type": "last-write"}}
    from miniwin.specs import TrainSpec, parse_spec

    train = parse_spec(examples | {"tokens": steps * run.candidate.train.tokens_per_step}, "train")
    assert isinstance(train, TrainSpec)
    return replace(run, candidate=replace(run.candidate, train=train))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(running, "RUNGS", (1 / 3, 1.0))
    monkeypatch.setattr(running, "EXAMPLES", {64: 2})
    monkeypatch.setattr(running, "TEXT_LENGTHS", ())
    return shortened(runs()[0], 3)


def test_a_run_is_measured_at_each_rung(short: Run, tmp_path: Path) -> None:
    found = running.measured(short, tmp_path / "work")
    assert found["status"] == "complete" and found["reason"] is None and not (tmp_path / "work").exists()
    assert [rung["tokens"] for rung in found["rungs"]] == [1024, 3072]
    assert set(found["rungs"][0]["metrics"]) == {
        *("recall@64", "recall-nats@64", "last-write@64", "last-write-nats@64")
    }
    assert 0 < found["rungs"][0]["train_seconds"] < found["rungs"][1]["train_seconds"]
    again = running.measured(short, tmp_path / "work")
    assert [rung["metrics"] for rung in again["rungs"]] == [rung["metrics"] for rung in found["rungs"]]


def test_what_breaks_a_run_is_its_reason_and_what_breaks_the_machine_stops(
    short: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def not_finite(*_: Any) -> dict[str, float | None]:
        calls.append(0)
        return {"recall@64": None if len(calls) == 2 else 0.5}

    monkeypatch.setattr(running, "metrics", not_finite)
    found = running.measured(short, tmp_path / "work")
    assert (found["status"], len(found["rungs"])) == ("diverged", 2)
    assert found["reason"] == "a metric is not finite after 3,072 tokens"

    def raising(error: Exception) -> None:
        def metrics(*_: Any) -> None:
            raise error

        monkeypatch.setattr(running, "metrics", metrics)

    raising(RuntimeError("no memory"))
    found = running.measured(short, tmp_path / "work")
    assert (found["status"], found["reason"], found["rungs"]) == ("failed", "RuntimeError: no memory", [])
    raising(OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        running.measured(short, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_run_that_is_stopped_has_no_result(short: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(status="interrupted", reason="SIGTERM after step 1 of 3")

    monkeypatch.setattr(running, "train", stopped)
    with pytest.raises(UserError, match="stopped \\(SIGTERM after step 1 of 3\\); the same command begins it anew"):
        running.measured(short, tmp_path / "work")


def row(number: int, seed: int, loss: float, early: float) -> Row:
    rungs = tuple(Rung(tokens, 1.0, 1.0, {"loss@2048": value}) for tokens, value in ((1, early), (2, loss)))
    return Row({"x": number}, seed, "complete", None, {"parameters": 1.0}, rungs, 128)


def test_noise_is_what_a_seed_does_to_one_architecture_against_others() -> None:
    random = np.random.default_rng(0)
    true, shift = random.normal(size=400), 5.0  # the second seed is worse for all: that is no noise
    rows = [row(n, 0, true[n] + 0.1 * random.normal(), true[n]) for n in range(400)]
    rows += [row(n, 1, true[n] + shift + 0.1 * random.normal(), true[n]) for n in range(400)]
    table = Table(tuple(rows), ("x",), 800, 128)
    found = noise.seed_noise(table, "loss@2048")
    assert found is not None and found.low < 0.1 < found.high and found.high - found.low < 0.02
    spread = noise.between(table, "loss@2048")
    assert spread is not None and spread.low < 1.0 < spread.high
    correlation = noise.rung_correlation(table, "loss@2048", 0)
    assert correlation is not None and 0.98 < correlation.low < correlation.high < 1


def test_the_card_says_what_the_results_say(folder: Path) -> None:
    text = card(made(folder))
    assert f"22 of {len(runs())} runs: 20 architectures with seed 0, and 2 of them with seed 1" in text
    assert "20 came to the end, 1 diverged, 1 failed" in text
    assert "0.1.0+g1" in text and "`recall-nats@2048`" in text
    assert "7.5 s of training and 1.2 s of measuring" in text


def test_the_committed_card_says_what_the_committed_table_says() -> None:
    table = Table.load()
    assert TABLE.stat().st_size < 1_000_000
    assert (grid.FOLDER / "README.md").read_text(encoding="utf-8") == card(table)
    of_specs = {(repr(run.values), run.seed): run.candidate.model for run in runs()}
    for row in table.rows:
        assert row.value("cache_bytes@16x") == of_specs[repr(row.values), row.seed].cache_bytes(2048)

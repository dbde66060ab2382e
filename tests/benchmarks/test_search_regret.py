"""Searches replayed over made-up tables, whose structure is known: what must win, and what nothing may cost."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, median

import optuna
import pytest
from made_up_grid import SEARCH, foretell, good, mislead, space, table

from benchmarks.search_grid.grid import SPACE
from benchmarks.search_grid.table import TABLE, Table
from benchmarks.search_grid.table_file import save
from benchmarks.search_regret import __main__ as command
from benchmarks.search_regret import results
from benchmarks.search_regret.cases import QUESTIONS, SAMPLERS, Case, cases
from benchmarks.search_regret.curves import POINTS, found
from benchmarks.search_regret.page import write_page
from benchmarks.search_regret.problem import Problem
from benchmarks.search_regret.replay import Search
from benchmarks.search_regret.truth import truth
from miniwin.specs import UserError, dump_yaml, load_model_spec, load_train_spec, parse_spec

optuna.logging.set_verbosity(optuna.logging.ERROR)
LOSS, BOTH, _ = QUESTIONS
BY_NAME = {sampler.name: sampler for sampler in SAMPLERS}


def needed(problem: Problem, sampler: str, pruner: str, workers: int = 1, seeds: int = 5) -> float:
    """The median of trainings until the aim."""
    case, known = Case(LOSS, BY_NAME[sampler], pruner, workers), truth(problem)
    every = [found(problem, known, case, seed, whole_curve=False).trainings for seed in range(seeds)]
    return median(math.inf if one is None else one for one in every)


def test_halving_wins_where_rungs_foretell_the_end_and_loses_little_where_they_do_not() -> None:
    honest, misleading = (Problem(table(early), space(), LOSS.parsed) for early in (foretell, mislead))
    for workers in (1, 4):
        assert needed(honest, "random", "halving", workers) < 0.4 * needed(honest, "random", "none", workers)
        assert needed(honest, "random", "median", workers) < needed(honest, "random", "none", workers)
        # A quarter of the tokens is spent to the end: what comes of it is chance, and no worse than chance.
        for pruner in ("halving", "hyperband"):
            assert regret(misleading, pruner, workers, 20) < 1.2 * regret(misleading, "none", workers, 6)


def regret(problem: Problem, pruner: str, workers: int, trainings: float) -> float:
    """The mean over seeds, after so many trainings."""
    case, known = Case(LOSS, BY_NAME["random"], pruner, workers), truth(problem)
    at = max(place for place, point in enumerate(POINTS) if point <= trainings)
    curves = [found(problem, known, case, seed).curve for seed in range(6)]
    return fmean(1.0 if curve[at] is None else curve[at] for curve in curves)


def test_a_sampler_that_learns_wins() -> None:
    problem = Problem(table(foretell), space(), LOSS.parsed)
    for sampler in ("tpe", "evolution"):
        assert needed(problem, sampler, "none", seeds=5) < needed(problem, "random", "none")
    assert needed(problem, "tpe", "halving", seeds=5) < needed(problem, "tpe", "none", seeds=5)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("pruner", ["none", "halving", "hyperband"])
def test_each_rung_is_paid_once_and_every_architecture_can_be_had(pruner: str, workers: int) -> None:
    problem = Problem(table(foretell), space(), LOSS.parsed)
    case = Case(LOSS, BY_NAME["random"], pruner, workers)
    search = Search(problem, case.spec(problem, 0), case.rule(problem))
    measured = list(search.run(workers))
    assert problem.tokens == (100, 300, 900, 2700) and len(problem.entries) == 84
    assert len({(id(one.entry), one.rung) for one in measured}) == len(measured)
    spent = sum(problem.tokens[one.rung] - (problem.tokens[one.rung - 1] if one.rung else 0) for one in measured)
    assert measured[-1].tokens == spent and [one.tokens for one in measured] == sorted(one.tokens for one in measured)
    assert len({id(one.entry) for one in measured}) == 84
    assert {tried.state for tried in search.history} == {"complete"} and spent == 84 * 2700
    begun: set[int] = set()
    until = next(one.tokens for one in measured if begun.add(id(one.entry)) or len(begun) == 84)
    assert pruner == "none" or until < 84 * 2700 / 2, "all are tried for less than half; then those that wait go on"


def test_what_is_missing_or_diverged_is_no_result() -> None:
    best = min(range(84), key=lambda place: good(table(foretell).rows[place].values))
    whole = table(foretell, diverges=best)  # after a rung that it passes
    problem = Problem(Table(whole.rows[4:], whole.variables, 84, 128), space(), LOSS.parsed)
    case = Case(LOSS, BY_NAME["random"], "halving", 2)
    search = Search(problem, case.spec(problem, 0), case.rule(problem))
    list(search.run(2))
    states = [tried.state for tried in search.history]
    assert states.count("infeasible") == 4 and len(states) == 84
    broken = next(tried for tried in search.history if any(math.isnan(row[0]) for row in tried.rungs))
    assert broken.state == "pruned" and len(broken.rungs) == 3
    assert len(truth(problem).values) == 79


def test_the_noise_of_seeds_is_taken_off() -> None:
    noisy = Problem(table(foretell, noise=0.05), space(), LOSS.parsed)
    known = truth(noisy)
    assert 0.03 < known.noise[0] < 0.08
    rows = [entry.row for entry in noisy.entries.values()]
    errors = [
        [abs(value - good(row.values)) for row in rows for value in of(row)]
        for of in (lambda row: known.values[id(row)], lambda row: [row.value("loss@2048")])
    ]
    assert sum(errors[0]) < 0.95 * sum(errors[1])
    measured = min(row.value("loss@2048") for row in rows)
    assert measured < known.best[0], "the luckiest run is not the best architecture"


def test_all_of_the_hypervolume_is_there_when_all_are_trained() -> None:
    problem = Problem(table(foretell), space(), BOTH.parsed)
    known = truth(problem)
    assert known.volume([entry.row for entry in problem.entries.values()]) == pytest.approx(1)
    one = found(problem, known, Case(BOTH, BY_NAME["random"], "none", 4), 0)
    assert one.trainings is not None and one.trainings <= 84
    shares = [value for value in one.curve if value is not None]
    assert shares == sorted(shares) and 0 < shares[-1] <= 1


def test_a_replay_is_the_same_each_time() -> None:
    problem = Problem(table(foretell), space(), LOSS.parsed)
    case, known = Case(LOSS, BY_NAME["tpe"], "halving", 4), truth(problem)
    first, again, other = (found(problem, known, case, seed, whole_curve=False) for seed in (1, 1, 2))
    assert first == again != other


def test_cases_that_make_no_sense_are_left_out() -> None:
    names = {case.name for case in cases(Problem(table(foretell), space(), LOSS.parsed))}
    assert "loss-tpe-halving-4" in names and "front-nsga2-halving-1" in names
    assert not any("cmaes" in name for name in names), "a window is a choice"
    assert not any("front" in name and "median" in name for name in names)


def test_the_command_goes_on_and_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, spec, folder = tmp_path / "t.parquet", tmp_path / "space.yaml", tmp_path / "results"
    pytest.importorskip("pyarrow", reason="the table is Parquet, which pyarrow reads")
    save(table(foretell), path)
    for name, document in (("base", load_model_spec("miniwin-tiny")), ("train", load_train_spec("demo"))):
        (tmp_path / f"{name}.yaml").write_text(dump_yaml(document))
    spec.write_text(dump_yaml(parse_spec({**SEARCH, "base": "base.yaml", "train": "train.yaml"}, "search")))
    asked = ["--table", str(path), "--space", str(spec), "--results", str(folder), "--seeds", "2"]
    assert command.main([*asked, "--page"]) == 2
    assert "has no result of this table" in capsys.readouterr().err
    assert command.main([*asked, "--only", "loss-random-h"]) == 0
    assert capsys.readouterr().out.count("2 searches") == 4
    assert command.main([*asked, "--only", "loss-random-halving"]) == 0
    assert capsys.readouterr().out == "", "they are done"
    (case,) = [c for c in cases(command.problem_of(path, spec, LOSS)) if c.name == "loss-random-halving-1"]
    mark = results.fingerprint(path)
    kept = results.read(case, mark, folder)
    assert kept is not None and len(kept["searches"]) == 2 and kept["points"] == list(POINTS)
    assert results.read(case, "another table", folder) is None
    if find_spec("matplotlib"):
        from benchmarks.search_regret.page import write_page

        page, plot = write_page(path, spec, folder, tmp_path)
        assert "| random | 2 |" in page.read_text() and plot.read_text().startswith("<?xml")
    results.path_of(case, folder).write_text("{")
    with pytest.raises(UserError, match=r"loss-random-halving-1\.json: is damaged"):
        results.read(case, mark, folder)


def test_the_committed_page_is_of_the_committed_results(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the page has a plot, which matplotlib draws")
    folder = results.FOLDER
    made, _ = write_page(TABLE, SPACE, folder, tmp_path)
    assert made.read_text(encoding="utf-8") == (folder.parent / "README.md").read_text(encoding="utf-8")

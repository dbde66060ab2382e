"""Which variable mattered: the numbers of Optuna, how sure they are, and what is said where nothing can be said."""

from __future__ import annotations

import math
import random
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from html_page import Page
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from report_helpers import make_study

from miniwin.search.report import render
from miniwin.search.report.chance import by_chance
from miniwin.search.report.importance import importances
from miniwin.search.report.ped_anova import Column, best, divergences, numeric
from miniwin.search.study_data import TrialRecord
from miniwin.specs import parse_spec

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "whole": IntDistribution(1, 7),
    "odd": IntDistribution(2, 900),
    "octaves": IntDistribution(1, 64, log=True),
    "steps": FloatDistribution(0, 1, step=0.1),
    "real": FloatDistribution(1e-4, 1e-1, log=True),
    "named": CategoricalDistribution(["a", "b", "c"]),
}


def drawn(count: int) -> list[dict[str, Any]]:
    draw = random.Random(count)
    return [
        {
            "whole": draw.randint(1, 7),
            "odd": draw.randint(2, 900),
            "octaves": draw.randint(1, 64),
            "steps": draw.randint(0, 10) / 10,
            "real": 10 ** draw.uniform(-4, -1),
            "named": draw.choice("abc"),
        }
        for _ in range(count)
    ]


def column(name: str, values: list[Any]) -> Column:
    distribution = DISTRIBUTIONS[name]
    if isinstance(distribution, CategoricalDistribution):
        return Column(np.array([distribution.choices.index(value) for value in values]), 3, False)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return numeric(values, distribution.low, distribution.high, distribution.step, distribution.log)


@pytest.mark.parametrize("count", [8, 40])
@pytest.mark.parametrize("again", [False, True])
def test_divergences_are_those_of_optuna(count: int, again: bool) -> None:
    """again: of a sample, in which a trial that was drawn twice counts twice."""
    chance = np.random.default_rng(count)
    params, weights = drawn(count), np.ones(count)
    values = np.array([p["whole"] + math.log(p["real"]) + p["named"].count("b") for p in params]).round(1)
    if again:
        weights = np.bincount(chance.integers(count, size=count), minlength=count).astype(float)
    study = optuna.create_study()
    study.add_trials(
        optuna.trial.create_trial(params=p, distributions=DISTRIBUTIONS, value=float(value))
        for p, value, times in zip(params, values, weights, strict=True)
        for _ in range(int(times))
    )
    share = 5 / count
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share)
        theirs = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    columns = [column(name, [p[name] for p in params]) for name in DISTRIBUTIONS]
    every = np.stack([np.ones(count), weights])  # the second is the sample that is looked at
    ours = divergences(columns, every, best(values, share, every))[:, 1]
    factor = theirs["whole"] / ours[0]  # Optuna scales all of them by the square of the share
    assert {name: pytest.approx(theirs[name] / factor) for name in DISTRIBUTIONS} == dict(
        zip(DISTRIBUTIONS, ours, strict=True)
    )


def test_importance_finds_the_variable_that_mattered(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=60)
    loss, cache = importances(study.spec, study.trials)
    assert loss.objective.name == "loss@4096" and loss.note is None and loss.of == len(study.completed)
    assert next(iter(loss.shares)) == "window" and loss.shares["window"].value > 0.6
    assert [share.chance for share in loss.shares.values()] == [False, True, True]
    assert sum(share.value for share in loss.shares.values()) == pytest.approx(1.0)
    assert set(loss.shares) == {"ratio", "window", "factor"}
    assert all(0 <= share.low <= share.value <= share.high <= 1 for share in loss.shares.values())
    assert next(iter(cache.shares)) == "ratio"  # the share of global layers decides the cache
    page = Page(render(study))
    assert f"window {loss.shares['window'].value:.0%}" in page.words
    assert f"Not to be told from chance: {', '.join(list(loss.shares)[1:])} (hollow)." in page.words
    assert [attrs["class"] for attrs in page.all("rect")].count("bar hollow") == 3
    assert len([attrs for attrs in page.all("path") if attrs["class"] == "reach"]) == 6


def test_an_interval_narrows_with_more_trials_and_equals_are_not_told_apart(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=1)
    draw = random.Random(0)

    def made(count: int, factor: float) -> Any:
        trials = []
        for number in range(count):
            params = {
                "ratio": draw.randint(1, 7),
                "window": draw.choice([16, 32, 64]),
                "factor": draw.choice([1, 2, 4]),
            }
            loss = 2 - 0.1 * math.log2(params["window"]) - factor * math.log2(params["factor"]) + draw.gauss(0, 0.1)
            trials.append(TrialRecord(number, "complete", params, {"loss@4096": loss}))
        return importances(study.spec, trials)[0]

    few, many = made(60, 0.0), made(2000, 0.0)
    width = [found.shares["window"].high - found.shares["window"].low for found in (few, many)]
    assert width[1] < width[0] / 2 and not many.shares["window"].chance
    alike = made(400, 0.1)
    first, second, last = alike.shares
    assert {first, second} == {"window", "factor"} and (first, second) in alike.ties
    assert alike.shares[last].value < 0.15 and ("window", "factor") not in many.ties


def test_luck_alone_is_no_importance(tmp_path: Path) -> None:
    """Of 40 studies whose losses are drawn by lot, each variable stands out in about a twentieth."""
    study = make_study(tmp_path, trials=1)
    draw, out = random.Random(0), 0
    for _ in range(40):
        trials = [
            TrialRecord(
                number,
                "complete",
                {"ratio": draw.randint(1, 7), "window": draw.choice([16, 32, 64]), "factor": draw.choice([1, 2, 4])},
                {"loss@4096": draw.random()},
            )
            for number in range(50)
        ]
        found = importances(study.spec, trials)[0]
        out += sum(not share.chance for share in found.shares.values())
        assert found.shares or found.note == "No variable can be told from chance with 50 trials."
    assert out <= 14, "of 120, 6 are to be expected"


@pytest.mark.parametrize("count", [30, 200])
def test_chance_is_told_from_an_effect_as_by_brute_force(count: int) -> None:
    """The statistic of Kruskal and Wallis, with all the orders that a few thousand shuffles give."""
    draw = random.Random(count)
    for effect in (0.0, 0.2, 0.4, 2.0):
        values = [draw.randint(0, 2) for _ in range(count)]
        costs = [round(effect * value + draw.gauss(0, 1), 1) for value in values]
        ordered = sorted(costs)
        ranks = [(ordered.index(cost) + count - 1 - ordered[::-1].index(cost)) / 2 for cost in costs]

        def apart(ranks: list[float], values: list[int] = values) -> float:
            groups = [[rank for rank, value in zip(ranks, values, strict=True) if value == one] for one in range(3)]
            middle = (count - 1) / 2
            return sum((sum(group) / len(group) - middle) ** 2 * len(group) for group in groups)

        shuffled = [apart(draw.sample(ranks, count)) for _ in range(2000)]
        share = sum(one >= apart(ranks) for one in shuffled) / len(shuffled)
        (found,) = by_chance([[Column(np.array(values), 3, True)]], np.array(costs))
        assert found == (share > 0.05) or abs(share - 0.05) < 0.03


def test_a_variable_whose_middle_is_best_is_told_from_chance() -> None:
    draw = random.Random(0)
    values = [draw.randint(0, 49) for _ in range(80)]
    costs = np.array([abs(value - 25) + draw.gauss(0, 3) for value in values])
    other = np.array([draw.randint(0, 49) for _ in range(80)])
    assert by_chance([[Column(np.array(values), 50, True)], [Column(other, 50, True)]], costs) == [False, True]


def test_of_a_halving_the_last_rung_that_half_of_the_trials_reached_counts(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=60, several=False)
    trials = []
    for trial in study.trained:
        ends = trial.number % 10 == 0
        rungs = [{"tokens": tokens, "values": {"loss@4096": 1 / trial.params["window"]}} for tokens in (500_000, 10**6)]
        rungs = rungs if trial.number % 3 == 0 or ends else rungs[:1]
        trials.append(replace(trial, state="complete" if ends else "pruned", rungs=rungs))
    (found,) = importances(study.spec, trials)
    assert found.of == len(trials) and next(iter(found.shares)) == "window"
    assert f"By the values at 500 k tokens, which {len(trials)} trials reached." in found.about


def test_importance_says_when_there_is_nothing_to_say(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=24)
    few = [t for t in study.trials if t.state == "complete"][:7]
    assert importances(study.spec, few)[0].note == "Too few: 7 trials completed, at least 8 are needed."
    same = [replace(t, values={"loss@4096": 1.0, "cache_bytes@131072": 5.0}) for t in study.completed]
    assert importances(study.spec, same)[0].note == "Every completed trial has the same value."
    about = importances(study.spec, study.trials)[0].about
    assert about == f"From {len(study.completed)} trials: a hint, not a measurement."


def test_importance_takes_any_kind_of_variable(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=40)
    data = study.spec.model_dump(mode="json")
    positions = [{"type": "rope"}, {"type": "nope"}, None, "text", True]
    data["variables"] = {
        "real": {"float": [1e-4, 1e-1], "log": True},
        "whole": {"int": [1, 64], "log": True},
        "odd": {"choice": positions},
        "alone": {"choice": [7]},
    }
    data["set"] = {"pattern": "'S' if real + whole > 0 else odd or alone"}
    spec = parse_spec(data, "search")
    draw = random.Random(1)
    trials = []
    for t in study.completed:
        real = 10 ** draw.uniform(-4, -1)
        params = {"real": real, "whole": draw.randint(1, 64), "odd": draw.choice(positions), "alone": 7}
        trials.append(replace(t, params=params, values={**t.values, "loss@4096": 1.0 + math.log10(real) ** 2}))
    shares = importances(spec, trials)[0].shares
    assert set(shares) == set(data["variables"]) and shares["alone"].value == 0.0
    assert next(iter(shares)) == "real"
    assert Page(render(replace(study, spec=spec, trials=trials)))

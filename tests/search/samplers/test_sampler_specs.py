"""Samplers that cannot do what a spec asks are refused: where it is written, or before a study is made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from miniwin.search.history import Tried
from miniwin.search.samplers.proposing import Proposer
from miniwin.search.space import Space, check_space
from miniwin.specs import UserError, load_model_spec, load_search_spec, load_train_spec, parse_spec

SPEC = """\
kind: search
format: 1
name: t
base: miniwin-tiny
train: demo
variables:
  ratio: {VARIABLE}
set:
  pattern: S * round(ratio) + G
objectives: [OBJECTIVES]
budget: {trials: 4}
sampler:
  SAMPLER
"""


def spec(sampler: str, variable: str = "int: [1, 7]", objectives: str = "minimize loss@2048") -> str:
    text = SPEC.replace("SAMPLER", sampler).replace("VARIABLE", variable)
    return text.replace("OBJECTIVES", objectives)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (
            spec("type: cmaes", objectives="minimize loss@2048, minimize parameters"),
            "13:9",
            "sampler.type: cmaes needs one objective, and there are 2: use nsga2, evolution or tpe",
        ),
        (spec("type: cmaes", "choice: [1, 2]"), "13:9", "needs numbers, and the variable ratio is none"),
        (spec("type: grid", "float: [1, 2]"), "13:9", "ratio has endlessly many: give it a step"),
        (spec("{type: evolution, population: 4}"), "12:1", "sampler.tournament: got 5; expected at most population, 4"),
        (spec("{type: hub, name: ../x}"), "13:21", "sampler.name"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_written(tmp_path: Path, text: str, place: str, message: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_search_spec(path)
    assert message in str(caught.value) and f"s.yaml:{place}:" in str(caught.value)


def space(sampler: dict[str, Any], variable: dict[str, Any] | None = None) -> Space:
    document = {
        "kind": "search",
        "format": 1,
        "name": "t",
        "base": "miniwin-tiny",
        "train": "demo",
        "variables": {"ratio": variable or {"int": [1, 7]}},
        "set": {"pattern": "S * (1 + round(ratio) % 7) + G"},
        "objectives": ["minimize loss@2048"],
        "budget": {"trials": 4},
        "sampler": sampler,
    }
    return Space(parse_spec(document, "search"), load_model_spec("miniwin-tiny"), load_train_spec("demo"))


@pytest.mark.parametrize(
    ("sampler", "module", "package", "extra"),
    [
        ("gp", "scipy", "scipy", "samplers"),
        ("cmaes", "cmaes", "cmaes", "samplers"),
        ("quasi-random", "scipy.stats.qmc", "scipy.stats.qmc", "samplers"),
        ("hub", "optunahub", "optunahub", "optunahub"),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, sampler: str, module: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    asked = space({"type": sampler, **({"name": "cma"} if sampler == "hub" else {})})
    said = f"{sampler} needs {package}, which is not installed: pip install 'miniwin[{extra}]'"
    with pytest.raises(UserError) as caught:
        check_space(asked)
    assert said in str(caught.value)


def test_a_grid_of_too_many_assignments_is_refused() -> None:
    with pytest.raises(UserError, match="grid tries all assignments, and there are too many"):
        check_space(space({"type": "grid"}, {"int": [0, 200_000]}))


# -- OptunaHub

SAMPLER = """\
from optuna.samplers import RandomSampler


class Lowest(RandomSampler):
    def __init__(self, seed, at=None):
        super().__init__(seed=seed)
        self.at = at

    def sample_independent(self, study, trial, name, distribution):
        return distribution.low if self.at is None else self.at


__all__ = ["Lowest"]
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("optunahub")
    monkeypatch.setenv("OPTUNAHUB_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "github.com/optuna/optunahub-registry/main/package/samplers/lowest"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(SAMPLER)
    return folder


def test_a_sampler_of_optunahub_comes_from_the_cache(cache: Path) -> None:
    assert Proposer(space({"type": "hub", "name": "lowest"})).propose([]) == {"ratio": 1}
    assert Proposer(space({"type": "hub", "name": "lowest", "kwargs": {"at": 4}})).propose([]) == {"ratio": 4}
    first = Tried(0, {"ratio": 1}, "running")
    assert Proposer(space({"type": "hub", "name": "lowest"})).propose([first]) != {"ratio": 1}  # it was tried


def test_a_sampler_that_is_not_in_the_cache_is_not_fetched(cache: Path) -> None:
    with pytest.raises(UserError, match=r"a search fetches no code: run .*load_module\('samplers/other'\)"):
        check_space(space({"type": "hub", "name": "other"}))


def test_a_package_without_one_sampler_is_refused(cache: Path) -> None:
    (cache / "__init__.py").write_text("from optuna.samplers import *\n__all__ = ['RandomSampler', 'TPESampler']\n")
    with pytest.raises(UserError, match="has to have one sampler; it has RandomSampler, TPESampler"):
        check_space(space({"type": "hub", "name": "lowest"}))


def test_arguments_that_a_sampler_does_not_take_are_said(cache: Path) -> None:
    with pytest.raises(UserError, match=r"sampler\.kwargs: Lowest of OptunaHub's lowest: .*'wrong'"):
        Proposer(space({"type": "hub", "name": "lowest", "kwargs": {"wrong": 4}})).propose([])

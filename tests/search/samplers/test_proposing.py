"""Proposals: valid, the same for the same history, never twice, and better than chance where there is much to learn.

Nothing here trains: a made-up function of the variables takes the place of a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from miniwin.search.history import Tried
from miniwin.search.samplers.keys import key_of
from miniwin.search.samplers.proposing import STREAK, Proposer
from miniwin.search.samplers.told import ENOUGH, Teller
from miniwin.search.space import Space
from miniwin.specs import load_model_spec, load_train_spec, parse_spec

MODEL = "miniwin-tiny"
VARIABLES: dict[str, Any] = {
    "ratio": {"int": [1, 7]},
    "window": {"choice": [8, 16, 32]},
    "factor": {"choice": [1, 2]},
    "lr": {"float": [1e-4, 1e-2], "log": True},
}
NUMBERS: dict[str, Any] = {"ratio": {"int": [1, 7]}, "lr": VARIABLES["lr"]}
STEPS: dict[str, Any] = {name: VARIABLES[name] for name in ("ratio", "window", "factor")}
SET = {
    "pattern": "S * ratio + G",
    "blocks.S.attention.window": "window",
    "blocks.S.attention.position.period": "factor * window",
    "train.optimizer.lr": "lr",
}
SAMPLERS: dict[str, dict[str, Any]] = {
    "tpe": {"startup": 4},
    "gp": {"startup": 4},
    "nsga2": {"population": 4},
    "nsga3": {"population": 4},
    "cmaes": {"population": 4},
    "random": {},
    "grid": {},
    "quasi-random": {},
    "evolution": {"population": 6, "tournament": 3, "crossover": 0.5},
}
LEARNING = ("tpe", "nsga2", "cmaes", "evolution")
PACKAGES = {"gp": "scipy", "cmaes": "cmaes", "quasi-random": "scipy"}
ONE, TWO = ["minimize loss@2048"], ["minimize loss@2048", "minimize parameters"]


def space(sampler: str, objectives: list[str] = ONE, **changes: Any) -> Space:
    if sampler in PACKAGES:
        pytest.importorskip(PACKAGES[sampler])
    variables = {"cmaes": NUMBERS, "grid": STEPS}.get(sampler, VARIABLES)
    used = {path: text for path, text in SET.items() if any(name in text for name in variables)}
    spec = parse_spec(
        {
            "kind": "search",
            "format": 1,
            "name": "t",
            "base": MODEL,
            "train": "demo",
            "variables": variables,
            "set": used,
            "objectives": objectives,
            "budget": {"trials": 40},
            "sampler": {"type": sampler, **SAMPLERS[sampler]},
            **changes,
        },
        "search",
    )
    return Space(spec, load_model_spec(MODEL), load_train_spec("demo"))


def loss(params: dict[str, Any]) -> float:
    """Best at a ratio of 5, a window of 16, and a learning rate of 1e-3."""
    window = {8: 0.3, 16: 0.0, 32: 0.6}[params.get("window", 16)]
    return abs(params["ratio"] - 5) / 6 + window + abs(math.log10(params.get("lr", 1e-3)) + 3)


def few(sampler: str, many: int) -> int:
    """A Gaussian process takes most of a second for a proposal."""
    return 7 if sampler == "gp" else many


def played(space: Space, trials: int, values: Callable[[dict[str, Any]], tuple[float, ...]]) -> list[Tried]:
    """A history in which every proposal was trained to the end at once."""
    proposer, history = Proposer(space), []
    nothing = (math.nan,) * len(space.spec.objectives)
    for number in range(trials):
        params = proposer.propose(history)
        if params is None:
            break
        history.append(Tried(number, params, "complete", (nothing, nothing, values(params))))
    return history


def one(params: dict[str, Any]) -> tuple[float, ...]:
    return (loss(params),)


def two(params: dict[str, Any]) -> tuple[float, ...]:
    return (loss(params), float(params["ratio"]))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_proposals_are_valid_and_never_the_same(sampler: str) -> None:
    asked = space(sampler)
    history = played(asked, few(sampler, 16), one)
    for tried in history:
        assert asked.assign(_values(asked, tried.params)).candidate is not None
    assert len({key_of(tried.params) for tried in history}) == len(history)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_history_leads_to_the_same_proposal_in_every_process(sampler: str) -> None:
    asked = space(sampler)
    history = played(asked, few(sampler, 13), one)
    assert Proposer(asked).propose(history[:-1]) == history[-1].params  # nothing is kept from earlier proposals
    assert [trial.params for trial in played(space(sampler, seed=1), 3, one)] != [t.params for t in history[:3]]


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "cmaes"])
def test_several_objectives(sampler: str) -> None:
    history = played(space(sampler, TWO), few(sampler, 14), two)
    assert len({key_of(tried.params) for tried in history}) == len(history)


@pytest.mark.parametrize("sampler", LEARNING)
def test_what_is_learnt_beats_chance(sampler: str) -> None:
    def latest(of: Space) -> float:
        found = sorted(loss(tried.params) for tried in played(of, 40, one)[20:])
        return found[len(found) // 2]

    asked = space(sampler)
    chance = Space(asked.spec.model_copy(update={"sampler": space("random").spec.sampler}), asked.base, asked.train)
    assert latest(asked) < 0.8 * latest(chance)


def _values(space: Space, params: dict[str, Any]) -> dict[str, Any]:
    from optuna.trial import FixedTrial

    return space.suggest(FixedTrial(params))


# -- variables that not every trial has, and placements

CONDITIONAL: dict[str, Any] = {
    "globals": {"subset": {"of": 6, "size": [1, 2]}},
    "window": {"choice": [8, 16]},
    "factor": {"int": [1, 4], "when": {"window": 16}},
}
PLACED = {
    "num_layers": 6,
    "last": None,
    "pattern": "place(globals, G, S)",
    "blocks.S.attention.window": "window",
    "blocks.S.attention.position.period": "factor * window",
}


@pytest.mark.parametrize("placements", ["letters", "ordinal"])
@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name not in ("cmaes", "gp")])
def test_conditions_and_placements_hold_in_every_proposal(sampler: str, placements: str) -> None:
    asked, history = space(sampler, variables=CONDITIONAL, set=PLACED), []
    proposer = Proposer(asked, placements)
    for number in range(20):
        params = proposer.propose(history)
        assert params is not None
        values = asked.decode(params)
        assert ("factor" in values) == (values["window"] == 16) and 1 <= len(values["globals"]) <= 2
        assert asked.encode(values) == params  # in the coding of the storage, whatever the sampler's
        value = sum(values["globals"]) + values.get("factor", 0)
        history.append(Tried(number, params, "complete", ((float(value),),)))
    assert len({key_of(tried.params) for tried in history}) == 20


@pytest.mark.parametrize(("sampler", "placements"), [("tpe", "letters"), ("tpe", "ordinal"), ("evolution", "letters")])
def test_a_placement_is_learnt(sampler: str, placements: str) -> None:
    """The best layers to be global are the last ones."""

    def latest(of: Space, coding: str | None) -> float:
        proposer, history = Proposer(of, coding), []
        for number in range(40):
            params = proposer.propose(history)
            assert params is not None
            value = -sum(of.decode(params)["globals"])
            history.append(Tried(number, params, "complete", ((float(value),),)))
        return sum(tried.rungs[-1][0] for tried in history[20:]) / 20

    several = {"globals": {"subset": {"of": 12, "size": 3}}, "window": {"choice": [8, 16]}}
    used = {"num_layers": 12, "last": None, **{path: PLACED[path] for path in ("pattern", "blocks.S.attention.window")}}
    learnt = latest(space(sampler, variables=several, set=used), placements)
    assert learnt < 1.1 * latest(space("random", variables=several, set=used), None)  # both are below 0


@pytest.mark.parametrize(("sampler", "of", "by_rank"), [("tpe", 6, True), ("tpe", 7, False), ("evolution", 6, False)])
def test_tpe_is_told_of_few_placements_by_their_rank(sampler: str, of: int, by_rank: bool) -> None:
    """Of 15 of them, not of 21."""
    several = {"globals": {"subset": {"of": of, "size": 2}}}
    asked = space(sampler, variables=several, set={"num_layers": of, "last": None, "pattern": PLACED["pattern"]})
    names = Proposer(asked).past([]).space.distributions()
    assert (list(names) == ["globals"]) == by_rank
    assert "globals.0" in asked.distributions()  # as the storage has them


# -- what a sampler is told


def told(*history: Tried, objectives: list[str] = ONE) -> list[tuple[str, list[float] | None, dict[int, float]]]:
    trials = Teller(space("tpe", objectives))(history)
    return [(trial.state.name, trial.values, trial.intermediate_values) for trial in trials]


def tried(number: int, state: str, *rungs: float, **more: Any) -> Tried:
    params = {"ratio": 1 + number % 7, "window": 16, "factor": 1, "lr": 1e-3}
    return Tried(number, params, state, tuple((value,) for value in rungs), **more)


def test_trials_are_told_at_the_highest_rung_that_enough_reached() -> None:
    low = [tried(number, "paused", 3.0) for number in range(12)]
    middle = [tried(number, "pruned", 3.0, 2.0) for number in range(12, 12 + ENOUGH - 1)]
    top = tried(30, "complete", 3.0, 2.0, 1.0)
    found = told(*low, *middle, top)  # with the complete one, enough reached rung 1
    assert found[0] == ("PRUNED", None, {0: 3.0})
    assert found[12] == ("COMPLETE", [2.0], {}) and found[-1] == ("COMPLETE", [2.0], {})
    assert told(*low, *middle[1:], top)[-1] == ("COMPLETE", [3.0], {})  # one less: rung 0


def test_one_finished_trial_is_told_at_the_end_though_others_run() -> None:
    found = told(tried(0, "complete", 3.0, 2.0, 1.0), tried(1, "running", 3.5), tried(2, "running"))
    assert found == [("COMPLETE", [1.0], {}), ("RUNNING", None, {}), ("RUNNING", None, {})]


def test_trials_without_a_value_are_told_apart() -> None:
    infeasible = tried(1, "infeasible", constraints={"parameters <= 1": 3.0})
    trials = Teller(space("tpe"))([tried(0, "complete", 3.0, 2.0, 1.0), infeasible, tried(2, "failed")])
    assert [trial.state.name for trial in trials] == ["COMPLETE", "PRUNED", "FAIL"]
    assert trials[1].constraints == {"parameters <= 1": 3.0}
    other = Tried(0, {"ratio": 1, "gone": 2}, "complete", ((1.0,), (1.0,), (1.0,)))
    assert [trial.state.name for trial in Teller(space("tpe"))([other])] == ["FAIL"]  # of another space


def test_several_objectives_have_no_values_below_the_rung() -> None:
    top = [Tried(n, tried(n, "").params, "complete", ((3.0, 1.0),) * 3) for n in range(ENOUGH)]
    below = Tried(ENOUGH, tried(0, "").params, "paused", ((2.0, 1.0),))
    assert told(*top, below, objectives=TWO)[-1] == ("PRUNED", None, {})


def test_what_is_kept_for_the_next_proposal_changes_nothing() -> None:
    """A trial goes from running to paused, is promoted, and ends, while others come."""
    asked = space("tpe")
    kept, history = Proposer(asked), []
    for number in range(14):
        history.append(tried(number, "running"))
        for older, reached in ((1, (3.0,)), (4, (3.0, 2.0)), (7, (3.0, 2.0, 1.0 + number))):
            if number >= older:
                state = "complete" if older == 7 else "paused"
                history[number - older] = tried(number - older, state, *reached)
        assert kept.propose(history) == Proposer(asked).propose(history)


# -- where a sampler has nothing new to say


def test_a_space_is_tried_to_the_last_assignment_and_then_exhausted() -> None:
    only = {"ratio": {"int": [1, 3]}, "window": {"choice": [8, 16]}}
    for sampler in ("tpe", "grid", "evolution"):
        asked = space(sampler, variables=only, set={"pattern": SET["pattern"], "blocks.S.attention.window": "window"})
        history = played(asked, 10, one)
        assert len(history) == 6 and len({key_of(trial.params) for trial in history}) == 6
        assert Proposer(asked).propose(history) is None


def test_after_many_free_trials_an_assignment_is_drawn_at_random() -> None:
    asked = space("tpe")
    trained = played(asked, 10, one)
    best = min(trained, key=lambda trial: one(trial.params)).params
    free = [Tried(10 + n, {**best, "lr": 1e-3 + n * 1e-6}, "infeasible") for n in range(STREAK)]
    drawn = [Proposer(space("tpe", seed=seed)).propose([*trained, *free]) for seed in range(8)]
    assert len({(params["ratio"], params["window"]) for params in drawn if params}) > 4

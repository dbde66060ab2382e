"""Samplers for placements alone: swaps from the best, greedy addition, greedy removal."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest

from miniwin.search.history import Tried
from miniwin.search.samplers.keys import key_of
from miniwin.search.samplers.proposing import Proposer
from miniwin.search.samplers.ways import check_sampler
from miniwin.search.space import Space
from miniwin.specs import UserError, load_model_spec, load_train_spec, parse_spec

LAYERS = 30
CIRCUIT, DECOYS = {7, 8, 17, 18, 23}, {2: 0.12, 12: 0.13, 27: 0.11}


def space(sampler: dict[str, Any], size: Any, *, of: int = LAYERS, seed: int = 0, **changes: Any) -> Space:
    spec = parse_spec(
        {
            "kind": "search",
            "format": 1,
            "name": "t",
            "base": "miniwin-tiny",
            "train": "demo",
            "variables": {"layers": {"subset": {"of": of, "size": size}}},
            "set": {"num_layers": of, "pattern": "place(layers, G, S)", "last": None},
            "objectives": ["minimize loss@2048"],
            "budget": {"trials": 40},
            "sampler": sampler,
            "seed": seed,
            **changes,
        },
        "search",
    )
    return Space(spec, load_model_spec("miniwin-tiny"), load_train_spec("demo"))


def damage(layers: list[int]) -> float:
    """Nats lost with these layers global. Five layers retrieve together; alone each helps less than a decoy."""
    together = (len(CIRCUIT.intersection(layers)) / len(CIRCUIT)) ** 2
    return 2.4 * (1 - together) - sum(DECOYS.get(layer, 0.0) for layer in layers)


def additive(layers: list[int]) -> float:
    return -sum((3 * layer) % 7 + layer / 10 for layer in layers)


def played(of: Space, trials: int, value: Callable[[list[int]], float]) -> list[tuple[tuple[int, ...], float]]:
    """The subsets that were tried, and what each came to."""
    proposer, history, found = Proposer(of), [], []
    others = (0.0,) * (len(of.spec.objectives) - 1)
    for number in range(trials):
        params = proposer.propose(history)
        assert params is not None
        layers = of.decode(params)["layers"]
        found.append((tuple(layers), value(layers)))
        history.append(Tried(number, params, "complete", ((*others, value(layers)),)))
    assert len({key_of(tried.params) for tried in history}) == len(history)
    return found


def best(sampler: dict[str, Any], seed: int) -> float:
    return min(value for _, value in played(space(sampler, 8, seed=seed), 80, damage))


def test_swaps_find_what_helps_only_together() -> None:
    seeds = range(9)
    swaps, chance = ([best({"type": kind}, seed) for seed in seeds] for kind in ("swaps", "random"))
    assert median(swaps) < 0.2 and median(chance) > 1.0
    assert sum(one < other for one, other in zip(swaps, chance, strict=True)) >= 7


def test_swaps_keep_the_size_and_change_one_place_of_the_best() -> None:
    found = played(space({"type": "swaps", "startup": 4}, 3, of=8), 20, additive)
    for number, (layers, _) in enumerate(found):
        assert len(layers) == 3
        if number >= 4 and number < 10:
            parent = min(found[:number], key=lambda one: one[1])[0]
            assert len(set(layers) - set(parent)) == 1


def test_swaps_change_the_size_where_it_may_change() -> None:
    sizes = {len(layers) for layers, _ in played(space({"type": "swaps"}, [1, 4], of=8), 30, additive)}
    assert {3, 4} <= sizes


def test_greedy_addition_scores_every_place_anew_in_each_round() -> None:
    found = played(space({"type": "greedy-addition"}, [0, 3], of=6), 1 + 6 + 5 + 4 + 3, additive)
    tried = [set(layers) for layers, _ in found]
    assert tried[0] == set() and [len(one) for one in tried[:16]] == [0] + [1] * 6 + [2] * 5 + [3] * 4
    ranked = sorted(range(6), key=lambda layer: additive([layer]))
    assert all(ranked[0] in one for one in tried[7:12]) and all(set(ranked[:2]) < one for one in tried[12:16])
    assert min(found, key=lambda one: one[1])[0] == tuple(sorted(ranked[:3]))
    assert len(set(map(frozenset, tried))) == 19  # it goes on with what was not tried


def test_greedy_removal_begins_with_all_places() -> None:
    found = played(space({"type": "greedy-removal"}, [2, 5], of=5), 1 + 5 + 4 + 3, additive)
    tried = [set(layers) for layers, _ in found]
    ranked = sorted(range(5), key=lambda layer: additive([layer]), reverse=True)  # the least missed first
    assert tried[0] == set(range(5)) and [len(one) for one in tried] == [5] + [4] * 5 + [3] * 4 + [2] * 3
    assert all(ranked[0] not in one for one in tried[6:]) and all(not set(ranked[:2]) & one for one in tried[10:])


def test_a_round_that_others_still_measure_is_not_waited_for() -> None:
    of = space({"type": "greedy-addition"}, [0, 2], of=4)
    history = [
        Tried(number, of.encode({"layers": layers}), "complete", ((additive(layers),),))
        for number, layers in enumerate([[], [0], [1]])
    ]
    history += [
        Tried(3, of.encode({"layers": [2]}), "running"),
        Tried(4, of.encode({"layers": [3]}), "infeasible"),
    ]
    params = Proposer(of).propose(history)
    assert params is not None
    better = min([0], [1], key=additive)
    assert set(better) < set(of.decode(params)["layers"]) and len(of.decode(params)["layers"]) == 2


def test_greedy_compares_by_the_objective_that_chooses_the_best_trial() -> None:
    two = ["minimize cache_bytes@4096", "minimize loss@2048"]
    found = played(space({"type": "greedy-addition"}, [0, 2], of=5, objectives=two), 10, additive)
    first = min(range(5), key=lambda layer: additive([layer]))
    assert all(first in layers for layers, _ in found[6:])


WINDOW = {"variables": {"window": {"choice": [8, 16]}}, "set": {"blocks.S.attention.window": "window"}}


@pytest.mark.parametrize(
    ("sampler", "size", "more", "message"),
    [
        ("swaps", 2, WINDOW, "no variable is a subset or a sequence"),
        ("greedy-addition", 2, {}, r"give it a range, such as \[0, 4\]"),
        ("greedy-addition", [2, 3], {}, "has at least 2: let its size begin at 0"),
        ("greedy-removal", [2, 3], {}, "begins with all 30 places, and layers has at most 3: let its size end there"),
    ],
)  # fmt: skip
def test_what_a_sampler_cannot_do_is_refused(sampler: str, size: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"sampler.type: .*{message}"):
        check_sampler(space({"type": sampler}, size, **more))


def test_removal_knows_the_layers_of_the_base_model() -> None:
    more = {
        "variables": {"layers": {"subset": {"of": "num_layers", "size": [1, 4]}}},
        "set": {"pattern": "place(layers, G, S)", "last": None},
    }
    with pytest.raises(UserError, match=r"sampler\.type: greedy-removal begins with all 8 places"):
        check_sampler(space({"type": "greedy-removal"}, 0, **more))


def test_damages_that_are_not_known_do_not_stop_it() -> None:
    found = played(space({"type": "greedy-addition"}, [0, 2], of=4), 8, lambda layers: math.nan)
    assert len(found) == 8

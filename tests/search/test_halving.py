"""Who goes on at a rung: compared with results that were counted by hand, or by brute force."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import pytest

from miniwin.search.brackets import Rule, bracket_of, shares
from miniwin.search.halving import goes_on, last_chance, promotable
from miniwin.search.history import Tried
from miniwin.search.pareto import Point, among_best, by_contribution, contribution, hypervolume, layers

LESS, BOTH = ["minimize"], ["minimize", "maximize"]
HALF = Rule(reduction=2, rungs=2)


def tried(number: int, *rungs: float | tuple[float, ...], state: str = "paused", bracket: int = 0) -> Tried:
    rows = tuple(row if isinstance(row, tuple) else (row,) for row in rungs)
    return Tried(number, {}, state, rows, bracket)


def counted(points: Sequence[Point], reference: Point) -> float:
    """The hypervolume of points of whole numbers: the unit cells that a point dominates, counted."""
    cells = itertools.product(*(range(int(bound)) for bound in reference))
    return sum(any(all(a <= c for a, c in zip(p, cell, strict=True)) for p in points) for cell in cells)


def some_points(draw: random.Random, count: int, objectives: int, most: int = 6) -> list[Point]:
    return [tuple(float(draw.randrange(most)) for _ in range(objectives)) for _ in range(count)]


def best_first(points: Sequence[Point]) -> list[int]:
    """All indices, rank by rank."""
    sound = [index for index, point in enumerate(points) if all(map(math.isfinite, point))]
    ordered: list[int] = []
    for layer in layers([points[index] for index in sound]):
        rank = [sound[place] for place in layer]
        ordered += [rank[place] for place in by_contribution([points[index] for index in rank])]
    return ordered + [index for index in range(len(points)) if index not in sound]


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_hypervolume_is_what_counting_cells_gives(objectives: int) -> None:
    draw = random.Random(objectives)
    for _ in range(15):
        points = some_points(draw, draw.randrange(1, 9), objectives)
        reference = (5.0,) * objectives  # some points lie on it, or beyond
        assert hypervolume(points, reference) == counted(points, reference)
        without = counted(points[1:], (7.0,) * objectives)
        assert (
            contribution(points[0], points[1:], (7.0,) * objectives) == counted(points, (7.0,) * objectives) - without
        )


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_layers_are_what_peeling_gives(objectives: int) -> None:
    draw = random.Random(objectives)
    for _ in range(10):
        points = some_points(draw, 30, objectives)
        left, peeled = list(range(len(points))), []
        while left:

            def beaten(i: int, left: list[int] = left, points: list[Point] = points) -> bool:
                others = [j for j in left if all(a <= b for a, b in zip(points[j], points[i], strict=True))]
                return any(points[j] != points[i] or j < i for j in others)  # of equal points the first comes first

            peeled.append([i for i in left if not beaten(i)])
            left = [i for i in left if i not in peeled[-1]]
        assert layers(points) == peeled


def test_the_point_that_contributes_least_comes_last() -> None:
    draw = random.Random(0)
    for objectives in (2, 3):
        points = [tuple(draw.random() for _ in range(objectives)) for _ in range(40)]
        front = [points[index] for index in layers(points)[0]]
        # The same, without bounds: every contribution is worked out anew after each point that leaves.
        lows, highs = (list(map(of, zip(*front, strict=True))) for of in (min, max))
        scaled = [tuple((v - a) / (b - a) for v, a, b in zip(p, lows, highs, strict=True)) for p in front]
        reference = (1 + 1 / (len(front) ** (1 / (objectives - 1)) - 1),) * objectives
        left, order = list(range(len(front))), []
        while left:
            adds = {i: contribution(scaled[i], [scaled[j] for j in left if j != i], reference) for i in left}
            order.append(min(left, key=lambda i: (adds[i], -i)))
            left.remove(order[-1])
        assert by_contribution(front) == order[::-1]


def test_units_do_not_matter_and_twins_do_not_hide_each_other() -> None:
    front = [(0.0, 4.0), (1.0, 2.0), (2.5, 1.25), (4.0, 0.0), (1.01, 1.99)]
    bytes_and_nats = [(2**30 * x, y / 1000 + 1.5) for x, y in front]
    assert by_contribution(front) == by_contribution(bytes_and_nats)
    assert by_contribution(front)[-1] in (1, 4), "one of the twins adds nearly nothing"
    assert set(by_contribution(front)[:3]) & {1, 4}, "the other adds much once its twin is gone"


def test_what_diverged_is_worst_and_of_equals_the_first_is_best() -> None:
    points = [(math.nan, 0.0), (3.0, 3.0), (1.0, 1.0), (1.0, 1.0), (math.inf, 0.0)]
    assert best_first(points) == [2, 3, 1, 0, 4]


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_the_best_of_some_is_who_comes_first_of_them_in_the_order_of_all(objectives: int) -> None:
    draw = random.Random(objectives)
    for _ in range(30):
        points = [*some_points(draw, 20, objectives, most=9), (math.nan,) * objectives]
        order, wanted = best_first(points), set(draw.sample(range(21), draw.randrange(6)))
        for most in range(22):
            expected = next((index for index in order[:most] if index in wanted), None)
            assert among_best(points, most, wanted) == expected


def test_one_objective_goes_on_by_its_value() -> None:
    history = [tried(0, 3.0), tried(1, 1.0), tried(2, 2.0), tried(3, 4.0)]
    assert [goes_on(history, number, LESS, HALF) for number in range(4)] == [False, True, True, False]
    assert not goes_on(history[:1], 0, LESS, HALF), "one alone is not the best of two"
    assert [goes_on(history, number, ["maximize"], HALF) for number in range(4)] == [True, False, False, True]


def test_two_objectives_go_on_by_rank_and_then_by_hypervolume() -> None:
    front = [tried(0, (1.0, 1.0)), tried(1, (2.0, 8.0)), tried(2, (9.0, 9.0))]  # the second objective is maximised
    behind = [tried(3, (9.5, 8.5)), tried(4, (2.5, 7.0)), tried(5, (9.9, 0.5))]
    history = front + behind
    assert [trial.number for trial in history if goes_on(history, trial.number, BOTH, HALF)] == [0, 1, 2]
    third = Rule(reduction=3, rungs=2)
    best = [trial.number for trial in history if goes_on(history, trial.number, BOTH, third)]
    assert len(best) == 2 and 1 in best, "the bend of the front dominates most"
    assert promotable(history, BOTH, third) == history[1]


def test_an_objective_that_nobody_knows_yet_is_left_out() -> None:
    history = [tried(0, (2.0, math.nan)), tried(1, (1.0, math.nan))]
    assert [goes_on(history, number, BOTH, HALF) for number in (0, 1)] == [False, True]


def test_a_diverged_trial_makes_room_for_others() -> None:
    history = [tried(0, 3.0), tried(1, math.nan, state="pruned")]
    assert goes_on(history, 0, LESS, HALF) and promotable(history, LESS, HALF) == history[0]


def test_the_highest_rung_comes_first_and_who_has_gone_on_keeps_its_place() -> None:
    history = [
        tried(0, 1.0, 5.0),  # waits at rung 1
        tried(1, 2.0, 6.0),
        tried(2, 3.0),  # waits at rung 0, where 0 and 1 are better: two of five go on
        tried(3, 4.0),
        tried(4, 5.0),
    ]
    assert promotable(history, LESS, HALF) == history[0]
    gone = [tried(0, 1.0, 5.0, state="running"), *history[1:]]
    assert promotable(gone, LESS, HALF) is None, "rung 1 sends one of two, rung 0 two of five; they have gone"
    assert promotable([*gone, tried(5, 6.0)], LESS, HALF) == history[2], "a sixth makes room for a third"
    assert promotable([*gone, tried(5, 6.0, state="running")], LESS, HALF) == history[2]


def test_a_search_does_not_end_without_a_complete_trial() -> None:
    history = [tried(0, 2.0), tried(1, 1.0)]
    rule = Rule(reduction=3, rungs=2)
    assert promotable(history, LESS, rule) is None and last_chance(history, LESS, rule) == history[1]
    history[1] = tried(1, 1.0, 1.0)
    assert last_chance(history, LESS, rule) == history[1], "from rung to rung"
    for state in ("running", "complete"):
        assert last_chance([history[0], tried(1, 1.0, 1.0, 1.0, state=state)], LESS, rule) is None
    diverged = [history[0], tried(1, 1.0, math.nan, state="pruned")]
    assert last_chance(diverged, LESS, rule) == history[0], "the next best gets the chance"
    assert last_chance([tried(0, 1.0, bracket=0), tried(1, 9.0, 9.0, state="complete", bracket=1)], LESS, rule)


def go_on(history: list[Tried], rule: Rule, spare: int) -> list[Tried]:
    """Let trials go on as long as any may. At a rung a trial has its number as its value."""
    while chosen := promotable(history, LESS, rule, spare):
        reached = len(chosen.rungs) + 1
        state = "complete" if reached > rule.rungs else "paused"
        history[chosen.number] = tried(chosen.number, *[chosen.number] * reached, state=state, bracket=chosen.bracket)
    return history


@pytest.mark.parametrize(("spare", "expected"), [
    (0, [18, 6, 2, 1]),  # 18 / 3, 6 / 3, 2 / 3: none is one of three
    (1, [18, 7, 3, 1]),
    (4, [18, 10, 6, 4]),
    (17, [18, 18, 18, 17]),
    (1000, [18, 18, 18, 18]),
])  # fmt: skip
def test_each_trial_that_is_left_lets_one_more_go_on_from_each_rung(spare: int, expected: list[int]) -> None:
    rule, history = Rule(reduction=3, rungs=3), [tried(number, number) for number in range(18)]
    history = go_on(history, rule, spare)
    if spare == 0:
        assert last_chance(history, LESS, rule) == history[0]
        history[0] = tried(0, 0.0, 0.0, 0.0, 0.0, state="complete")
    assert [sum(len(one.rungs) > rung for one in history) for rung in range(4)] == expected
    assert [one.number for one in history if one.state == "complete"] == list(range(expected[-1])), "the best"


def test_trials_that_are_left_are_shared_by_the_brackets_in_which_trials_wait() -> None:
    rule = Rule(reduction=2, rungs=2, brackets=3)

    def begun() -> list[Tried]:
        brackets = [bracket_of(number, rule) for number in range(20)]
        rungs = [3 if bracket == 2 else bracket + 1 for bracket in brackets]
        states = ["complete" if bracket == 2 else "paused" for bracket in brackets]
        ways = zip(range(20), rungs, states, brackets, strict=True)
        return [tried(n, *[n] * reached, state=state, bracket=bracket) for n, reached, state, bracket in ways]

    def complete(spare: int) -> list[int]:
        ended = [one.bracket for one in go_on(begun(), rule, spare) if one.state == "complete"]
        return [ended.count(bracket) for bracket in range(2)]

    before, after = complete(0), complete(7)
    assert [more - less for less, more in zip(before, after, strict=True)] == [4, 3]
    assert sum(complete(20)) == sum(one.bracket < 2 for one in begun()), "enough for all"


def test_brackets_are_compared_among_themselves_and_judged_later() -> None:
    rule = Rule(reduction=2, rungs=2, brackets=3)
    history = [
        tried(0, 1.0, bracket=0),
        tried(1, 2.0, bracket=0),
        tried(2, 9.0, bracket=1, state="running"),
        tried(3, 9.0, 9.0, bracket=1),
        tried(4, 9.0, 8.0, bracket=1),
        tried(5, 9.0, 9.0, bracket=2, state="running"),
    ]
    assert [goes_on(history, number, LESS, rule) for number in range(6)] == [True, False, True, False, True, True]
    assert promotable(history, LESS, rule) == history[4]


@pytest.mark.parametrize(("rule", "expected"), [
    (Rule(3, 4, 5), [81, 34, 15, 8, 5]),  # 5/5 * 81, 5/4 * 27, 5/3 * 9, 5/2 * 3, 5
    (Rule(2, 2, 1), [4]),
    (Rule(2, 2, 3), [4, 3, 3]),
])  # fmt: skip
def test_trials_are_dealt_to_brackets_in_hyperbands_proportions(rule: Rule, expected: list[int]) -> None:
    assert shares(rule) == expected
    dealt = [bracket_of(number, rule) for number in range(sum(expected))]
    assert [dealt.count(bracket) for bracket in range(rule.brackets)] == expected
    assert bracket_of(sum(expected), rule) == dealt[0]
    for most in range(1, len(dealt)):  # at any moment each bracket has about its share
        for bracket, share in enumerate(expected):
            assert abs(dealt[:most].count(bracket) - most * share / sum(expected)) < rule.brackets

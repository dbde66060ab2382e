"""What a search can say: conditional variables and placements, their codings, and small changes of them."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from miniwin.search.history import Tried
from miniwin.search.samplers.proposing import Proposer
from miniwin.search.space import Space, check_search
from miniwin.search.variables import Variables
from miniwin.search.variation import crossed, mutated
from miniwin.specs import UserError, dump_yaml, load_model_spec, load_search_spec, load_train_spec, parse_spec
from miniwin.specs.expressions import Expression, Members

SEARCH: dict[str, Any] = {
    "kind": "search",
    "format": 1,
    "name": "t",
    "base": "miniwin-tiny",
    "train": "demo",
    "objectives": ["minimize loss@2048"],
    "budget": {"trials": 4},
}
SUBSET = {"subset": {"of": "num_layers", "size": [1, 3]}}
LAYOUT = {"sequence": {"letters": ["S", "G"], "length": "num_layers", "at_most": {"G": 3}, "not_twice": ["G"]}}
# A space with all there is: conditions on conditions, numbers of other variables, both kinds of placement.
ALL = {
    "kind_of": {"choice": ["count", "free", {"type": "rope"}]},
    "count": {"int": [1, 3], "when": {"kind_of": "count"}},
    "layers": {"subset": {"of": 5, "size": "count"}, "when": {"kind_of": "count"}},
    "depth": {"int": [2, 4], "step": 2, "when": {"kind_of": ["free", {"type": "rope"}]}},
    "free": {"subset": {"of": "depth", "size": [0, 2]}, "when": {"kind_of": "free"}},
    "word": {
        "sequence": {"letters": ["S", "G", "F"], "length": "depth", "at_least": {"G": 1}, "not_twice": ["S"]},
        "when": {"kind_of": {"type": "rope"}, "depth": 4},
    },
    "lr": {"float": [0.1, 0.4], "step": 0.1},
}


def variables(spec: dict[str, Any], placements: str = "letters", first: dict[str, int] | None = None) -> Variables:
    parsed = parse_spec({**SEARCH, "variables": spec, "set": {"pattern": "G"}}, "search")
    return Variables(parsed.variables, 8, placements, first)


def space(**changes: Any) -> Space:
    spec = parse_spec({**SEARCH, **changes}, "search")
    return Space(spec, load_model_spec("miniwin-tiny"), load_train_spec("demo"))


def by_hand(conditions: bool = True) -> list[dict[str, Any]]:
    """All assignments of ALL, written out."""
    found: list[dict[str, Any]] = []
    for lr in (0.1, 0.2, 0.3, 0.4):
        for count in (1, 2, 3):
            for chosen in itertools.combinations(range(5), count):
                found.append({"kind_of": "count", "count": count, "layers": list(chosen), "lr": lr})
        for depth in (2, 4):
            for size in (0, 1, 2):
                for chosen in itertools.combinations(range(depth), size):
                    found.append({"kind_of": "free", "depth": depth, "free": list(chosen), "lr": lr})
        found.append({"kind_of": {"type": "rope"}, "depth": 2, "lr": lr})
        for letters in itertools.product("SGF", repeat=4):
            word = "".join(letters)
            if "G" in word and "SS" not in word:
                found.append({"kind_of": {"type": "rope"}, "depth": 4, "word": word, "lr": lr})
    return found


def rounded(values: dict[str, Any]) -> str:
    return repr(sorted({**values, "lr": round(values["lr"], 9)}.items()))


# -- all assignments


def test_the_assignments_are_those_written_out() -> None:
    found = list(variables(ALL).enumerate() or ())
    assert Counter(map(rounded, found)) == Counter(map(rounded, by_hand()))
    assert variables(ALL).size == len(by_hand())
    assert variables(ALL).enumerate(most=len(found) - 1) is None


def test_values_stand_in_the_order_of_the_spec() -> None:
    late = {"layers": {"subset": {"of": 3, "size": "count"}}, "count": {"int": [1, 2]}}
    drawn = variables(late).draw(Random(0))
    assert list(drawn) == ["layers", "count"] and len(drawn["layers"]) == drawn["count"]


def test_a_space_without_end_is_endless() -> None:
    assert variables({**ALL, "x": {"float": [0, 1]}}).size == math.inf
    big = {f"s{n}": {"subset": {"of": 64, "size": [0, 64]}} for n in range(20)}
    assert variables(big).size == 2**1280
    assert variables({**big, "x": {"float": [0, 1]}}).size == math.inf


def test_a_condition_on_one_of_very_many_values() -> None:
    many = {"n": {"int": [1, 10**9]}, "x": {"choice": [1, 2, 3], "when": {"n": [7, 8]}}}
    assert variables(many).size == 10**9 - 2 + 2 * 3


# -- codings


@pytest.mark.parametrize("placements", ["letters", "ordinal"])
def test_a_coding_reads_what_it_writes_and_reaches_everything(placements: str) -> None:
    space = variables(ALL, placements)
    widest = space.distributions()
    for values in by_hand():
        params = space.encode(values)
        assert space.decode(params) == values
        assert all(widest[name]._contains(widest[name].to_internal_repr(value)) for name, value in params.items())


@pytest.mark.parametrize("placements", ["letters", "ordinal"])
def test_whatever_a_sampler_says_is_an_assignment(placements: str) -> None:
    """Parameters drawn from the widest distributions, as by a sampler that knows no conditions."""
    space = variables(ALL, placements)
    known, widest = {rounded(values) for values in by_hand()}, space.distributions()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(200):
        params = study.ask(widest).params
        values = space.decode(params)
        assert rounded(values) in known and space.decode(params) == values
        assert space.decode(space.encode(values)) == values


@pytest.mark.parametrize("placements", ["letters", "ordinal"])
def test_optuna_is_asked_only_for_what_has_a_value(placements: str) -> None:
    space = variables(ALL, placements)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=5, multivariate=True))
    known = {rounded(values) for values in by_hand()}
    for n in range(40):
        trial = study.ask()
        values = space.suggest(trial)
        assert rounded(values) in known
        assert space.decode(trial.params) == values == space.suggest(trial)
        assert ("count" in trial.params) is (values["kind_of"] == "count")
        study.tell(trial, float(n % 7))


def test_letters_that_break_a_rule_stand_for_the_nearest_layout() -> None:
    space = variables({"layout": LAYOUT})
    said = {f"layout.{n}": letter for n, letter in enumerate("SGGSSSSS")}
    assert space.decode(said)["layout"] in ("SGSSSSSS", "SSGSSSSS")
    kept = {f"layout.{n}": letter for n, letter in enumerate("SGSGSSSG")}
    assert space.decode(kept) == {"layout": "SGSGSSSG"}


def test_a_rank_of_many_digits() -> None:
    wide = {"x": {"subset": {"of": 120, "size": [10, 60]}}}
    space, random = variables(wide, "ordinal"), Random(0)
    assert list(space.distributions()) == ["x", "x.1", "x.2", "x.3"]
    for _ in range(20):
        values = space.draw(random)
        assert space.decode(space.encode(values)) == values


def test_a_value_that_does_not_fit_is_refused() -> None:
    space = variables(ALL)
    fine = {"kind_of": "count", "count": 2, "layers": [0, 3], "lr": 0.1}
    for change, said in [
        ({"layers": [0, 1, 2]}, "layers: got [0, 1, 2], which is none of its values"),
        ({"layers": [3, 0]}, "none of its values"),
        ({"layers": [0, 5]}, "none of its values"),
        ({"layers": "SG"}, "none of its values"),
        ({"kind_of": "new"}, "kind_of: got 'new'"),
        ({"lr": 0.15}, "lr: got 0.15"),
        ({"count": True}, "count: got true"),
        ({"depth": 2}, "depth: it has a value, though its conditions do not hold"),
        ({"more": 2}, "more: there is no such variable"),
    ]:
        with pytest.raises(UserError) as caught:
            space.encode({**fine, **change})
        assert said in str(caught.value)
    with pytest.raises(UserError, match="lr: it has no value"):
        space.encode({name: value for name, value in fine.items() if name != "lr"})


def test_choices_that_came_later_have_a_parameter_of_their_own() -> None:
    old = variables({"window": {"choice": [8, 16]}})
    new = variables({"window": {"choice": [8, 16, 32, 64]}}, first={"window": 2})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    first = study.ask()
    before = old.suggest(first)
    assert new.decode(first.params) == before == new.suggest(first)  # a trial that was taken over
    study.enqueue_trial({"window": 16})  # queued before there were more
    assert new.suggest(study.ask()) == {"window": 16}
    drawn = [study.ask() for _ in range(40)]
    assert {new.suggest(trial)["window"] for trial in drawn} == {8, 16, 32, 64}
    assert all(list(trial.params) == ["window+4"] for trial in drawn)
    assert new.encode({"window": 8}) == {"window+4": 8}
    study.enqueue_trial(new.encode({"window": 64}))
    assert new.suggest(study.ask()) == {"window": 64}


def test_a_sampler_proposes_every_placement_once() -> None:
    """Letters that were mended count as the placement that they stand for."""
    asked = space(
        variables={"layers": {"subset": {"of": "num_layers", "size": 1}}},
        set={"pattern": "place(layers, G, S)", "last": None},
    )
    proposer, history = Proposer(asked), []
    while (params := proposer.propose(history)) is not None:
        assert asked.encode(asked.decode(params)) == params and len(history) < 9
        history.append(Tried(len(history), params, "complete", ((1.0,),) * 3))
    assert sorted(asked.decode(tried.params)["layers"] for tried in history) == [[n] for n in range(8)]


def test_plain_variables_are_asked_for_as_ever() -> None:
    """A study of before goes on: Optuna holds names and distributions against those that it has."""
    plain = {
        "ratio": {"int": [1, 7], "step": 2},
        "width": {"int": [8, 64], "log": True},
        "lr": {"float": [1e-4, 1e-2], "log": True},
        "window": {"choice": [16, None, True, "x", {"type": "rope", "a": 1}]},
    }
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    variables(plain).suggest(trial)
    assert trial.distributions == {
        "ratio": optuna.distributions.IntDistribution(1, 7, step=2),
        "width": optuna.distributions.IntDistribution(8, 64, log=True),
        "lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "window": optuna.distributions.CategoricalDistribution([16, None, True, "x", '{"a":1,"type":"rope"}']),
    }


# -- draws and changes


def test_each_placement_is_drawn_as_often() -> None:
    space, random = variables({"x": SUBSET}), Random(0)
    drawn = Counter(repr(space.draw(random)) for _ in range(9200))
    assert len(drawn) == 92 and min(drawn.values()) > 60


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**9))
def test_changes_and_mixtures_are_assignments(seed: int) -> None:
    space, random = variables(ALL), Random(seed)
    one, other = space.draw(random), space.draw(random)
    changed, child = mutated(space, one, random), crossed(space, one, other, random)
    assert {rounded(one), rounded(changed), rounded(child)} <= KNOWN
    assert rounded(changed) != rounded(one)
    assert rounded(crossed(space, one, one, random)) == rounded(one)


KNOWN = {rounded(values) for values in by_hand()}


def test_a_change_is_small() -> None:
    """One variable; of a placement of one size two places, mostly."""
    space, random = variables({"x": {"subset": {"of": 8, "size": 3}}}), Random(0)
    values = {"x": [0, 3, 7]}
    moved = [set(mutated(space, values, random)["x"]) ^ {0, 3, 7} for _ in range(100)]
    assert {len(difference) for difference in moved} == {2}
    near = sum(max(difference) - min(difference) == 1 for difference in moved)
    assert near > 40


def test_mutation_reaches_every_assignment() -> None:
    space, random = variables(ALL), Random(0)
    values, seen = space.draw(random), set()
    for _ in range(6_000):
        values = mutated(space, values, random)
        seen.add(rounded(values))
    assert len(seen) > 0.9 * len(KNOWN)


# -- what it does to a model


def test_a_subset_and_a_sequence_become_layouts() -> None:
    one = space(variables={"layers": SUBSET}, set={"pattern": "place(layers, G, S)", "last": None})
    assert one.assign({"layers": [1, 4]}).candidate.model.layout == "SGSSGSSS"  # type: ignore[union-attr]
    two = space(variables={"layout": LAYOUT}, set={"pattern": "layout", "last": None})
    assert two.assign({"layout": "SGSSSSSG"}).candidate.model.layout == "SGSSSSSG"  # type: ignore[union-attr]
    alone = two.assign({"layout": "SSSSSSSS"}).candidate
    assert alone is not None and list(alone.model.blocks) == ["S"]  # a letter may be left out
    assert Expression("place(x, 'GG', S)").evaluate({"x": Members((0, 2), 3), "S": "S"}) == "GGSGG"
    with pytest.raises(UserError, match=r"column 1: place\(\) takes a subset and two texts.*got 3, 'G', 'S'"):
        Expression("place(3, 'G', 'S')").evaluate({})


def test_a_line_without_value_leaves_the_base_as_it_is() -> None:
    made = space(
        variables={
            "encoding": {"choice": [{"type": "rope"}, {"type": "p-rope", "period": 64, "harmonic": True}]},
            "period": {"choice": [48, 96], "when": {"encoding": {"type": "p-rope", "period": 64, "harmonic": True}}},
        },
        set={"blocks.S.attention.position": "encoding", "blocks.S.attention.position.period": "period"},
        constraints=["period <= 64"],
    )
    periodic = {"type": "p-rope", "period": 64, "harmonic": True}
    rope = made.assign({"encoding": {"type": "rope"}})
    assert rope.candidate is not None and rope.constraints == {"period <= 64": 0.0}  # it says nothing here
    assert rope.candidate.model.blocks["S"].attention.position.type == "rope"
    assert made.assign({"encoding": periodic, "period": 96}).reason == "does not hold: period <= 64"
    fine = made.assign({"encoding": periodic, "period": 48}).candidate
    assert fine is not None and fine.model.blocks["S"].attention.position.period == 48


def test_an_if_needs_only_one_side() -> None:
    made = space(
        variables={
            "how": {"choice": ["ratio", "layers"]},
            "ratio": {"int": [1, 3], "when": {"how": "ratio"}},
            "layers": {**SUBSET, "when": {"how": "layers"}},
        },
        set={"pattern": "S * ratio + G if how == 'ratio' else place(layers, G, S)", "last": None},
    )
    assert made.assign({"how": "ratio", "ratio": 3}).candidate.model.layout == "SSSGSSSG"  # type: ignore[union-attr]
    by_layer = made.assign({"how": "layers", "layers": [7]}).candidate
    assert by_layer is not None and by_layer.model.layout == "SSSSSSSG"


def test_check_counts_the_assignments(tmp_path: Path) -> None:
    spec = {**SEARCH, "variables": {"layers": SUBSET}, "set": {"pattern": "place(layers, G, S)", "last": None}}
    assert "1 variables, 92 assignments; of" in check_search(parse_spec(spec, "search"))


def test_a_spec_says_no_more_than_it_did() -> None:
    """`when` is written only where it is used: an old study's spec stays as it was."""
    plain = parse_spec({**SEARCH, "variables": {"a": {"int": [1, 2]}}, "set": {"hidden_size": "a"}}, "search")
    assert "when" not in dump_yaml(plain)
    again = {"a": {"int": [1, 2]}, "b": {"choice": [1], "when": {"a": 2}}}
    spec = parse_spec({**SEARCH, "variables": again, "set": {"hidden_size": "a"}}, "search")
    assert yaml.safe_load(dump_yaml(spec))["variables"]["b"]["when"] == {"a": 2}


# -- mistakes, each at its place

MISTAKES = [
    ({"a": {"int": [1, 2], "when": {"b": 1}}, "bb": {"int": [1, 2]}}, "a.when.b", "no variable 'b'; did you mean bb?"),
    ({"a": {"int": [1, 2], "when": {"a": 1}}}, "a.when.a", "a variable cannot be its own condition"),
    (
        {"a": {"int": [1, 2], "when": {"b": 3}}, "b": {"int": [1, 2], "when": {"a": 2}}},
        "a.when.b",
        "b never has the value 3; it goes from 1 to 2",
    ),
    (
        {"a": {"int": [1, 2], "when": {"b": 1}}, "b": {"int": [1, 2], "when": {"a": 2}}},
        "a.when.b",
        "these variables wait for each other: a -> b -> a",
    ),
    (
        {"a": {"int": [1, 9], "step": 4}, "b": {"choice": [1], "when": {"a": [5, 6]}}},
        "b.when.a.1",
        "a never has the value 6; it goes from 1 to 9 in steps of 4",
    ),
    (
        {"a": {"choice": [1, 2]}, "b": {"choice": [1], "when": {"a": True}}},
        "b.when.a",
        "a never has the value true; it is one of 1, 2",
    ),
    ({"a": {"choice": [1, 2]}, "b": {"choice": [1], "when": {"a": []}}}, "b.when.a", "the list is empty"),
    ({"a": {"float": [1, 2]}, "b": {"choice": [1], "when": {"a": 1}}}, "b.when.a", "a has no single values to ask for"),
    (
        {
            "a": {"choice": [1, 2]},
            "b": {"choice": [1], "when": {"a": 1}},
            "c": {"choice": [1], "when": {"a": 2, "b": 1}},
        },
        "c.when",
        "these conditions never hold together",
    ),
    ({"x": {"subset": {"of": 4, "size": 5}}}, "x.subset.size", "it may be 5, and there may be only 4 places"),
    (
        {"x": {"subset": {"of": 4, "size": [3, 1]}}},
        "x.subset.size",
        "got [3, 1]; expected a number, the name of an int",
    ),
    ({"x": {"subset": {"of": 0, "size": 1}}}, "x.subset.of", "got 0; expected a number from 1 to 256, the name"),
    ({"x": {"subset": {"of": 4, "size": "n"}}}, "x.subset.size", "there is no variable 'n'"),
    ({"x": {"subset": {"of": "num_layer", "size": 1}}}, "x.subset.of", "'num_layer'; did you mean num_layers?"),
    (
        {"n": {"choice": [1, 2]}, "x": {"subset": {"of": 4, "size": "n"}}},
        "x.subset.size",
        "n is no int variable; expected a number, or the name of one",
    ),
    (
        {"n": {"int": [1, 6]}, "d": {"int": [4, 8]}, "x": {"subset": {"of": "d", "size": "n"}}},
        "x.subset.size",
        "it may be 6, and there may be only 4 places",
    ),
    ({"n": {"int": [-1, 2]}, "x": {"subset": {"of": 4, "size": "n"}}}, "x.subset.size", "it may be -1"),
    (
        {
            "a": {"choice": [1, 2]},
            "n": {"int": [1, 2], "when": {"a": 1}},
            "x": {"subset": {"of": 4, "size": "n"}},
        },
        "x.subset.size",
        "n has a value only under conditions, and x needs it always",
    ),
    (
        {"x": {"sequence": {"letters": ["S", "G"], "length": 4, "at_most": {"F": 2}}}},
        "x.sequence.at_most.F",
        "got F; the letters of this sequence are S, G",
    ),
    (
        {"x": {"sequence": {"letters": ["S", "G"], "length": 4, "not_twice": ["F"]}}},
        "x.sequence.not_twice.0",
        "got F; the letters of this sequence are S, G",
    ),
    ({"x": {"sequence": {"letters": ["S", "S"], "length": 4}}}, "x.sequence.letters.1", "the letter S is there twice"),
    (
        {"x": {"sequence": {"letters": ["G"], "length": 4, "not_twice": ["G"]}}},
        "x.sequence",
        "no sequence of 4 letters keeps these rules",
    ),
    (
        {"x": {"sequence": {"letters": ["S", "G"], "length": 4, "at_most": {"S": 1, "G": 2}}}},
        "x.sequence",
        "no sequence of 4 letters keeps these rules",
    ),
    (
        {"d": {"int": [1, 300]}, "x": {"sequence": {"letters": ["S", "G"], "length": "d"}}},
        "x.sequence.length",
        "it may be 300; a sequence has at most 256 letters",
    ),
    (
        {"x": {"sequence": {"letters": list("ABCD"), "length": 200, "at_most": dict.fromkeys("ABCD", 60)}}},
        "x.sequence.at_most",
        "too many limits to count",
    ),
]


@pytest.mark.parametrize(
    ("spec", "field", "said"), MISTAKES, ids=[f"{field}: {said[:30]}" for _, field, said in MISTAKES]
)
def test_a_mistake_is_said_at_its_place(spec: dict[str, Any], field: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump({**SEARCH, "variables": spec, "set": {"hidden_size": "1"}}), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_search_spec(path)
    line = str(caught.value)
    assert f"variables.{field}: " in line and said in line
    place = line.split(": ")[0].removeprefix(f"{path}:")
    number, column = map(int, place.split(":"))
    last = field.split(".")[-1]
    text = path.read_text(encoding="utf-8").splitlines()[number - 1]
    assert (last in text if not last.isdecimal() else text.strip().startswith("-")) and column > 1


@pytest.mark.parametrize(
    ("spec", "setting", "said"),
    [
        (
            {"x": {"subset": {"of": "num_layers", "size": 9}}},
            {"pattern": "place(x, G, S)", "last": None},
            "variables.x.subset.size: it may be 9, and there may be only 8 places",
        ),
        (
            {"x": {"sequence": {"letters": ["S", "G"], "length": "num_layers", "at_most": {"S": 3, "G": 3}}}},
            {"pattern": "x", "last": None},
            "variables.x.sequence: no sequence of 8 letters",
        ),
        (
            {"x": {"sequence": {"letters": ["S", "F"], "length": "num_layers"}}},
            {"pattern": "x", "last": None},
            "variables.x.sequence.letters.1: no block of miniwin-tiny is called F (blocks: G, S)",
        ),
        ({"x": LAYOUT}, {"pattern": "x"}, "set.pattern: x says every layer, but `last: G` of miniwin-tiny replaces"),
        (
            {"x": LAYOUT, "d": {"int": [4, 8]}},
            {"pattern": "x", "last": None, "num_layers": "d"},
            "variables.x.sequence.length: num_layers is that of miniwin-tiny, 8, and `set` changes it",
        ),
        (
            {"a": {"choice": [1, 2]}, "b": {"int": [1, 2], "when": {"a": 1}}, "c": {"int": [1, 2]}},
            {"hidden_size": "a * 32", "pattern": "S * (b + c) + G"},
            "set.pattern: where b has no value this line is left out, and nothing else uses c",
        ),
        (
            {
                "a": {"choice": [1, 2, 3]},
                "b": {"int": [1, 2], "when": {"a": 1}},
                "c": {"int": [1, 2], "when": {"a": 2}},
                "d": {"int": [1, 2], "when": {"a": [1, 2]}},
                "e": {"int": [1, 2]},
            },
            {"hidden_size": "a * b * d", "num_layers": "c * d", "train.seed": "d", "pattern": "S * (b + e) + G"},
            "set.pattern: where b has no value this line is left out, and nothing else uses e",
        ),
    ],
)
def test_mistakes_beside_the_base_model(spec: dict[str, Any], setting: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        space(variables=spec, set=setting)
    assert said in str(caught.value) and str(caught.value).count("\n") == 0


def test_lines_that_take_turns_are_fine() -> None:
    space(
        variables={
            "a": {"choice": [1, 2]},
            "b": {"int": [1, 2], "when": {"a": 1}},
            "c": {"int": [1, 2], "when": {"a": 2}},
            "d": {"int": [1, 2]},
        },
        set={"hidden_size": "32 * (b + d)", "num_layers": "4 * (c + d)"},
    )

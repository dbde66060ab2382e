"""Search specs: the expression language, variables, setting fields, constraints. Nothing here trains."""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import ROOT

from miniwin.search.space import Space, check_search
from miniwin.specs import UserError, dump_yaml, load_model_spec, load_search_spec, load_train_spec, parse_spec
from miniwin.specs.expressions import Expression
from miniwin.specs.objectives import Objective

MODEL = "miniwin-tiny"
SEARCH: dict[str, Any] = {
    "kind": "search",
    "format": 1,
    "name": "t",
    "base": MODEL,
    "train": "demo",
    "variables": {"ratio": {"int": [1, 7]}, "window": {"choice": [8, 16]}, "factor": {"choice": [1, 2]}},
    "set": {
        "pattern": "S * ratio + G",
        "blocks.S.attention.window": "window",
        "blocks.S.attention.position.period": "factor * window",
    },
    "objectives": ["minimize loss@2048"],
    "budget": {"trials": 4},
}


def space(**changes: Any) -> Space:
    spec = parse_spec({**SEARCH, **changes}, "search")
    return Space(spec, load_model_spec(MODEL), load_train_spec("demo"))


def message(text: str, values: dict[str, Any] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        Expression(text).evaluate(values or {})
    return str(caught.value)


# -- expressions

NAMES = {"a": 3, "b": 7, "c": 0.5}
number = st.one_of(st.integers(-50, 50), st.sampled_from(["a", "b", "c", "1.5", "2e1"])).map(str)


def operations(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(lambda t: f"({' '.join(t)})"),
        st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
        st.tuples(st.sampled_from(["round", "int", "abs"]), inner).map(lambda t: f"{t[0]}({t[1]})"),
        st.tuples(inner, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), inner, inner, inner).map(
            lambda t: f"({t[3]} if {t[0]} {t[1]} {t[2]} else {t[4]})"
        ),
        st.tuples(inner, st.integers(0, 3)).map(lambda t: f"({t[0]}) ** {t[1]}"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} + {t[1]} * {t[2]} - -{t[0]})"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} < {t[1]} <= {t[2]} or not {t[0]} and {t[1]})"),
    )


@settings(max_examples=300, deadline=None)
@given(st.recursive(number, operations, max_leaves=8))
def test_expressions_agree_with_pythons_own_arithmetic(text: str) -> None:
    try:
        expected = eval(text, {"__builtins__": {"min": min, "max": max, "round": round, "int": int, "abs": abs}}, NAMES)
    except (ZeroDivisionError, OverflowError):
        with pytest.raises(UserError, match=r"divides by zero|too large"):
            Expression(text).evaluate(NAMES)
        return
    try:
        found = Expression(text).evaluate(NAMES)
    except UserError as error:
        assert any(limit in str(error) for limit in ("too large", "more than 200 parts", "characters")), error
        return
    assert found == expected and type(found) is type(expected)


HOSTILE = {
    "a": 3, "b": -7.5, "n": None, "d": {"x": [1]}, "big": 10**400, "inf": math.inf, "nan": math.nan, "S": "S",
    "cache_bytes@1024": 10**300, "parameters": 10**330,
}  # fmt: skip
ATOMS = """0 1 2 0.5 1e308 '' 'S' '\\d' 10**20 2**127 True None cache_bytes@0 cache_bytes@1__0 cache_bytes@0x1"""
SIGNS = "+ - * / // % ** < <= > >= == != and or"
atom, sign = st.sampled_from([*HOSTILE, *ATOMS.split()]), st.sampled_from(SIGNS.split())


def hostile(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, sign, inner).map(lambda t: f"({' '.join(t)})"),
        st.tuples(inner, sign, inner).map(" ".join),
        st.tuples(st.sampled_from(["int", "abs", "log2", "sqrt", "round", "not ", "-"]), inner).map(
            lambda t: f"{t[0]}({t[1]})"
        ),
        st.tuples(st.sampled_from(["min", "max", "round"]), inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} if {t[1]} else {t[2]})"),
    )


letters = st.text(st.sampled_from("abS01.e*+-/%()<>=!,'\"@_ \n\t#\\;:[]{}\x00~"), max_size=30)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.recursive(atom, hostile, max_leaves=6), letters))
def test_no_expression_ends_in_anything_but_a_value_or_a_user_error(text: str) -> None:
    try:
        expression = Expression(text)
        expression.check_names(HOSTILE, ["cache_bytes"])
        violation = expression.violation(HOSTILE)
    except UserError:
        return
    assert abs(violation) <= 1e300
    if expression.is_test():
        with contextlib.suppress(UserError):  # of a part that a false one before it guards
            assert bool(expression.evaluate(HOSTILE)) is (violation <= 0)


def test_what_fuzzing_found_in_expressions() -> None:
    assert Expression("'' * 10**20").evaluate({}) == ""
    assert Expression("S * 0").evaluate({"S": "S"}) == ""
    assert Expression("parameters <= 5").violation({"parameters": 10**400}) == 1e300
    assert Expression("parameters >= 5").violation({"parameters": 10**400}) == -1e300
    assert Expression("a <= 5").violation({"a": math.nan}) > 0  # as Python has it
    assert "a number of 1329 bits - 'S' has no meaning" in message("a - S", {"a": 10**400, "S": "S"})
    for length in ("0", "1__0", "0x10", "1_", "9" * 16):
        with pytest.raises(UserError, match=r"is no length; expected cache_bytes@N, such as cache_bytes@4096"):
            Expression(f"cache_bytes@{length} < 3").check_names([], ["cache_bytes"])
        with pytest.raises(UserError, match=r"expected loss@N, such as loss@4096"):
            Objective.parse(f"minimize loss@{length}")


def test_expressions_warn_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    assert Expression(r"'\d' + S").evaluate({"S": "S"}) == r"\dS"
    assert not recwarn.list


def test_and_guards_in_constraints_as_it_does_in_values() -> None:
    guarded = Expression("factor > 1 and 8 / (factor - 1) <= 4")
    assert guarded.violation({"factor": 1}) > 0  # and not a division by zero
    assert guarded.violation({"factor": 2}) == 1.0 and guarded.violation({"factor": 3}) <= 0
    assert Expression("1 < k < 1 / (k - 1)").violation({"k": 1}) > 0
    assert Expression("k == 0 or 1 / k > 2").violation({"k": 0}) == -1
    assert Expression("(k > 0) == True and (1 / k if k else 0) < 2").violation({"k": 0}) == 1.0
    # What was recorded of studies so far: the farthest of all comparisons.
    assert Expression("a <= 1 and b <= 1").violation({"a": 2, "b": 4}) == 3.0
    with pytest.raises(UserError, match="divides by zero"):
        Expression("8 / (factor - 1) <= 8 and factor > 1").violation({"factor": 1})


def test_expressions_write_patterns() -> None:
    letters = {"S": "S", "G": "G", "ratio": 3}
    assert Expression("S * ratio + G").evaluate(letters) == "SSSG"
    assert Expression("G if ratio > 2 else 'S'").evaluate(letters) == "G"
    assert Expression("(S + G) * 2").evaluate(letters) == "SGSG"
    assert Expression("S * (ratio - 3) + G").evaluate(letters) == "G"


def test_a_cost_at_a_length_binds_tighter_than_any_operator() -> None:
    values = {"cache_bytes@1024": 10, "x": 2}
    assert Expression("2 ** cache_bytes@1024 / x").evaluate(values) == 512.0
    assert Expression("x * cache_bytes@1024 + 1").names == ("x", "cache_bytes@1024")
    assert Expression("-cache_bytes@1024").evaluate(values) == -10


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9",
        "2 ** 1000000000",
        "(2 ** 100) ** 100",
        "10 ** 30 * 10 ** 30 * 10 ** 30",
        "S * 10**9",
        "S * 1000 * 1000",
        "1e308 * 1e308",
        "-(2**100) * 2**100",
        "9" * 400,
        "(" * 400,
        "-" * 400 + "1",
        "+".join(["1"] * 240),
        "1 if " * 60 + "1",
        "max(" * 60 + "1, 1" + ", 1)" * 60,
        "a" * 501,
        "round(1.5, 10 ** 20)",
    ],
)
def test_hostile_sizes_are_refused_at_once(text: str) -> None:
    started = time.perf_counter()
    assert message(text, {"S": "S"})
    assert time.perf_counter() - started < 2  # seconds where these would take for ever


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "().__class__.__bases__",
        "a.b",
        "a[0]",
        "[a for a in (1, 2)]",
        "lambda: 1",
        "(a := 3)",
        "f'{a}'",
        "{'a': 1}",
        "open('/etc/passwd')",
        "eval('1')",
        "max(*a)",
        "min(1, 2, key=a)",
        "1j",
        "b'x'",
        "...",
        "~1",
        "1 << 20",
        "1 in a",
        "a is b",
        "await a",
        "yield",
        "a; b",
        "max",
        "a\u01c01",
        "a @ 3",
        "@3",
    ],
)
def test_anything_but_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        Expression(text).evaluate({"a": 1, "b": 2})


def test_messages_of_expressions() -> None:
    assert message("factor * windw", {"factor": 1, "window": 2}) == (
        "expression 'factor * windw', column 10: unknown name 'windw'; did you mean 'window'? "
        "Known here: factor, window"
    )
    assert "column 13: unknown name 'x'" in message("  \n cost@9 +x", {"cost@9": 1})
    assert message("1 / (a - 1)", {"a": 1}) == "expression '1 / (a - 1)', column 1: divides by zero: 1 / 0"
    assert "unknown function 'mx'; did you mean 'max'?" in message("mx(1, 2)")
    assert "min() takes 2 to 32 arguments, got 1" in message("min(1)")
    assert "log2(-1) has no value" in message("log2(-1)")
    assert "+ needs numbers, got None" in message("a + 1", {"a": None})
    assert "'S' + 1 has no meaning: text is joined with + or repeated with *" in message("S + 1", {"S": "S"})
    assert "is empty" in message("  ")
    assert "cannot be read" in message("1 +")
    assert "without spaces" in message("cache_bytes @ 10")


def test_violations_measure_how_far_a_constraint_is_from_holding() -> None:
    values = {"a": 12.0, "b": 10, "t": "x"}
    assert Expression("a <= b").violation(values) == pytest.approx(0.2)
    assert Expression("a >= b").violation(values) <= 0
    assert Expression("b < b").violation(values) > 0 >= Expression("b <= b").violation(values)
    assert Expression("b == b and a != b").violation(values) <= 0
    assert Expression("0 < a <= b").violation(values) == pytest.approx(0.2)
    assert Expression("a < b or a > b").violation(values) == -1
    assert Expression("not a > b").violation(values) == 1
    assert Expression("t == 'x'").violation(values) <= 0 < Expression("t != 'x'").violation(values)


# -- search specs


def test_shipped_searches_load_round_trip_and_can_be_searched() -> None:
    folder = ROOT / "specs" / "searches"
    files = sorted(folder.glob("*.yaml"))
    assert {"demo", "period-window-ratio"} <= {path.stem for path in files}
    for path in files:
        spec = load_search_spec(path)
        assert parse_spec(spec.model_dump(mode="json"), "search") == spec
        assert "hold the constraints" in check_search(path)


def test_dumped_yaml_loads_back_equal(tmp_path: Path) -> None:
    spec = parse_spec(
        {
            **SEARCH,
            "variables": {
                "ratio": {"int": [1, 8], "log": True},
                "lr": {"float": [1e-4, 1], "log": True},
                "position": {"choice": [{"type": "nope"}, {"type": "rope"}, None, "x", 1.5, True]},
            },
        },
        "search",
    )
    (tmp_path / "s.yaml").write_text(dump_yaml(spec))
    assert load_search_spec(tmp_path / "s.yaml") == spec


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"variables": {"a": {"in": [1, 2]}}},
            'variables.a: got {"in": [1, 2]}; expected {int: [low, high]}, {float: [low, high]}, ',
        ),
        ({"variables": {"a": {"int": [2, 1]}}}, "the range [2, 1] is empty: write the smaller number first"),
        ({"variables": {"a": {"int": [0, 9], "log": True}}}, "log: true needs a lowest value of at least 1"),
        (
            {"variables": {"a": {"float": [-1.7e308, 1.7e308]}}},
            "[-1.7e+308, 1.7e+308] is too wide for floating-point numbers",
        ),
        ({"variables": {"a": {"float": [0, 1e308], "step": 1e-300}}}, "step 1e-300 divides [0, 1e+308] too finely"),
        ({"variables": {"a": {"choice": [1, 2, 1]}}}, "the choice 1 is there twice"),
        ({"variables": {"max": {"int": [1, 2]}}}, "has the name of a metric or function"),
        ({"variables": {"a-b": {"int": [1, 2]}}}, "variable 'a-b' is not a name"),
        ({"set": {"pattern": "S *"}}, "cannot be read"),
        ({"set": {"a b": 1}}, "is not a path into a spec"),
        ({"objectives": ["minimize los@4096"]}, "unknown metric 'los'; did you mean 'loss'?"),
        ({"objectives": ["minimize loss"]}, "expected loss@N, such as loss@4096"),
        ({"objectives": ["minimize parameters@3"]}, "does not depend on a length; write minimize parameters"),
        ({"objectives": ["maximize loss@3"]}, "loss is better when lower; write minimize loss@3"),
        ({"objectives": ["minimize recall@99"]}, "recall is better when higher; write maximize recall@99"),
        ({"objectives": ["loss@3"]}, "expected 'minimize' or 'maximize' and a metric"),
        ({"objectives": ["minimize loss@3", "minimize loss@3"]}, "is there twice"),
        ({"constraints": ["loss@4096 <= 2"]}, "loss@4096 is known only after training; make it an objective"),
        ({"constraints": ["parameters + 1"]}, "is not a comparison"),
        ({"rungs": [0.5, 0.25]}, "rungs are increasing fractions"),
        (
            {"objectives": ["minimize loss@9", "minimize parameters"], "pruner": {"type": "median"}},
            "pruner.type: got median, which compares one value of each trial, and there are 2 objectives: use {type: "
            "halving}, which takes several, leave one objective, or set pruner: null",
        ),
        (
            {"objectives": ["minimize parameters", "maximize decode_tokens_per_second"], "pruner": {"type": "halving"}},
            "a pruner needs an objective that training changes; none is measured on the way: set pruner: null",
        ),
        (
            {"pruner": {"type": "halving", "min_tokens": 100}, "rungs": [0.1]},
            "rungs: pruner.min_tokens says where the rungs are: leave out rungs, or min_tokens",
        ),
        ({"pruner": {"type": "hyperband", "brackets": 2}}, "unknown field 'brackets'"),
        ({"pruner": {"type": "halving", "reduction": 1}}, "pruner.reduction: got 1; expected at least 2"),
        (
            {"pruner": {"type": "halving"}, "rungs": []},
            "a pruner needs rungs at which to judge; expected something like rungs: [0.25, 0.5]",
        ),
        (
            {"objectives": ["minimize parameters"], "pruner": {"type": "asha"}},
            "a pruner needs an objective that training changes; 'minimize parameters' is known from the spec",
        ),
        (
            {"objectives": ["maximize decode_tokens_per_second"], "pruner": {"type": "asha"}},
            "'maximize decode_tokens_per_second' is measured only after training: set pruner: null",
        ),
        ({"name": "../x"}, "name: "),
        ({"bugdet": {}}, "bugdet"),
    ],
)
def test_messages_of_search_specs(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_spec({**SEARCH, **changes}, "search")
    assert expected in str(caught.value)


def test_objectives_are_read() -> None:
    assert Objective.parse("minimize cache_bytes@131_072").name == "cache_bytes@131072"
    assert Objective.parse("maximize decode_tokens_per_second") == Objective(
        "maximize", "decode_tokens_per_second", None
    )
    assert Objective.parse("minimize loss@9").measured and not Objective.parse("minimize num_layers").measured


# -- the space


def test_an_assignment_sets_the_fields() -> None:
    made = space().assign({"ratio": 3, "window": 16, "factor": 2}).candidate
    assert made is not None and made.model.layout == "SSSGSSSG"
    local = made.model.layer_specs[0].attention
    assert (local.window, local.position.period) == (16, 32)
    assert made.train == load_train_spec("demo")


def test_fields_of_the_training_and_literals_can_be_set() -> None:
    changed = space(
        variables={"lr": {"float": [1e-4, 1e-2], "log": True}, "half": {"int": [1, 4]}},
        set={"train.optimizer.lr": "lr", "blocks.S.attention.window": "64 / half", "tie_word_embeddings": False},
        budget={"trials": 2, "tokens_per_trial": 5000},
    )
    made = changed.assign({"lr": 0.005, "half": 4}).candidate
    assert made is not None
    assert (made.train.optimizer.lr, made.train.tokens, made.model.tie_word_embeddings) == (0.005, 5000, False)
    assert made.model.layer_specs[0].attention.window == 16  # not 16.0


def test_whole_fields_can_be_chosen() -> None:
    positions = [{"type": "nope"}, {"type": "rope", "rope_theta": 1000.0}]
    changed = space(variables={"position": {"choice": positions}}, set={"blocks.S.attention.position": "position"})
    kinds = [params["position"] for params in changed.enumerate() or ()]
    assert kinds == ['{"type":"nope"}', '{"rope_theta":1000.0,"type":"rope"}']
    made = changed.assign({"position": positions[1]}).candidate
    assert made is not None and made.model.layer_specs[0].attention.position.type == "rope"


def test_windows_of_heads_can_be_chosen_together_and_one_by_one() -> None:
    choices = [[None, 32], [32, None], [32, 32]]
    changed = space(variables={"heads": {"choice": choices}}, set={"blocks.G.attention.windows": "heads"})
    made = [changed.assign({"heads": choice}).candidate for choice in choices]
    assert len({one.model.hash for one in made if one is not None}) == 3
    assert made[2] is not None and made[2].model.layer_specs[-1].attention.window == 32
    literal: list[Any] = [None, 64]
    by_one = space(
        variables={"window": {"choice": [16, 32]}},
        set={"blocks.G.attention.windows.1": "window", "blocks.G.attention.windows": literal},
    )
    for window in (16, 32):
        one = by_one.assign({"window": window}).candidate
        assert one is not None and one.model.layer_specs[-1].attention.windows == [None, window]
    assert literal == [None, 64]
    lines = {"blocks.G.attention.windows": literal, "blocks.G.attention.windows.2": "window"}
    with pytest.raises(UserError, match="windows is a list of 2 in the base spec; expected a number from 0, got '2'"):
        space(variables={"window": {"choice": [16, 32]}}, set=lines)


def test_equal_candidates_hash_equal_and_training_counts() -> None:
    one = space().assign({"ratio": 1, "window": 16, "factor": 2}).candidate
    other = space(set={**SEARCH["set"], "pattern": "(S * ratio + G) * 2"})
    same = other.assign({"ratio": 1, "window": 16, "factor": 2}).candidate  # SGSG tiles to the same layers as SG
    longer = (
        space(budget={"trials": 4, "tokens_per_trial": 999}).assign({"ratio": 1, "window": 16, "factor": 2}).candidate
    )
    assert one is not None and same is not None and longer is not None
    assert one.hash == same.hash != longer.hash and one.model.hash == longer.model.hash


def test_constraints_are_worked_out_without_building() -> None:
    limited = space(constraints=["parameters <= 361_545", "window * factor <= 16", "cache_bytes@4096 > 0"])
    broken = limited.assign({"ratio": 3, "window": 16, "factor": 2})
    assert broken.candidate is None and broken.reason == "does not hold: window * factor <= 16"
    assert broken.constraints == {"window * factor <= 16": 1.0}
    fine = limited.assign({"ratio": 3, "window": 8, "factor": 2})
    assert fine.candidate is not None and set(fine.constraints) == set(limited.spec.constraints)
    assert all(violation <= 0 for violation in fine.constraints.values())


def test_an_impossible_architecture_is_an_infeasible_assignment() -> None:
    backwards = space(set={**SEARCH["set"], "blocks.S.attention.position.period": "window // 2 * factor"})
    made = backwards.assign({"ratio": 3, "window": 16, "factor": 1})  # period 8 < window 16
    assert made.candidate is None and made.constraints["a valid architecture"] == 1.0
    assert made.reason is not None and "period" in made.reason


def test_an_assignment_that_leaves_an_expression_without_a_value_is_infeasible() -> None:
    values = {"ratio": 3, "window": 16, "factor": 1}
    divided = space(constraints=["1 / (factor - 1) <= 10", "window <= 8"]).assign(values)
    assert divided.candidate is None and divided.constraints["1 / (factor - 1) <= 10"] == 1.0
    assert divided.reason == (
        "does not hold: window <= 8; expression '1 / (factor - 1) <= 10', column 1: divides by zero: 1 / 0"
    )
    costly = space(constraints=["cache_bytes@1024 / (factor - 1) <= 10"]).assign(values)
    assert costly.reason is not None and "divides by zero" in costly.reason
    for formula in ("window / (factor - 1)", "log2(factor - 1)", "sqrt(-factor)", "2.0 ** (window * 100)"):
        made = space(set={**SEARCH["set"], "hidden_size": formula}).assign(values)
        assert made.candidate is None and made.constraints == {"a valid architecture": 1.0}
        assert made.reason is not None and made.reason.startswith("set.hidden_size: expression ")
    long = space(objectives=["minimize rope_aliasing@99999999"]).assign(values)
    assert long.candidate is None and long.reason is not None
    assert long.reason.startswith("the objective rope_aliasing@99999999 has no value: ")


def test_mistakes_that_show_beside_the_base_are_placed_in_the_search_spec(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    text = dump_yaml(parse_spec({**SEARCH, "constraints": ["parametrs < 3", "windw < 3"]}, "search"))
    path.write_text(text.replace("attention.window:", "attention.windw:"))
    with pytest.raises(UserError) as caught:
        check_search(path)

    def place(part: str) -> str:
        line = next(i for i, line in enumerate(text.splitlines(), 1) if part in line)
        return f"{path}:{line}"

    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"{place('attention.window:')}:3: set.blocks.S.attention.windw: there is no ")
    assert lines[1].startswith(f"{place('parametrs')}:3: constraints.0: expression 'parametrs < 3', column 1: unknown")
    assert lines[2].startswith(f"{place('windw < 3')}:3: constraints.1: expression 'windw < 3', column 1: unknown")
    for field, wrong in (("base", "miniwin-tny"), ("train", "nothing.yaml"), ("baseline", "no.yaml")):
        path.write_text(dump_yaml(parse_spec({**SEARCH, field: wrong}, "search")))
        with pytest.raises(UserError, match=rf"search.yaml:\d+:\d+: {field}: .*{wrong}: there is no such file"):
            check_search(path)


def test_mistakes_in_what_was_overridden_are_placed_in_the_option(tmp_path: Path) -> None:
    from miniwin.search import run_search

    path = tmp_path / "search.yaml"
    path.write_text(dump_yaml(parse_spec(SEARCH, "search")))
    with pytest.raises(UserError, match=r"^--set constraints=\[a<1\]: constraints.0: .* unknown name 'a'"):
        run_search(path, overrides=["constraints=[a<1]"], out=tmp_path / "out", tracking="off")
    assert not (tmp_path / "out").exists()


def test_items_of_a_search_spec_are_placed_each(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(
        dump_yaml(parse_spec({**SEARCH, "constraints": ["parameters < 3", "num_layers < 3"]}, "search"))
        .replace("num_layers <", "num_layers + ")
        .replace("S * ratio + G", "S * * G")
        .replace("loss@2048", "los@2048")
    )
    with pytest.raises(UserError) as caught:
        load_search_spec(path)
    fields = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert fields == ["set.pattern", "objectives.0", "constraints.1"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"set": {**SEARCH["set"], "blocks.S.attention.windw": 3}},
            "set.blocks.S.attention.windw: there is no 'blocks.S.attention.windw'; did you mean "
            "'blocks.S.attention.window'?",
        ),
        ({"set": {**SEARCH["set"], "train.optimizer.rl": 1e-3}}, "set.train.optimizer.rl: there is no 'optimizer.rl'"),
        ({"set": {**SEARCH["set"], "blocks.T.mlp": 3}}, "there is no 'blocks.T'"),
        ({"set": {**SEARCH["set"], "hidden_size.x": 3}}, "hidden_size is 64 in the base spec, so it has no field 'x'"),
        ({"set": {**SEARCH["set"], "train.tokens": 3}}, "set budget.tokens_per_trial"),
        ({"set": {**SEARCH["set"], "train.data.source": "'text'"}}, "trials on different data cannot be compared"),
        ({"set": {**SEARCH["set"], "name": "'x'"}}, "names do not change an architecture"),
        ({"set": {**SEARCH["set"], "hidden_size": "windo * 2"}}, "unknown name 'windo'; did you mean 'window'?"),
        ({"set": {"pattern": "S * ratio + G"}}, "variables.window: nothing under `set` uses it (window, factor)"),
        ({"constraints": ["parametrs < 3"]}, "unknown name 'parametrs'; did you mean 'parameters'?"),
        ({"constraints": ["cache_bytes < 3"]}, "needs a length: write cache_bytes@4096, say"),
        ({"constraints": ["parameters@3 < 3"]}, "does not depend on a length: write parameters"),
        ({"variables": {**SEARCH["variables"], "S": {"int": [1, 2]}}}, "is also a block of miniwin-tiny"),
        (
            {"pruner": {"type": "halving", "brackets": 4}},
            "pruner.brackets: got 4, and 2 rungs have room for 3: a bracket begins at each rung, and one has none",
        ),
        (
            {"pruner": {"type": "hyperband", "min_tokens": 1e12}},
            "pruner.min_tokens: got 1,000,000,000,000, and no rung fits: a trial has ",
        ),
        ({"pruner": {"type": "halving", "min_tokens": 1}}, "expected at least a step and less than a trial"),
    ],
)
def test_messages_of_spaces(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        space(**changes)
    assert expected in str(caught.value)


def test_check_refuses_a_search_that_can_find_nothing() -> None:
    spec = parse_spec({**SEARCH, "constraints": ["parameters < 10"]}, "search")
    with pytest.raises(UserError, match=r"none of \d+ assignments .* does not hold: parameters < 10"):
        check_search(spec)


def test_the_size_of_a_space() -> None:
    assert space().variables.size == 28 == len(list(space().enumerate() or ()))
    stepped = {"a": {"float": [0.0, 1.0], "step": 0.25}, "b": {"int": [2, 9], "step": 3}}
    setting = {"train.clip_grad_norm": "a", "hidden_size": "b"}
    assert space(variables=stepped, set=setting).variables.size == 15
    endless = {"a": {"float": [0, 1]}, "b": {"int": [1, 2]}}
    assert space(variables=endless, set=setting).variables.size == math.inf

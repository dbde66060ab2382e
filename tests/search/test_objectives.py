"""One row a metric: every metric and task is an objective, and no file asks which metric it has."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random
from typing import Any, Literal

import pytest
import tiny
from paths import ROOT

import miniwin
from miniwin.blocks import registry
from miniwin.evaluation.task_scores import score_task
from miniwin.evaluation.tasks import TASKS, Example, LastWrite, Recall, Task
from miniwin.search.objectives import FOUND, TEXTS, at_rungs, chief, cost, is_cost, loss_lengths, value
from miniwin.specs import UserError, parse_spec
from miniwin.specs.objectives import METRICS, NATS, Objective, find, measured_in, task_of

TRAINED = 64


def test_every_row_can_be_found_and_shown() -> None:
    names = [*METRICS, *TASKS.names(), *(name + NATS for name in TASKS.names())]
    for name in names:
        row = find(name)
        assert row is not None and row.name == name
        assert row.how in FOUND and row.unit in TEXTS
        assert ("{at}" in row.title) == row.by_length
        assert (row.compute is not None) == (row.how == "spec")
        for direction in ("minimize", "maximize"):
            at = f"{name}@16x" if row.by_length else name
            if row.better == ("lower" if direction == "maximize" else "higher"):
                with pytest.raises(UserError, match=f"{name} is better when {row.better}; write m.*imize {at}"):
                    Objective.parse(f"{direction} {at}")
            else:
                assert Objective.parse(f"{direction} {at}").name == at


@pytest.mark.parametrize(
    ("text", "name", "length"),
    [
        ("minimize loss@4096", "loss@4096", 4096),
        ("minimize loss@131_072", "loss@131072", 131072),
        ("minimize bits_per_byte@16x", "bits_per_byte@16x", 1024),
        ("maximize last-write@1x", "last-write@1x", 64),
        ("minimize last-write-nats@2x", "last-write-nats@2x", 128),
        ("maximize recall@512", "recall@512", 512),
        ("minimize parameters", "parameters", 0),
    ],
)
def test_lengths_are_tokens_or_multiples(text: str, name: str, length: int) -> None:
    objective = Objective.parse(text)
    assert objective.name == name and objective.length(TRAINED) == length


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("maximize last-writ@4096", "unknown metric 'last-writ'; did you mean 'last-write'?"),
        ("maximize nothing-alike@4096", r"there are: loss@N, .*; the tasks \(.*recall.*\), as TASK@N and TASK-nats@N"),
        (
            "maximize recall",
            "recall needs a length; expected recall@N, such as recall@4096, or a multiple .* recall@16x",
        ),
        ("maximize recall@16y", "recall needs a length"),
        ("minimize loss@0x", "loss needs a length"),
        ("minimize parameters@16x", "parameters does not depend on a length; write minimize parameters"),
        ("minimize recall@16x", "recall is better when higher; write maximize recall@16x"),
        ("maximize recall-nats@16x", "recall-nats is better when lower; write minimize recall-nats@16x"),
    ],
)
def test_what_cannot_be_an_objective_is_said(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Objective.parse(text)


def test_a_task_is_scored_on_the_valid_split() -> None:
    model = miniwin.build(tiny.spec(), seed=0).eval()
    score = score_task(model, LastWrite(), 2 * TRAINED, examples=64, split="valid")
    assert value(Objective.parse("maximize last-write@2x"), TRAINED, model.spec, model) == score.accuracy
    assert value(Objective.parse("minimize last-write-nats@2x"), TRAINED, model.spec, model) == score.nats_per_answer


def test_a_task_is_the_one_that_is_trained_on() -> None:
    model = miniwin.build(tiny.spec(), seed=0).eval()
    trained = LastWrite(num_keys=1, key_length=1)
    score = score_task(model, trained, TRAINED, examples=64, split="valid")
    for name, expected in (
        ("maximize last-write@1x", score.accuracy),
        ("minimize last-write-nats@1x", score.nats_per_answer),
    ):
        objective = Objective.parse(name)
        assert value(objective, TRAINED, model.spec, model, tasks=[Recall(), trained]) == expected
        objective.check_room(trained.shortest, [trained])
        with pytest.raises(UserError, match="at least 35 bytes"):
            objective.check_room(trained.shortest)
    with pytest.raises(UserError, match="the training data have 2 tasks last-write; expected at most one"):
        objective.check_room(TRAINED, [trained, LastWrite()])


def test_losses_are_read_at_the_length_in_tokens() -> None:
    losses = {1024: 2.0, 64: 3.0}
    wanted = [Objective.parse(f"minimize {name}@16x") for name in ("loss", "bits_per_byte")]
    assert loss_lengths(wanted, TRAINED) == [1024, 1024]
    assert [value(one, TRAINED, tiny.spec(), None, losses) for one in wanted] == [2.0, pytest.approx(2.885390)]
    assert at_rungs([Objective.parse("minimize parameters")], TRAINED) == [Objective("minimize", "loss", TRAINED)]


def test_costs_know_multiples() -> None:
    spec = tiny.spec()
    assert cost("cache_bytes@16x", spec, TRAINED) == cost("cache_bytes@1024", spec, 1) == spec.cache_bytes(1024)
    assert cost("parameters", spec, TRAINED) == spec.parameters()
    assert is_cost("cache_bytes@16x") and not is_cost("recall@16x")


def test_constraints_may_not_name_what_training_tells() -> None:
    assert measured_in("last-write@16x >= 0.5") == "last-write@16x"
    assert measured_in("2 * loss@64 <= 1") == "loss@64"
    assert measured_in("cache_bytes@16x <= 4e6 and copy <= 3 and last - write <= 1") is None


SEARCH: dict[str, Any] = {
    "kind": "search",
    "format": 1,
    "name": "s",
    "base": "miniwin-tiny",
    "train": "demo",
    "variables": {"window": {"choice": [8, 16]}},
    "set": {"blocks.S.attention.window": "window"},
    "budget": {"trials": 2},
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"constraints": ["recall@16x >= 0.5"]}, "constraints.0: .*recall@16x is known only after training"),
        ({"objectives": ["maximize recal@16x"]}, "objectives.0: .*unknown metric 'recal'; did you mean 'recall'"),
    ],
)
def test_wrong_searches_are_refused_at_their_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_spec({**SEARCH, "objectives": ["maximize recall@16x"], **changes}, "search")


def test_a_search_with_multiples_is_checked(tmp_path: Any) -> None:
    from miniwin.search.space import check_search
    from miniwin.search.spec_errors import SpaceError

    def searched(**changes: Any) -> Any:
        return parse_spec({**SEARCH, "objectives": ["maximize recall@16x"], **changes}, "search")

    assert "2 variables" not in check_search(searched(constraints=["cache_bytes@16x <= 1e9"]))
    with pytest.raises(UserError, match=r"none of .* gave an architecture .*cache_bytes@16x <= 1"):
        check_search(searched(constraints=["cache_bytes@16x <= 1"]))
    with pytest.raises(
        (UserError, SpaceError), match=r"objectives\.0: task recall: an example takes at least .* is 50"
    ):
        check_search(searched(objectives=["maximize recall@50"]))


class Plugged(Task):
    """A task as a plugin would register it."""

    type: Literal["plugged"] = "plugged"

    @property
    def chance(self) -> float:
        return 0.5

    @property
    def shortest(self) -> int:
        return 4

    def example(self, random: Random, length: int) -> Example:
        return Example(random.randbytes(length).translate(b"ab" * 128), ((length - 1, length),))


def test_the_task_of_a_plugin_is_an_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS._classes, "plugged", Plugged)
    objective = Objective.parse("maximize plugged@2x")
    assert isinstance(task_of(objective.row), Plugged)
    model = miniwin.build(tiny.spec(), seed=0).eval()
    assert 0 <= value(objective, TRAINED, model.spec, model) <= 1
    assert isinstance(TASKS, registry.Registry)


# -- one table


def metrics_asked_for(source: str, literals: bool = True) -> set[str]:
    """The metrics that a piece of code compares with, matches, or (literals) looks up in a literal."""
    known = {*METRICS, *TASKS.names(), *(name + NATS for name in TASKS.names())}
    return {text for node in ast.walk(ast.parse(source)) for text in texts(node, literals)} & known


def texts(node: ast.AST, literals: bool) -> Iterator[str]:
    called = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else None
    asking = isinstance(node, ast.Compare | ast.pattern) or called in ("startswith", "endswith", "get")
    parts = [node] if asking else [key for key in node.keys if key] if literals and isinstance(node, ast.Dict) else []
    yield from (
        n.value for part in parts for n in ast.walk(part) if isinstance(n, ast.Constant) if type(n.value) is str
    )


@pytest.mark.parametrize(
    "source",
    ["x == 'loss'", "x in ('a', 'recall')", "{'cache_bytes': 1}[x]", "match x:\n case 'last-write': pass"],
)
def test_a_comparison_is_seen(source: str) -> None:
    assert metrics_asked_for(source)


def test_no_file_asks_which_metric_it_has() -> None:
    files = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "search").rglob("*.py")}
    files |= {f"specs/{name}.py": ROOT / "specs" / f"{name}.py" for name in ("search", "expressions")}
    for name, path in files.items():
        literals = not name.startswith("search/adapt/")  # which has figures of its own in adapt.json, and no objectives
        assert not metrics_asked_for(path.read_text(), literals), f"{name}: ask its row in specs/objectives.py"


def test_the_chief_objective_is_the_loss() -> None:
    cache, recall = Objective("minimize", "cache_bytes", 8), Objective("maximize", "recall", 160)
    bits, loss = Objective("minimize", "bits_per_byte", 8), Objective("minimize", "loss", 8)
    assert [chief(given) for given in ([cache, recall], [cache, bits, loss], [loss])] == [cache, bits, loss]

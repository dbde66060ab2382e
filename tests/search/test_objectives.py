"""One row a metric: every metric that a spec may name has its row, and no other file asks which metric it has."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from paths import ROOT

from miniwin.search.objectives import METRICS, chief
from miniwin.specs.objectives import COSTS, MEASURES, Objective


def test_every_metric_that_a_spec_may_name_has_its_row() -> None:
    assert set(METRICS) == {*COSTS, *MEASURES}
    for name, row in METRICS.items():
        assert (row.name, row.compute is None, row.measure is None) == (name, name not in COSTS, name not in MEASURES)
        assert ("{at}" in row.title) == {**COSTS, **MEASURES}[name]


def metrics_asked_for(source: str) -> set[str]:
    """The metrics that a piece of code compares with, matches, or looks up in a literal."""
    return {text for node in ast.walk(ast.parse(source)) for text in texts(node)} & set(METRICS)


def texts(node: ast.AST) -> Iterator[str]:
    called = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else None
    asking = isinstance(node, ast.Compare | ast.pattern) or called in ("startswith", "endswith", "get")
    parts = [node] if asking else [key for key in node.keys if key] if isinstance(node, ast.Dict) else []
    yield from (
        n.value for part in parts for n in ast.walk(part) if isinstance(n, ast.Constant) if type(n.value) is str
    )


@pytest.mark.parametrize(
    "source",
    ["x == 'loss'", "x in ('a', 'recall')", "{'cache_bytes': 1}[x]", "match x:\n case 'loss': pass"],
)
def test_a_comparison_is_seen(source: str) -> None:
    assert metrics_asked_for(source)


def test_no_file_asks_which_metric_it_has() -> None:
    files = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "search").rglob("*.py")}
    files |= {f"specs/{name}.py": ROOT / "specs" / f"{name}.py" for name in ("search", "expressions")}
    for name, path in files.items():
        assert not metrics_asked_for(path.read_text()), f"{name}: ask its row in search/objectives.py"


def test_the_chief_objective_is_the_loss() -> None:
    cache, recall = Objective("minimize", "cache_bytes", 8), Objective("maximize", "recall", 160)
    bits, loss = Objective("minimize", "bits_per_byte", 8), Objective("minimize", "loss", 8)
    assert [chief(given) for given in ([cache, recall], [cache, bits, loss], [loss])] == [cache, bits, loss]

"""`match`: candidates are resized to the base model's cost."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from search_helpers import MODEL, SEARCH, TRAIN, write_search

from miniwin.search.matching import resized
from miniwin.search.objectives import cost
from miniwin.search.space import Space, check_search
from miniwin.specs import ModelSpec, UserError, load_model_spec, load_train_spec, parse_spec
from miniwin.specs.matching import Match

TRAINED = 128
GALLERY = ("minimind-1m", "gpt-oss-20b-tiny", "gemma-3-1b-tiny", "minimind-3-moe-tiny", "llama-4-scout-tiny")


def sizes(model: ModelSpec) -> list[Any]:
    return [block.mlp.model_dump(mode="json") for block in model.blocks.values()]


@pytest.mark.parametrize("name", GALLERY)
@pytest.mark.parametrize("resize", ["mlp", "width"])
@pytest.mark.parametrize("wish", ["parameters", "flops"])
@pytest.mark.parametrize("factor", [1.3, 1.02])
def test_a_model_gets_the_cost(name: str, resize: str, wish: str, factor: float) -> None:
    match = Match.model_validate({"cost": wish, "resize": resize})
    model = load_model_spec(name)
    target = factor * cost(match.cost, model, TRAINED)
    found = resized(model, match, target, TRAINED)
    assert abs(cost(match.cost, found, TRAINED) / target - 1) <= 0.01
    assert found.layout == model.layout
    assert (found.hidden_size == model.hidden_size) or resize == "width"
    built = sum(p.numel() for p in found.build().parameters())
    assert built == found.parameters(), "it can be built"


def test_a_model_of_that_cost_stays_as_it_is() -> None:
    model = load_model_spec("miniwin-1m")
    assert resized(model, Match(cost="parameters"), model.parameters() * 1.009, TRAINED) is model


def test_sizes_are_round_where_that_is_near_enough() -> None:
    model = load_model_spec("miniwin-1m")
    found = resized(model, Match(cost="parameters", within=0.05), model.parameters() * 1.4, TRAINED)
    assert all(size["intermediate_size"] % 16 == 0 for size in sizes(found))


def test_every_expert_is_resized() -> None:
    model = load_model_spec("gpt-oss-20b-tiny")
    found = resized(model, Match(cost="parameters"), model.parameters() * 1.5, TRAINED)
    for before, after in zip(sizes(model), sizes(found), strict=True):
        assert after["expert"]["intermediate_size"] > before["expert"]["intermediate_size"]


def test_the_width_decides_the_cache() -> None:
    model = load_model_spec("miniwin-tasks")
    match = Match(cost="cache_bytes@16x", resize="width", within=0.05)
    target = 1.5 * cost(match.cost, model, TRAINED)
    found = resized(model, match, target, TRAINED)
    assert found.hidden_size > model.hidden_size
    assert abs(cost(match.cost, found, TRAINED) / target - 1) <= 0.05


def test_a_cost_that_no_size_has_is_refused() -> None:
    model = load_model_spec("miniwin-1m")
    with pytest.raises(UserError, match=r"no intermediate_size gives parameters the base model's 1,000 within 1.0%"):
        resized(model, Match(cost="parameters"), 1000, TRAINED)
    with pytest.raises(UserError, match="no hidden_size gives cache_bytes@16x"):
        resized(model, Match(cost="cache_bytes@16x", resize="width"), 1e9, TRAINED)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ("loss@512", "expected a cost that the size of a model decides"),
        ("num_layers", "expected a cost that the size of a model decides"),
        ("train_time", "match: train_time@1x is predicted by constants of a machine, and there are none: put what"),
        ("cache_bytes", "cache_bytes needs a length"),
        ("parameters@512", "parameters does not depend on a length"),
        ("cache_bytes@512", "add resize: width"),
        ({"cost": "parameters", "resize": "depth"}, "resize"),
        ({"cost": "parameters", "within": 0}, "within"),
    ],
)
def test_what_cannot_be_matched_is_said(wish: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_spec({**SEARCH, "match": wish}, "search")


def test_every_candidate_of_a_space_has_the_base_models_size(tmp_path: Path) -> None:
    spec = parse_spec({**SEARCH, "match": "parameters", "constraints": []}, "search")
    base = parse_spec({**MODEL, "hidden_size": 32}, "model")
    space = Space(spec, base, parse_spec(TRAIN, "train"))
    random = Random(0)
    found = [space.assign(space.draw(random)).candidate for _ in range(20)]
    counts = [one.model.parameters() for one in found if one is not None]
    assert len(counts) > 10
    assert all(abs(count / base.parameters() - 1) <= 0.01 for count in counts)


def test_the_width_is_not_set_twice() -> None:
    match = {"cost": "parameters", "resize": "width"}
    spec = parse_spec({**SEARCH, "match": match, "set": {**SEARCH["set"], "hidden_size": "16 * ratio"}}, "search")
    with pytest.raises(UserError, match="match resizes the width"):
        Space(spec, load_model_spec("miniwin-tiny"), load_train_spec("demo"))


def test_a_search_says_that_it_resizes_and_where_a_baseline_cannot_be(tmp_path: Path) -> None:
    path = write_search(tmp_path, match="parameters")
    assert "mlp is resized until parameters is the base model's" in check_search(path)
    wide = {**MODEL, "name": "wide", "hidden_size": 512}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(wide))
    with pytest.raises(UserError, match=r"search.yaml:\d+:\d+: baseline: match: no intermediate_size"):
        check_search(path)

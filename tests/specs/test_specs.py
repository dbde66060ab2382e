"""Specs: YAML -> spec -> YAML, the canonical hash, overrides, JSON Schema, and that nothing in them can be changed."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import FIXTURES
from pydantic import BaseModel, ValidationError

from miniwin.blocks import ATTENTIONS, LOGIT_SCALES, MLPS, NORMS, POSITIONS, InitSpec, LayerSpec
from miniwin.specs import (
    ModelSpec,
    UserError,
    dump_yaml,
    json_schema,
    load_model_spec,
    load_search_spec,
    load_spec,
    load_train_spec,
    overridden,
    parse_spec,
    resolve_spec_path,
    shipped_specs,
)
from miniwin.specs.kinds import FORMATS
from miniwin.specs.pruning import HalvingPruner
from miniwin.specs.yaml_document import Document

OLD = FIXTURES / "format-1"

# The architecture of tests/fixtures/format-1/model.yaml. Zoo entries and studies hold hashes: they must never move.
OLD_HASH = "2537e62187eeb7eca47afbb650fbec4e68d8e1a1154de8dab669c71686992ec7"


def reloaded(spec: BaseModel, folder: Path) -> Any:
    path = folder / "again.yaml"
    path.write_text(dump_yaml(spec))
    return load_spec(path)


# -- strategies: any valid spec

NAMES = st.sampled_from(
    ["tiny", "1e5", "08", "0x1f", "no", "null", "true", "2001-01-01", "1.5", "1_0", "a.b_c-d", "0o7"]
)
TEXT = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=30) | st.sampled_from(
    [
        "1e5",
        "08",
        "null",
        "~",
        "<<",
        "=",
        "- a",
        "a: b",
        "#x",
        " x ",
        "\n",
        "a\nb",
        "\x85",
        "\u2028",
        "\x00",
        "é😀",
        "x" * 200,
    ]
)
REALS = st.floats(1e-12, 1e12)
RMS = st.fixed_dictionaries({"type": st.just("rmsnorm")}, optional={"eps": REALS})


@st.composite
def positions(draw: Any, head_dim: int, window: int | None) -> dict[str, Any]:
    kind = draw(st.sampled_from(["rope", "alibi", "nope", "published"] + ["harmonic"] * (window is not None)))
    if kind == "rope":
        return {"type": "rope", "rope_theta": draw(REALS)}
    if kind == "alibi":
        return {"type": "alibi"}
    if kind == "nope":
        log = st.fixed_dictionaries({"type": st.just("log")}, optional={"init": REALS})
        ratio = st.fixed_dictionaries(
            {"type": st.just("log-ratio")}, optional={"base": REALS, "total_length": st.booleans()}
        )
        return {"type": "nope", **draw(st.fixed_dictionaries({}, optional={"logit_scale": st.none() | log | ratio}))}
    if kind == "published":
        return {"type": "p-rope", "harmonic": False, "period": draw(st.integers(1, 99)), "rope_theta": draw(REALS)}
    assert window is not None
    period = draw(st.integers(max(window, head_dim), 4 * window + head_dim))
    numbers = st.lists(st.integers(1, period - 1), min_size=head_dim // 2, max_size=head_dim // 2)
    telling = numbers.map(lambda drawn: [1, *drawn[1:]])  # without a 1 they may repeat within the window
    chosen = draw(st.none() | st.sampled_from(["geometric", "all"]) | telling)
    return {"type": "p-rope", "period": period, "harmonics": chosen}


@st.composite
def models(draw: Any) -> dict[str, Any]:
    heads, head_dim = draw(st.integers(1, 4)), draw(st.sampled_from([2, 4, 8]))
    given_dim = draw(st.booleans())
    hidden = draw(st.integers(1, 40)) if given_dim else heads * head_dim
    blocks = {}
    letters = draw(st.lists(st.sampled_from("ABSG"), min_size=1, max_size=3, unique=True))
    for letter in letters:
        window = draw(st.none() | st.integers(1, 64))
        attention = {
            "num_heads": heads,
            "window": window,
            "position": draw(positions(head_dim, window)),
            **({"head_dim": head_dim} if given_dim else {}),
            **draw(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "num_kv_heads": st.sampled_from([n for n in range(1, heads + 1) if heads % n == 0]),
                        "qk_norm": st.none() | RMS,
                        "type": st.just("softmax"),
                    },
                )
            ),
        }
        mlp = {"type": "swiglu", "intermediate_size": draw(st.integers(1, 99))}
        blocks[letter] = {"attention": attention, "mlp": mlp, **draw(st.fixed_dictionaries({}, optional={"norm": RMS}))}
    return {
        "kind": "model",
        "format": 1,
        "name": draw(NAMES),
        "vocab_size": draw(st.integers(1, 999)),
        "hidden_size": hidden,
        "num_layers": len(letters) * draw(st.integers(1, 3)),
        "pattern": "".join(letters),
        "blocks": blocks,
        **draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "last": st.sampled_from(letters) if len(letters) == 1 else st.none(),
                    "norm": RMS,
                    "tie_word_embeddings": st.booleans(),
                    "init": st.fixed_dictionaries({}, optional={"std": REALS, "depth_scaled": st.booleans()}),
                },
            )
        ),
    }


@st.composite
def trains(draw: Any) -> dict[str, Any]:
    paths = st.lists(TEXT, min_size=1, max_size=3)
    data = st.one_of(
        st.fixed_dictionaries({"source": st.just("python-stdlib")}, optional={"valid_fraction": st.floats(0.01, 0.9)}),
        st.fixed_dictionaries({"source": st.just("text"), "paths": paths}, optional={"valid_paths": st.none() | paths}),
        st.fixed_dictionaries({"source": st.just("jsonl"), "paths": paths, "field": TEXT}),
        st.just({"source": "tasks", "task": "associative-recall"}),
    )
    return {
        "name": draw(NAMES),
        "data": draw(data),
        "tokens": draw(st.sampled_from([1, 4e6, 123456789])),
        "tokenizer": draw(TEXT),
        "optimizer": {"lr": draw(REALS), "eps": draw(REALS)},
        "clip_grad_norm": draw(st.none() | REALS),
    }


@settings(max_examples=60, deadline=None, derandomize=True)
@given(models())
def test_model_specs_come_back_from_yaml(tmp_path_factory: Any, data: dict[str, Any]) -> None:
    spec = parse_spec(data, "model")
    again = reloaded(spec, tmp_path_factory.getbasetemp())
    assert again == spec and again.hash == spec.hash
    assert dump_yaml(again) == dump_yaml(spec)
    assert parse_spec(spec.model_dump(mode="json"), "model") == spec
    # A reader of YAML 1.1, which PyYAML is, sees the same values.
    assert yaml.safe_load(dump_yaml(spec)) == spec.model_dump(mode="json")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(trains())
def test_train_specs_come_back_from_yaml(tmp_path_factory: Any, data: dict[str, Any]) -> None:
    spec = parse_spec(data, "train")
    assert reloaded(spec, tmp_path_factory.getbasetemp()) == spec
    assert yaml.safe_load(dump_yaml(spec)) == spec.model_dump(mode="json")


JSON = (
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(JSON, min_size=1, max_size=6), st.dictionaries(TEXT, JSON, max_size=3))
def test_any_values_come_back_from_yaml(tmp_path_factory: Any, values: list[Any], mapping: dict[str, Any]) -> None:
    class Holder(BaseModel):
        values: list[Any]
        mapping: dict[str, Any]

    text = dump_yaml(Holder(values=values, mapping=mapping))
    assert Document(text, "t").data == {"values": values, "mapping": mapping}


# -- old formats


@pytest.mark.parametrize("kind", ["model", "train", "search"])
def test_files_of_format_1_load_and_come_back(kind: str, tmp_path: Path) -> None:
    spec = load_spec(OLD / f"{kind}.yaml")
    assert spec.kind == kind and spec.format == 1
    assert reloaded(spec, tmp_path) == spec


def test_hashes_of_format_1_do_not_move() -> None:
    assert load_model_spec(OLD / "model.yaml").hash == OLD_HASH


@pytest.mark.parametrize("kind", ["model", "train", "search"])
def test_the_fixtures_of_format_1_name_every_field(kind: str) -> None:
    """A field that is added later is not in them, and then needs a default that changes nothing: see the hash above."""
    data = Document.read(OLD / f"{kind}.yaml").data
    spec = load_spec(OLD / f"{kind}.yaml")
    fields = set(type(spec).model_fields)
    # `base` of a search is optional since searches begin with weights, and so may be left out of what is written.
    assert set(data) - {"layer", "base"} == fields - type(spec).LATER - {"base"} and set(data) - {"layer"} <= fields


# -- the hash


def base() -> dict[str, Any]:
    """Every field written out, both kinds of layer, and every position once."""
    return copy.deepcopy(Document.read(OLD / "model.yaml").data) | {"layer": None}


def spec_of(data: dict[str, Any]) -> ModelSpec:
    return parse_spec({key: value for key, value in data.items() if key != "layer"}, "model")


def put(data: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    data = copy.deepcopy(data)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = data
        for part in parents:
            place = place[part]
        place[last] = value
    return data


def test_names_do_not_change_the_hash() -> None:
    assert spec_of(put(base(), {"name": "other"})).hash == OLD_HASH


def test_other_letters_do_not_change_the_hash() -> None:
    data, letters = base(), {"A": "X", "B": "A", "C": "Z", "D": "C"}
    data["blocks"] = {letters[old]: block for old, block in data["blocks"].items()}
    data["pattern"], data["last"] = "XAZ", "C"
    assert spec_of(data).hash == OLD_HASH


def test_the_order_of_blocks_and_fields_does_not_change_the_hash() -> None:
    data = base()
    data["blocks"] = dict(reversed(data["blocks"].items()))
    assert spec_of(dict(reversed(data.items()))).hash == OLD_HASH


def test_a_pattern_written_out_has_the_same_hash() -> None:
    assert spec_of(put(base(), {"pattern": "ABCABCD", "last": None})).hash == OLD_HASH
    assert spec_of(put(base(), {"pattern": "ABCABCA"})).hash == OLD_HASH


def test_one_block_under_two_letters_has_the_same_hash() -> None:
    data = base()
    data["blocks"]["E"] = copy.deepcopy(data["blocks"]["A"])
    data["pattern"] = "ABCEBCD"
    assert spec_of(data).hash == OLD_HASH


def test_defaults_written_out_have_the_same_hash() -> None:
    explicit = {
        "blocks.B.attention.head_dim": 12,
        "blocks.C.attention.head_dim": 12,
        "blocks.D.attention.head_dim": 12,
        "blocks.D.attention.window": None,
        "blocks.D.attention.qk_norm": None,
        "blocks.D.attention.type": "softmax",
        "blocks.D.norm": {"type": "rmsnorm", "eps": 0.000001},
        "blocks.B.attention.position.harmonics": None,
    }
    assert spec_of(put(base(), explicit)).hash == OLD_HASH
    data = base()
    for left_out in ("norm", "init"):
        del data[left_out]
    assert spec_of(data).hash == OLD_HASH


def test_equal_harmonics_have_the_same_hash() -> None:
    def tiny(position: dict[str, Any]) -> str:
        return str(
            spec_of(put(base(), {"blocks.A.attention.position": {"type": "p-rope", "period": 32, **position}})).hash
        )

    assert tiny({"harmonics": "all"}) == tiny({"harmonics": [1, 2, 3, 4]}) != tiny({})
    assert tiny({"harmonics": "geometric"}) == tiny({"harmonic": True}) == tiny({})
    assert tiny({"harmonic": False}) == tiny({"harmonic": False, "rope_theta": 10000}) != tiny({})


LINEAR = {"type": "linear", "factor": 2.0}
CHANGES: dict[str, Any] = {
    "vocab_size": 301,
    "hidden_size": 56,
    "num_layers": 8,
    "pattern": "ACB",
    "last": "A",
    "blocks.A.attention.num_heads": 8,
    "blocks.A.attention.num_kv_heads": 4,
    "blocks.A.attention.head_dim": {"blocks.A.attention.head_dim": 4, "blocks.A.attention.position.harmonics": [1, 2]},
    "blocks.A.attention.window": 17,
    "blocks.A.attention.position.type": {"blocks.A.attention.position": {"type": "alibi"}},
    "blocks.A.attention.position.period": 33,
    "blocks.A.attention.position.harmonic": {
        "blocks.A.attention.position": {"type": "p-rope", "period": 32, "harmonic": False}
    },
    "blocks.A.attention.position.harmonics": [1, 2, 4, 9],
    "blocks.B.attention.position.rope_theta": 10000,
    "blocks.A.attention.qk_norm.eps": 1e-6,
    "blocks.A.attention.qk_norm": None,
    "blocks.A.mlp.intermediate_size": 65,
    "blocks.A.norm.eps": 1e-6,
    "blocks.C.attention.window": 9999,
    "blocks.D.attention.position.logit_scale.init": 0.4,
    "blocks.D.attention.position.logit_scale.type": {"blocks.D.attention.position.logit_scale": {"type": "log-ratio"}},
    "blocks.D.attention.position.logit_scale": None,
    "norm.eps": 1e-5,
    "tie_word_embeddings": True,
    "init.std": 0.03,
    "init.depth_scaled": False,
    "init.type": {"init": {"type": "fan-in", "std": 0.7, "depth_scaled": False}},
    "init.embedding_std": 0.03,
    # fields that came later
    "blocks.D.attention.chunk": 64,
    "blocks.A.attention.keep_first": 2,
    "blocks.D.attention.windows": [16, None],
    "blocks.A.attention.qk_norm_scope": "all",
    "blocks.A.attention.qk_norm_order": "after",
    "blocks.A.attention.qk_norm.gain": "none",
    "blocks.A.attention.qkv_bias": True,
    "blocks.A.attention.o_bias": True,
    "blocks.A.attention.score_scale": 0.3,
    "blocks.A.attention.softcap": 5.0,
    "blocks.A.attention.sinks": True,
    "blocks.B.attention.position.partial_rotary_factor": 0.5,
    "blocks.B.attention.position.pairing": "interleaved",
    "blocks.A.attention.position.periods": {"blocks.A.attention.position": {"type": "p-rope", "periods": [32, 64]}},
    "blocks.A.attention.position.gate": {
        "blocks.A.attention.position": {"type": "p-rope", "periods": [32, 64], "gate": True}
    },
    "blocks.C.attention.position.scaling": {"blocks.C.attention.position": {"type": "rope", "scaling": LINEAR}},
    "blocks.D.attention.position.logit_scale.learned": False,
    "blocks.A.mlp.bias": True,
    "blocks.A.norm.gain": "one-plus",
    "blocks.A.residual": "post",
    "blocks.A.residual_scale": 0.5,
    "norm.gain": "one-plus",
    "embed_scale": 2.0,
    "embed_norm": {"embed_norm": {"type": "rmsnorm"}},
    "embed_positions": 500,
    "logit_scale": 2.0,
    "logit_softcap": 30.0,
}
SAME = {"kind", "format", "name", "norm.type"}  # one value only, or no part of the architecture


def leaves(data: Any, path: str = "") -> Iterator[str]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from leaves(value, f"{path}.{key}".lstrip("."))
    else:
        yield path


@pytest.mark.parametrize("path", CHANGES)
def test_every_field_changes_the_hash(path: str) -> None:
    change = CHANGES[path]
    changes = change if isinstance(change, dict) else {path: change}
    if path == "last":
        changes = {
            "last": None,
            "pattern": "ABCABCA",
            "blocks": {k: v for k, v in base()["blocks"].items() if k != "D"},
        }
    assert spec_of(put(base(), changes)).hash != OLD_HASH


def test_no_field_is_forgotten_above() -> None:
    """Fields of the four blocks are taken together: what is changed in one counts for all."""

    def general(path: str) -> str:
        return re.sub(r"^blocks\.[A-Z]", "blocks", path)

    one_value = {"blocks.attention.type", "blocks.attention.qk_norm.type", "blocks.mlp.type", "blocks.norm.type"}
    there = {general(path) for path in leaves(load_model_spec(OLD / "model.yaml").model_dump(mode="json"))}
    assert there - SAME - one_value <= {general(path) for path in CHANGES}


def test_all_changed_specs_differ_from_each_other() -> None:
    hashes = [
        spec_of(put(base(), c if isinstance(c, dict) else {p: c})).hash for p, c in CHANGES.items() if p != "last"
    ]
    assert len(set(hashes)) == len(hashes)


def test_equal_hash_is_an_equal_function() -> None:
    data, letters = base(), {"A": "X", "B": "A", "C": "Z", "D": "C"}
    data["blocks"] = {letters[old]: block for old, block in data["blocks"].items()}
    data["pattern"], data["last"] = "XAZXAZC", None
    outputs = []
    for spec in (spec_of(base()), spec_of(data)):
        torch.manual_seed(0)
        outputs.append(spec.build()(torch.arange(40).view(1, 40)))
    assert torch.equal(*outputs)


# -- what a spec is


@pytest.mark.parametrize("kind", ["model", "train", "search"])
def test_specs_cannot_be_changed(kind: str) -> None:
    spec = load_spec(OLD / f"{kind}.yaml")
    for field in type(spec).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(spec, field, getattr(spec, field))


def test_every_spec_class_is_strict_and_frozen() -> None:
    registered = [cls for registry in (ATTENTIONS, LOGIT_SCALES, MLPS, NORMS, POSITIONS) for cls in registry]
    assert len(registered) >= 8
    for cls in [*registered, LayerSpec, InitSpec, ModelSpec]:
        assert cls.model_config["frozen"] and cls.model_config["strict"] and cls.model_config["extra"] == "forbid", cls


def test_reading_a_property_does_not_make_specs_unequal() -> None:
    one, two = load_model_spec(OLD / "model.yaml"), load_model_spec(OLD / "model.yaml")
    assert one.hash and one.layer_specs and one == two


@pytest.mark.parametrize(
    "written, count", [("4e6", 4_000_000), ("4000000", 4_000_000), ("4.0e+6", 4_000_000), ("1e0", 1)]
)
def test_counts_may_be_written_with_an_exponent(tmp_path: Path, written: str, count: int) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(f"kind: train\nformat: 1\nname: t\ndata: {{source: python-stdlib}}\ntokens: {written}\n")
    tokens = load_train_spec(path).tokens
    assert tokens == count and type(tokens) is int


@pytest.mark.parametrize("written", ["1.5", "-1", "true", "'4e6'", "1e-3", ".nan", "1e400", "[1]", ""])
def test_other_numbers_are_no_counts(tmp_path: Path, written: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(f"kind: train\nformat: 1\nname: t\ndata: {{source: python-stdlib}}\ntokens: {written}\n")
    with pytest.raises(UserError, match=r"t.yaml:5:\d+: tokens: got .*; expected "):
        load_spec(path)


# -- overrides


def test_overrides_are_read_as_yaml() -> None:
    spec = load_model_spec(
        "miniwin-tiny",
        [
            "num_layers=4e0",
            "blocks.S.attention.window = 16",
            "blocks.S.attention.position={type: p-rope, period: 0x20}",
            "blocks.G.attention.position.logit_scale.init=1e-1",
            "blocks.G.attention.qk_norm={}",
            "last=null",
            "name=no",
        ],
    )
    assert spec.num_layers == 4 and spec.layout == "SSSG" and spec.last is None and spec.name == "no"
    local, globally = spec.layer_specs[0].attention, spec.layer_specs[3].attention
    assert local.window == 16 and local.position.period == 32
    assert globally.position.logit_scale.init == 0.1 and globally.qk_norm.eps == 1e-6


def test_the_last_override_wins_and_others_stay() -> None:
    before, after = (
        load_model_spec("miniwin-tiny"),
        load_model_spec("miniwin-tiny", ["hidden_size=8", "hidden_size=128"]),
    )
    assert after == before.model_copy(update={"hidden_size": 128})


def test_an_override_of_a_merged_field_reaches_one_block() -> None:
    spec = load_model_spec("miniwin-tiny", ["blocks.S.attention.num_heads=8"])
    assert [layer.attention.num_heads for layer in spec.layer_specs[2:4]] == [8, 4]


def test_overrides_make_the_mappings_that_the_file_leaves_out() -> None:
    assert load_train_spec("tiny", ["stop.patience=3"]).stop.patience == 3
    assert load_model_spec("miniwin-tiny", ["init.std=0.5"]).init.std == 0.5


def test_overrides_reach_into_lists() -> None:
    spec = load_search_spec(OLD / "search.yaml", ["objectives.0=minimize parameters", "pruner=null"])
    assert spec.objectives == ["minimize parameters"]
    with pytest.raises(
        UserError, match=r"--set objectives.7=x: 'objectives' is a list of 1; expected a mapping that has a '7'"
    ):
        load_search_spec(OLD / "search.yaml", ["objectives.7=x"])


@pytest.mark.parametrize("name", ["train/tiny", "train/demo", "models/miniwin-tiny", "searches/demo"])
def test_a_spec_at_hand_is_overridden_as_its_file_is(name: str, tmp_path: Path) -> None:
    folder, _, stem = name.partition("/")
    kind = {"train": "train", "models": "model", "searches": "search"}[folder]
    spec, path = load_spec(stem, kind), tmp_path / "same.yaml"
    path.write_text(dump_yaml(spec))
    changes = {
        "train": ["optimizer.lr=1e-3", "tokens=3e3", "schedule.type=wsd", "name=no"],
        "model": ["blocks.S.attention.window = 16", "init.std=0.5", "last=null"],
        "search": ["objectives.0=minimize parameters", "pruner=null"],
    }[kind]
    assert overridden(spec, changes) == load_spec(path, kind, changes)
    assert overridden(spec, []) == spec
    for wrong in ("num_layers", "budget.trial=3", "name=[1]", "name.x=1", "format=3"):
        with pytest.raises(UserError) as of_file:
            load_spec(path, kind, [wrong], option="--set-it")
        with pytest.raises(UserError) as at_hand:
            overridden(spec, [wrong], "--set-it")
        assert str(at_hand.value) == str(of_file.value)


def test_a_field_that_is_wrong_because_of_an_override_is_named() -> None:
    with pytest.raises(UserError, match=r"^schedule: warmup \(0.9\) and decay \(0.2\) are fractions"):
        overridden(load_train_spec("tiny"), ["schedule.type=wsd", "schedule.warmup=0.9", "schedule.decay=0.2"])


# -- finding files


def test_shipped_specs_are_found_by_name() -> None:
    assert resolve_spec_path("miniwin-1m").name == "miniwin-1m.yaml"
    assert load_train_spec("tiny").kind == "train"
    with pytest.raises(
        UserError, match=r"miniwin-1n: there is no such file, and no shipped spec .*; did you mean 'miniwin-1m'?"
    ):
        load_model_spec("miniwin-1n")
    with pytest.raises(UserError, match=r"no shipped spec is called so; shipped: .*, minimind-1m, "):
        load_model_spec("zzz")


def test_a_name_that_several_kinds_have_needs_the_kind() -> None:
    assert load_train_spec("demo").kind == "train" and load_search_spec("demo").kind == "search"
    with pytest.raises(
        UserError, match=r"demo: several shipped specs are called so; .*train/demo.yaml, .*searches/demo.yaml"
    ):
        load_spec("demo")
    assert {"train/demo", "searches/demo", "miniwin-1m"} <= set(shipped_specs())


def test_a_file_comes_before_a_shipped_spec_and_that_before_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "miniwin-1m").mkdir()
    assert load_model_spec("miniwin-1m").name == "miniwin-1m"
    (tmp_path / "miniwin-tiny").write_text(dump_yaml(load_model_spec("miniwin-1m")))
    assert load_model_spec("miniwin-tiny").name == "miniwin-1m"


def test_the_wrong_kind_of_spec_is_refused() -> None:
    with pytest.raises(UserError, match=r"model.yaml:2:7: kind: got a model spec; expected a train spec"):
        load_train_spec(OLD / "model.yaml")


# -- JSON Schema


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from nodes(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from nodes(value)


KNOWN = {
    *("$schema", "$ref", "title", "description", "default", "const", "enum", "type", "definitions"),
    *(
        "properties",
        "patternProperties",
        "required",
        "additionalProperties",
        "propertyNames",
        "minProperties",
        "maxProperties",
    ),
    *("items", "minItems", "maxItems", "minLength", "maxLength", "pattern"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "anyOf", "oneOf", "allOf"),
}


def keywords(schema: Any) -> Iterator[str]:
    """The keywords of a schema, not the names of properties and definitions, nor what is in defaults."""
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        yield key
        if key in ("properties", "patternProperties", "definitions"):
            for inner in value.values():
                yield from keywords(inner)
        elif key not in ("default", "const", "enum", "required"):
            for inner in value if isinstance(value, list) else [value]:
                yield from keywords(inner)


@pytest.mark.parametrize("kind", ["model", "train", "search"])
def test_the_schema_is_draft_07(kind: str) -> None:
    schema = json_schema(kind)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert set(keywords(schema)) <= KNOWN
    for node in nodes(schema):
        if isinstance(node.get("$ref"), str):
            assert set(node) == {"$ref"}, "draft-07 ignores what stands beside a $ref"
            name = node["$ref"].removeprefix("#/definitions/")
            assert name in schema["definitions"]
        if isinstance(node.get("pattern"), str):
            re.compile(node["pattern"])


LOSS = ["minimize loss@1024", "minimize cache_bytes@4096"]


@pytest.mark.parametrize(
    ("changes", "stops"),
    [
        ({}, True),
        ({"objectives": ["minimize bits_per_byte@16x"]}, True),
        ({"rungs": [0.1, 0.5]}, True),
        ({"rungs": []}, False),
        ({"pruner": None}, False),
        ({"format": 1}, False),  # as it was before there was a format 2
        ({"objectives": ["minimize loss@1024", "maximize recall@1024"]}, False),  # learnt late
        ({"objectives": ["minimize cache_bytes@4096"]}, False),  # nothing to see on the way
        ({"set": {"blocks.A.attention.window": "window", "train.batch_size": "window"}}, False),  # other rungs each
        ({"base": None, "weights": "miniwin-1m", "budget": {"trials": 4, "tokens_per_trial": 0}}, False),
    ],
    ids=str,
)
def test_a_search_that_says_nothing_stops_early_where_it_pays(changes: dict[str, Any], stops: bool) -> None:
    spec = {
        "kind": "search",
        "format": 2,
        "name": "usual",
        "base": "model.yaml",
        "train": "train.yaml",
        "variables": {"window": {"choice": [8, 16]}},
        "set": {"blocks.A.attention.window": "window"},
        "objectives": LOSS,
        "budget": {"trials": 4},
        **changes,
    }
    found = parse_spec({name: value for name, value in spec.items() if value is not None or name == "pruner"}, "search")
    assert found.pruner == (HalvingPruner(reduction=3) if stops else None)
    assert found.rungs == changes.get("rungs", [0.037, 0.111, 0.333] if stops else [0.25, 0.5])
    again = parse_spec(found.model_dump(mode="json"), "search")  # as a study keeps it
    assert again == found and again.pruner == found.pruner


@pytest.mark.parametrize("kind", ["model", "train", "search"])
def test_the_schema_has_every_field(kind: str) -> None:
    schema, spec = json_schema(kind), load_spec(OLD / f"{kind}.yaml")
    assert set(schema["properties"]) == set(type(spec).model_fields) | ({"layer"} if kind == "model" else set())
    assert schema["additionalProperties"] is False
    assert {"kind", "format", "name"} <= set(schema["required"])
    formats = schema["properties"]["format"]
    assert schema["properties"]["kind"]["const"] == kind
    assert formats.get("enum", [formats.get("const")]) == list(range(1, FORMATS[kind] + 1))


def test_the_schema_has_every_registered_block() -> None:
    definitions = json_schema("model")["definitions"]
    for registry in (ATTENTIONS, LOGIT_SCALES, MLPS, NORMS, POSITIONS):
        for cls in registry:
            assert set(definitions[cls.__name__]["properties"]) == set(cls.model_fields)
            assert definitions[cls.__name__]["properties"]["type"]["const"] == cls.model_fields["type"].default


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """As much of draft-07 as the schemas use, to ask whether the shipped files fit them as an editor would."""
    if "$ref" in schema:
        return fits(value, root["definitions"][schema["$ref"].removeprefix("#/definitions/")], root)
    types: dict[str, Any] = {
        "object": lambda v: isinstance(v, dict),
        "array": lambda v: isinstance(v, list),
        "string": lambda v: isinstance(v, str),
        "boolean": lambda v: isinstance(v, bool),
        "null": lambda v: v is None,
        "integer": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and v == int(v),
        "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    }
    tests = {
        "type": lambda want: types[want](value),
        "const": lambda want: value == want,
        "enum": lambda want: value in want,
        "anyOf": lambda want: any(fits(value, one, root) for one in want),
        "oneOf": lambda want: sum(fits(value, one, root) for one in want) == 1,
        "allOf": lambda want: all(fits(value, one, root) for one in want),
        "minimum": lambda want: value >= want,
        "maximum": lambda want: value <= want,
        "exclusiveMinimum": lambda want: value > want,
        "exclusiveMaximum": lambda want: value < want,
        "pattern": lambda want: re.search(want, value) is not None,
        "minLength": lambda want: len(value) >= want,
        "maxLength": lambda want: len(value) <= want,
        "minItems": lambda want: len(value) >= want,
        "maxItems": lambda want: len(value) <= want,
        "minProperties": lambda want: len(value) >= want,
        "required": lambda want: all(name in value for name in want),
        "items": lambda want: all(fits(one, want, root) for one in value),
        "propertyNames": lambda want: all(fits(name, want, root) for name in value),
        "properties": lambda want: all(fits(value[k], s, root) for k, s in want.items() if k in value),
        "patternProperties": lambda want: all(
            fits(v, s, root) for k, v in value.items() for name, s in want.items() if re.search(name, k)
        ),
        "additionalProperties": lambda want: all(
            want is not False and (want is True or fits(v, want, root))
            for k, v in value.items()
            if k not in schema.get("properties", {})
            and not any(re.search(name, k) for name in schema.get("patternProperties", {}))
        ),
    }
    ordered = sorted(schema, key=lambda keyword: keyword != "type")  # the others ask for the type that it names
    return all(tests[keyword](schema[keyword]) for keyword in ordered if keyword in tests)


FILES = [*shipped_specs().values(), *sorted(OLD.glob("*.yaml"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_shipped_files_fit_their_schema(path: Path) -> None:
    data = Document.read(path).data
    schema = json_schema(data["kind"])
    assert fits(data, schema, schema)


@pytest.mark.parametrize(
    "name, change",
    [
        ("miniwin-tiny", {"hiden_size": 3}),
        ("miniwin-tiny", {"hidden_size": "big"}),
        ("miniwin-tiny", {"pattern": 3}),
        ("miniwin-tiny", {"format": 2}),
        ("miniwin-tiny", {"blocks.S.attention.windw": 3}),
        ("miniwin-tiny", {"blocks.S.attention.position.type": "nop"}),
        ("miniwin-tiny", {"blocks.S.attention.position.period": 0}),
        ("miniwin-tiny", {"blocks": {"s": {}}}),
        ("train/tiny", {"data.source": "web"}),
        ("train/tiny", {"dtype": "float8"}),
        ("period-window-ratio", {"variables.ratio": {"integer": [1, 2]}}),
        ("period-window-ratio", {"budget.trials": 0}),
    ],
)
def test_the_schema_refuses_what_the_spec_refuses(name: str, change: dict[str, Any], tmp_path: Path) -> None:
    paths = shipped_specs()
    data = Document.read(paths.get(name) or paths[name.rpartition("/")[2]]).data
    schema, changed = json_schema(data["kind"]), put(data, change)
    assert fits(data, schema, schema) and not fits(changed, schema, schema)
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({key: value for key, value in changed.items() if key != "layer"}))
    with pytest.raises(UserError):
        load_spec(tmp_path / "x.yaml")

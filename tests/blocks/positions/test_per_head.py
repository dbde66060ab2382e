"""Heads of one layer with different encodings: each group is what a layer of these heads alone would be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import attention, enliven, largest, random_ids, tiny_spec
from torch import nn

from miniwin.blocks import POSITIONS, Attention
from miniwin.blocks.attention.spec import AttentionSpec
from miniwin.blocks.attention_ops import use_backend
from miniwin.blocks.cache import Int8Cache
from miniwin.blocks.decode import graph_step, native_step
from miniwin.blocks.positions import Positions
from miniwin.explain import explanation
from miniwin.explain.backends import backends
from miniwin.explain.shift import shift_changes
from miniwin.explain.soundness import rotary_blocks, soundness, worst
from miniwin.specs import ModelSpec, UserError, dump_yaml, parse_spec
from miniwin.specs.schema import json_schema

HIDDEN, DIM = 32, 8
NOPE, STICK, FORGET = ({"type": kind} for kind in ("nope", "stick-breaking", "forgetting"))
PERIODIC: dict[str, Any] = {"type": "p-rope", "period": 14}
GATED: dict[str, Any] = {"type": "p-rope", "periods": [3, 14], "gate": True}


def mixed(*of: dict[str, Any], shares: tuple[float, ...] = ()) -> dict[str, Any]:
    shares = shares or (1 / len(of),) * len(of)
    return {"type": "per-head", "of": [{"share": share, **one} for share, one in zip(shares, of, strict=True)]}


def built(position: dict[str, Any], window: int | None, num_heads: int, kv: int, **fields: Any) -> Attention:
    spec = AttentionSpec(
        num_heads=num_heads,
        num_kv_heads=kv,
        head_dim=DIM,
        window=window,
        position=POSITIONS[position["type"]](**position),
        **fields,
    )
    made = spec.resolve(HIDDEN).build(HIDDEN)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return made


def alone(whole: Attention, position: dict[str, Any], group: int, window: int | None, **fields: Any) -> Attention:
    """A layer of the heads of one group, with their weights and without o_proj."""
    groups = whole.groups
    own = groups[group]
    before = sum(g.num_kv_heads for g in groups[:group])
    sharing = own.num_heads // own.num_kv_heads
    made = built(position, window, own.num_heads, own.num_kv_heads, **fields)
    made.position.load_state_dict(own.encoding.state_dict())
    at, end = before * sharing * DIM, (before * sharing + own.num_heads) * DIM
    with torch.no_grad():
        made.q_proj.weight.copy_(whole.q_proj.weight[at:end])
        for name in ("k_proj", "v_proj"):
            weight = getattr(whole, name).weight[before * DIM : (before + own.num_kv_heads) * DIM]
            getattr(made, name).weight.copy_(weight)
        if whole.sinks is not None and made.sinks is not None:
            made.sinks.copy_(whole.sinks[at // DIM : end // DIM])
    made.o_proj = nn.Identity()  # type: ignore[assignment]
    return made


CASES: dict[str, tuple[tuple[dict[str, Any], ...], tuple[float, ...], int | None, dict[str, Any]]] = {
    "nope and stick-breaking": ((NOPE, STICK), (0.5, 0.5), None, {}),
    "three of unequal shares": ((FORGET, {"type": "rope"}, {"type": "alibi"}), (0.25, 0.5, 0.25), None, {}),
    "in a window": (({"type": "hope"}, {"type": "p-rope", "periods": [3, 14]}), (0.5, 0.5), 7, {"softcap": 2.0}),
    "sinks and first tokens": ((NOPE, PERIODIC), (0.25, 0.75), 7, {"sinks": True, "keep_first": 2}),
    "gated periods": ((GATED, STICK), (0.5, 0.5), 7, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_each_group_is_a_layer_of_its_own(name: str) -> None:
    """Outputs and gradients, of a row of 40 tokens and of a padded batch."""
    of, shares, window, fields = CASES[name]
    whole = built(mixed(*of, shares=shares), window, 8, 4, **fields)
    assert [group.num_kv_heads for group in whole.groups] == [round(4 * share) for share in shares]
    for pad in (None, torch.tensor([0, 9])):
        x = torch.randn(2, 40, HIDDEN, generator=torch.Generator().manual_seed(1))
        index = torch.arange(40).unsqueeze(0)
        where = Positions(index if pad is None else (index - pad.unsqueeze(1)).clamp(min=0))
        given, separate = x.clone().requires_grad_(), x.clone().requires_grad_()
        got = whole(given, where, None, pad)
        parts = [alone(whole, position, i, window, **fields) for i, position in enumerate(of)]
        want = torch.cat([part(separate, where, None, pad) for part in parts], -1) @ whole.o_proj.weight.T
        real = slice(None) if pad is None else slice(9, None)
        assert largest(got[:, real], want[:, real]) < 1e-5
        weights = torch.randn(2, 40, HIDDEN, generator=torch.Generator().manual_seed(2))
        (got[:, real] * weights[:, real]).sum().backward()
        (want[:, real] * weights[:, real]).sum().backward()
        assert given.grad is not None and separate.grad is not None
        assert largest(given.grad, separate.grad) < 1e-4


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_the_tiled_backend_agrees_with_what_each_group_gets(name: str) -> None:
    of, shares, window, fields = CASES[name]
    whole = built(mixed(*of, shares=shares), window, 8, 4, **fields)
    x, where = torch.randn(1, 40, HIDDEN), Positions(torch.arange(40).unsqueeze(0))
    dispatched = whole(x, where)
    with use_backend("tiled"):
        assert largest(whole(x, where), dispatched) < 1e-5


def spec_of(position: dict[str, Any], window: int | None = None, **fields: Any) -> ModelSpec:
    return tiny_spec({"G": attention(window, position, **fields)})


@torch.no_grad()
def test_an_int8_cache_has_the_keys_of_every_group() -> None:
    spec = spec_of(mixed(NOPE, FORGET, STICK, shares=(0.5, 0.25, 0.25)), num_kv_heads=4)
    decoder = enliven(spec.build()).eval()
    ids = random_ids(spec, 2, 40)
    cache = decoder.new_cache(2, dtype=torch.int8)
    assert isinstance(cache.layers[0], Int8Cache)
    parts = [decoder(ids[:, :30], cache=cache), *(decoder(ids[:, t : t + 1], cache=cache) for t in range(30, 40))]
    assert largest(torch.cat(parts, 1), decoder(ids)) < 0.5
    assert cache.nbytes == 2 * spec.cache_bytes(40, "int8")


def test_qk_norms_of_every_scope_and_order() -> None:
    """The norm of a whole projection spans the groups, as it spans heads."""
    for scope in ("head", "all"):
        for order in ("before", "after"):
            norm = {"qk_norm": {"type": "rmsnorm"}, "qk_norm_scope": scope, "qk_norm_order": order}
            split, plain = (enliven(spec_of(position, **norm).build()).eval() for position in (mixed(NOPE, NOPE), NOPE))
            plain_scale = {name: p for name, p in plain.state_dict().items() if "logit_scale" in name}
            state = {name: p for name, p in plain.state_dict().items() if name not in plain_scale}
            for name, scale in plain_scale.items():
                for i, half in enumerate(scale.chunk(2)):
                    state[name.replace("position.", f"position.encodings.{i}.")] = half
            split.load_state_dict(state)
            ids = random_ids(spec_of(NOPE), 1, 20)
            assert largest(split(ids), plain(ids)) < 1e-5, (scope, order)


def test_a_layer_of_groups_decodes_layer_by_layer() -> None:
    """The single-call steps know layers of one encoding, and say so of others."""
    decoder = spec_of(mixed(NOPE, PERIODIC), window=7).build().eval()
    cache = decoder.new_cache()
    assert "more than keys and values" in (graph_step.declines(decoder, cache) or "")
    assert native_step.declines(decoder, cache) is not None


def test_costs_are_sums_over_groups() -> None:
    half = spec_of(mixed(NOPE, FORGET))
    nope, forget = spec_of(NOPE), spec_of(FORGET)
    assert 2 * half.parameters() == nope.parameters() + forget.parameters()
    assert 2 * half.cache_bytes(100, "float32") == nope.cache_bytes(100, "float32") + forget.cache_bytes(100, "float32")
    assert 2 * half.forward_flops(100) == nope.forward_flops(100) + forget.forward_flops(100)


def test_shares_that_round_to_the_same_heads_have_the_same_hash() -> None:
    three = {"num_heads": 6, "num_kv_heads": 3, "head_dim": 8}
    thirds = [mixed(NOPE, STICK, shares=shares) for shares in ((0.3333, 0.6667), (1 / 3, 2 / 3))]
    hashes = [spec_of(position, **three).hash for position in (*thirds, mixed(STICK, NOPE, shares=(2 / 3, 1 / 3)))]
    assert hashes[0] == hashes[1] != hashes[2]


def test_yaml_keeps_a_share_beside_its_encoding() -> None:
    spec = spec_of(mixed(NOPE, STICK))
    assert "- share: 0.5\n          type: stick-breaking" in dump_yaml(spec)
    again = parse_spec(spec.model_dump(mode="json"), "model")
    assert again == spec and again.hash == spec.hash
    share = json_schema("model")["definitions"]["ShareSpec"]
    assert share["required"] == ["share", "type"] and "nope" in share["properties"]["type"]["enum"]


@pytest.mark.parametrize(
    ("of", "fields", "said"),
    [
        ([{"share": 0.5, **NOPE}], {}, "position.of: .* expected 2 or more"),
        (
            [{"share": 0.4, **NOPE}, {"share": 0.6, **STICK}],
            {},
            "of.0.share: got 0.4, which is 0.8 of 2 .*: 0.5 would do",
        ),
        ([{"share": 0.5, **NOPE}] * 3, {}, "position.of: got shares of 1.5 together; expected 1"),
        ([{"share": 0.5, **NOPE}, STICK], {}, "of.1.share: this field is required"),
        (
            [{"share": 0.5, **NOPE}, {"share": 0.5, "type": "nop"}],
            {},
            "of.1.type: unknown type 'nop'; did you mean 'nope'",
        ),
        ([{"share": 0.5, **NOPE}, {"share": 0.5, "type": "rope", "theta": 3}], {}, "of.1.theta: unknown field 'theta'"),
        (
            [{"share": 0.5, **NOPE}, {"share": 0.5, "position": {"type": "rope"}}],
            {},
            r"of.1.position: the fields of an encoding stand beside its share: write \{share: 0.5, type: rope\}",
        ),
        (
            [{"share": 0.5, "type": "rope", "position": None}, {"share": 0.5, **NOPE}],
            {},
            r"of.0.position: the fields of an encoding stand beside its share",
        ),
        ([{"share": 0.5, **NOPE}, {"share": 0.5, **mixed(NOPE, STICK)}], {}, "of.1.type: got per-head within per-head"),
        (
            [{"share": 0.5, **NOPE}, {"share": 0.5, "type": "learned", "num_positions": 2, "then": mixed(NOPE, STICK)}],
            {},
            "of.1.then: got per-head; put learned into its groups",
        ),
        ([{"share": 0.5, **NOPE}, {"share": 0.5, **PERIODIC}], {}, "of.1.period: a global layer"),
        (
            [{"share": 0.5, **NOPE}, {"share": 0.5, **PERIODIC}],
            {"window": 20},
            "of.1.period: got period 14 with window 20",
        ),
        (
            [{"share": 0.5, **NOPE}, {"share": 0.5, "type": "learned", "num_positions": 2, "then": PERIODIC}],
            {"window": 20},
            "of.1.then.period: got period 14 with window 20",
        ),
        (
            [{"share": 0.5, **NOPE}, {"share": 0.5, **STICK}],
            {"sinks": True},
            r"sinks: stick-breaking \(position.of.1\)",
        ),
        (
            [{"share": 0.5, **NOPE}, {"share": 0.5, **STICK}],
            {"window": 1},
            r"window: .* \(it is position.of.1 that minds\)",
        ),
        (
            [{"share": 0.5, **NOPE}, {"share": 0.5, **FORGET}],
            {"window": 7, "keep_first": 2},
            r"keep_first: got 2 with forgetting \(position.of.1\)",
        ),
        (
            [{"share": 0.5, **NOPE}, {"share": 0.5, **GATED}],
            {"window": 7, "qk_norm": {"type": "rmsnorm"}, "qk_norm_order": "after"},
            r"qk_norm_order: got 'after', and p-rope \(position.of.1\) widens",
        ),
    ],
)
def test_what_does_not_fit_is_refused(of: list[dict[str, Any]], fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        spec_of({"type": "per-head", "of": of}, **{"window": None, **fields})


def test_more_groups_than_heads_are_refused() -> None:
    third = [{"share": 1 / 3, **NOPE}] * 3
    with pytest.raises(UserError, match=r"of.0.share: got 0.333333, which is 0.6667 of 2 key/value heads"):
        spec_of({"type": "per-head", "of": third})


# -- explain


def test_explain_says_what_each_group_does() -> None:
    spec = tiny_spec({"S": attention(7, mixed(PERIODIC, {"type": "rope"})), "G": attention(None, mixed(NOPE, STICK))})
    rows = explanation(spec, [64])["layers"]
    assert rows[0]["encoding"] == "50% p-rope, harmonic; 50% rope, theta 10000" and rows[0]["periods"] == [14]
    assert rows[1]["encoding"] == "50% nope, log scale; 50% stick-breaking"
    found = {row["block"]: row for row in soundness(spec, 4096)}
    assert list(found) == ["S of.0", "S of.1", "G of.0", "G of.1"]
    assert [row["rotary"] for row in found.values()] == [True, True, False, False]
    assert found["S of.0"]["encoding"] == "p-rope, harmonic" and found["S of.0"]["layers"] == [0, 2]
    rotary = rotary_blocks(spec)["S of.1"]
    assert rotary is not None and rotary.layers == 2, "two layers turn, whatever the number of groups"
    assert worst(spec, "rope_aliasing", 4096) == 0.5  # of the periodic group: 7 of 14
    answers = {(row["block"], row["device"], row["phase"]): row["backend"] for row in backends(spec)}
    assert answers["G of.1", "cpu", "prefill"] == "tiled" != answers["G of.0", "cpu", "prefill"]


def test_a_shift_changes_nothing_where_every_group_is_relative() -> None:
    spec = tiny_spec({"S": attention(7, mixed(PERIODIC, {"type": "rope"})), "G": attention(None, mixed(NOPE, STICK))})
    assert all(row["max"] < 1e-12 for row in shift_changes(spec))
    published = {"type": "p-rope", "period": 7, "harmonic": False}
    (row,) = shift_changes(tiny_spec({"S": attention(7, mixed(NOPE, published))}))
    assert row["mean"] > 0.05

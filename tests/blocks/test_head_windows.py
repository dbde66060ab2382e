"""Heads of one layer that see differently (`windows: [null, 7]`), against all pairs' scores with a mask for each head.

What every block keeps is tested in test_contract.py, test_cache.py, test_batching.py and test_rollback.py, which have
such layers among theirs.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import GLOBAL, attention, enliven, largest, random_ids, tiny_spec
from torch import Tensor

from miniwin.blocks import POSITIONS, Attention
from miniwin.blocks.attention.spec import AttentionSpec
from miniwin.blocks.attention.split import runs
from miniwin.blocks.attention_ops import use_backend
from miniwin.blocks.cache import GrowingCache, Int8Cache, RingCache
from miniwin.blocks.decode import graph_step
from miniwin.blocks.positions import Positions
from miniwin.explain import explanation
from miniwin.explain.backends import backends
from miniwin.explain.layer_strip import strip
from miniwin.explain.shift import shift_changes
from miniwin.explain.soundness import rotary_blocks
from miniwin.specs import ModelSpec, UserError, dump_yaml, parse_spec
from miniwin.specs.schema import json_schema

HIDDEN, DIM = 32, 8
ROPE: dict[str, Any] = {"type": "rope"}


def built(position: dict[str, Any], windows: list[int | None], num_heads: int, **fields: Any) -> Attention:
    """A layer in float64 with lively weights. The heads see as `windows` says; one window: all of them."""
    sight = {"window": windows[0]} if len(windows) == 1 else {"windows": windows}
    spec = AttentionSpec(
        num_heads=num_heads,
        head_dim=DIM,
        position=POSITIONS[position["type"]](**position),
        **sight,  # type: ignore[arg-type]
        **fields,
    )
    made = spec.resolve(HIDDEN).build(HIDDEN).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    return made


def by_pairs(layer: Attention, x: Tensor, windows: list[int | None], first: int) -> Tensor:
    """The layer's output from a mask (H, N, N): key j is visible to query i of a head with window W iff 0 <= i - j < W
    or j < first. Projections and rotations are the layer's own; all else is written out. One row, one encoding."""
    entered = layer._entered(x, Positions(torch.arange(x.shape[1]).unsqueeze(0)))
    (q,), (k, v, *gates) = entered.queries, entered.entry
    sharing, n = layer.num_heads // layer.num_kv_heads, x.shape[1]
    k, v = (t.repeat_interleave(sharing, 2) for t in (k, v))
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    seen = torch.stack([(distance < w) | (torch.arange(n) < first) if w else distance >= 0 for w in windows])
    seen = (seen & (distance >= 0)).repeat_interleave(sharing, 0)  # (H, N, N)
    encoding = layer.position
    if encoding.scales_queries:
        scales = [encoding.query_scale(seen[h].sum(-1).unsqueeze(0), n) for h in range(layer.num_heads)]
        q = torch.stack([q[:, :, h] * s[:, :, h if s.shape[2] > 1 else 0] for h, s in enumerate(scales)], 2)
    score = encoding.score()
    scores = torch.einsum("bnhd,bmhd->bhnm", q, k) if score is None else score(q, k, distance)
    scores = scores * layer.score_scale
    if layer.softcap is not None:
        scores = layer.softcap * torch.tanh(scores / layer.softcap)
    if (bias := encoding.score_bias()) is not None:
        scores = scores + bias(distance)
    if gates:
        total = gates[0].cumsum(1).transpose(1, 2)  # (B, H, N)
        scores = scores + total.unsqueeze(-1) - total.unsqueeze(-2)
    scores = scores.masked_fill(~seen, float("-inf"))
    if layer.sinks is not None:
        scores = torch.cat((scores, layer.sinks.view(1, -1, 1, 1).expand(*scores.shape[:3], 1)), -1)
    weights = torch.softmax(scores, -1)[..., :n]
    return layer.o_proj(torch.einsum("bhnm,bmhd->bnhd", weights, v).flatten(-2))  # type: ignore[no-any-return]


CASES: dict[str, tuple[dict[str, Any], list[int | None], int, dict[str, Any]]] = {
    "nope": ({"type": "nope"}, [None, 5, 5], 6, {}),
    "nope, first tokens": ({"type": "nope"}, [5, None, 9, 5], 4, {"keep_first": 3}),
    "rope": (ROPE, [None, 7], 8, {"keep_first": 2, "softcap": 2.0}),
    "sinks": (ROPE, [3, None, 3], 6, {"sinks": True, "keep_first": 1}),
    "harmonic": ({"type": "p-rope", "period": 14}, [3, 7], 4, {}),
    "a period each": ({"type": "p-rope", "periods": [5, 14]}, [3, 7, 1, 7], 4, {}),
    "gated periods": ({"type": "p-rope", "periods": [5, 14], "gate": True}, [7, 2], 4, {"keep_first": 2}),
    "slopes": ({"type": "alibi"}, [None, 7, None, 2], 8, {}),
    "buckets": ({"type": "t5", "num_buckets": 8, "max_distance": 20}, [None, 7], 4, {}),
    "gates": ({"type": "forgetting"}, [7, None, 7], 6, {}),
    "phase": ({"type": "token-aware-phase"}, [7, None], 4, {}),
    "wider keys": ({"type": "transformer-xl"}, [7, None], 4, {"qk_norm": {"type": "rmsnorm"}}),
    "norms of all": (ROPE, [None, 7], 4, {"qk_norm": {"type": "rmsnorm"}, "qk_norm_scope": "all"}),
    "norms after": (ROPE, [7, None], 4, {"qk_norm": {"type": "rmsnorm"}, "qk_norm_order": "after"}),
}


@pytest.mark.parametrize("name", CASES)
def test_each_head_sees_its_own_window(name: str) -> None:
    """Outputs, gradients, and outputs of a cache that grows by pieces, in float64."""
    position, windows, num_heads, fields = CASES[name]
    if "qk_norm" in fields:
        fields = {
            **fields,
            "qk_norm": AttentionSpec.model_validate(
                {"num_heads": 1, "position": {"type": "nope"}, "qk_norm": fields["qk_norm"]}
            ).qk_norm,
        }
    layer = built(position, windows, num_heads, num_kv_heads=len(windows), **fields)
    x = torch.randn(1, 40, HIDDEN, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    given, separate = x.clone().requires_grad_(), x.clone().requires_grad_()
    got = layer(given, Positions(torch.arange(40).unsqueeze(0)))
    want = by_pairs(layer, separate, windows, fields.get("keep_first", 0))
    assert want.std() > 0.05 and largest(got, want) < 1e-10
    weights = torch.randn(want.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (got * weights).sum().backward()
    (want * weights).sum().backward()
    assert given.grad is not None and separate.grad is not None
    assert largest(given.grad, separate.grad) < 1e-9
    cache, outs, at = layer.new_cache(1, torch.float64, torch.device("cpu")), [], 0
    with torch.no_grad():
        for size in (2, 1, 9, 1, 1, 3, 20, 1, 1, 1):
            where = Positions(torch.arange(at, at + size).unsqueeze(0))
            outs.append(layer(x[:, at : at + size], where, cache))
            at += size
    assert largest(torch.cat(outs, 1), want) < 1e-10
    bounded = [min(w, 40) + min(fields.get("keep_first", 0), 40) if w else 40 for w in windows]
    width = cache.parts[0].stored[0].shape[-1] + DIM
    gates = sum(8 * (num_heads // len(windows)) * n for n in bounded) if position["type"] == "forgetting" else 0
    assert cache.nbytes == 8 * width * sum(bounded) + gates


@pytest.mark.parametrize("windows", [[60, 60], [None, None], [None, 60], [60, 48]], ids=str)
@pytest.mark.parametrize("position", [{"type": "nope"}, ROPE], ids=lambda p: p["type"])
@torch.no_grad()
def test_windows_that_hold_all_tokens_change_nothing(windows: list[int | None], position: dict[str, Any]) -> None:
    """As near the float64 logits as the plain layer is, which no sum of float32 can do better than by chance."""
    plain, split = (
        tiny_spec({"X": attention(None, position, **fields)}) for fields in ({}, {"windows": windows, "keep_first": 0})
    )
    exact, one, other = plain.build().double().eval(), plain.build().eval(), split.build().eval()
    enliven(exact)
    for decoder in (one, other):
        decoder.load_state_dict(exact.state_dict())
    ids = random_ids(plain, 2, 48)
    want = exact(ids)
    cache = other.new_cache(2)
    pieces = torch.cat(
        [other(ids[:, :30], cache=cache), *(other(ids[:, t : t + 1], cache=cache) for t in range(30, 48))], 1
    )
    bound = 2 * largest(one(ids), want) + 1e-7
    assert 0 < largest(other(ids), want) <= bound and largest(pieces, want) <= bound


@torch.no_grad()
def test_every_backend_that_answers_agrees() -> None:
    spec = tiny_spec({"X": attention(None, ROPE, windows=[None, 7], head_dim=16)})
    decoder = enliven(spec.build()).eval()
    ids = random_ids(spec, 2, 40)
    with use_backend("reference"):
        want = decoder(ids)
    for name in ("tiled", "sdpa", "cpu_native", "cpu_chunked", None):
        try:
            with use_backend(name):
                got = decoder(ids)
        except UserError as error:  # a kernel that is not compiled, or does not take these calls
            assert "cannot answer" in str(error)
            continue
        assert largest(got, want) < 1e-4, name


@torch.no_grad()
def test_packed_documents_are_as_if_alone() -> None:
    spec = tiny_spec({"X": attention(None, ROPE, windows=[None, 7])})
    decoder = enliven(spec.build()).eval()
    ids = random_ids(spec, 1, 40)
    number = torch.tensor([[0] * 13 + [1] * 27])
    hidden = decoder.hidden(ids, documents=number)
    apart = [decoder.hidden(part) for part in (ids[:, :13], ids[:, 13:])]
    assert largest(hidden, torch.cat(apart, 1)) < 1e-4


@torch.no_grad()
def test_each_window_has_a_cache_of_its_own() -> None:
    spec = tiny_spec({"X": attention(None, GLOBAL, windows=[None, 7, None, 3], num_kv_heads=4)})
    decoder = enliven(spec.build()).eval()
    for dtype, whole in ((torch.float32, GrowingCache), (torch.int8, Int8Cache)):
        cache = decoder.new_cache(2, dtype=dtype)
        layer = cache.layers[0]
        assert [type(part) for part in layer.parts] == [whole, RingCache, RingCache]
        assert [part.stored[0].shape[2] for part in layer.parts] == [2, 1, 1]
        ids = random_ids(spec, 2, 30)
        decoder(ids, cache=cache)
        assert cache.nbytes == 2 * spec.cache_bytes(30, str(dtype).removeprefix("torch."))
        assert [part.entries for part in layer.parts] == [30, 7, 3]
    layer.parts[1].length -= 1
    assert cache.halfway, "heads that lack a token show"
    assert "see differently" in (graph_step.declines(decoder, cache) or "")


def test_flops_are_those_of_the_keys_that_heads_see() -> None:
    spec = tiny_spec({"X": attention(None, GLOBAL, windows=[None, 7], keep_first=2)})
    whole, local = (
        tiny_spec({"X": attention(window, GLOBAL, **fields)}) for window, fields in ((None, {}), (7, {"keep_first": 2}))
    )
    for length in (1, 7, 9, 100):
        assert 2 * spec.forward_flops(length) == whole.forward_flops(length) + local.forward_flops(length)
        assert 2 * spec.cache_bytes(length) == whole.cache_bytes(length) + local.cache_bytes(length)
    assert spec.parameters() == whole.parameters()


def test_equal_windows_are_one_window() -> None:
    def made(**fields: Any) -> ModelSpec:
        return tiny_spec({"X": attention(None, ROPE, num_kv_heads=2, **fields)})

    for window in (7, None):
        plain = tiny_spec({"X": attention(window, ROPE)})
        equal = made(windows=[window, window])
        assert equal.hash == plain.hash and equal.layer_specs == plain.layer_specs
        assert type(equal.build().attentions[0]) is Attention
    hashes = {made(windows=windows).hash for windows in ([None, 7], [7, None], [5, 7], [7, 5])}
    assert len(hashes) == 4, "heads of trained weights are not interchangeable"
    spec = made(windows=[None, 7], keep_first=2)
    again = parse_spec(spec.model_dump(mode="json"), "model")
    assert again == spec and again.hash == spec.hash
    assert "windows: [null, 7]" in dump_yaml(spec) or "- null" in dump_yaml(spec)
    assert "windows" in json_schema("model")["definitions"]["AttentionSpec"]["properties"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"windows": [None, 7], "window": 7}, r"windows: got \[null, 7\] beside window 7; a layer has one of them"),
        ({"windows": [None, 7], "chunk": 7}, r"windows: got \[null, 7\] beside chunk 7; a layer has one of them"),
        ({"windows": [None, 7, 7]}, r"windows: got \[null, 7, 7\], 3 of them; .* there are 2 \(num_kv_heads\)"),
        ({"windows": []}, "windows: .* expected 1 or more"),
        ({"windows": [None, 0]}, "windows.1: got 0; expected at least 1"),
        ({"windows": [None, None], "keep_first": 2}, "keep_first: got 2 without a window"),
        ({"windows": [5, 7], "keep_first": 2, "position": {"type": "alibi"}}, "keep_first: got 2 with alibi"),
        ({"windows": [None, 7], "position": {"type": "p-rope", "period": 14}}, "position.period: a global layer"),
        (
            {"windows": [7, 20], "position": {"type": "p-rope", "period": 14}},
            r"position.period: got period 14 with window 20; .* \(it is windows.1 that does not fit\)",
        ),
        ({"windows": [7, 1], "position": {"type": "stick-breaking"}}, "windows.1: got 1, which is the query itself"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        tiny_spec({"X": {**attention(None, GLOBAL), **fields}})


def test_runs_of_neighbours() -> None:
    assert runs([0, 1, 4, 6, 7]) == [(0, 2), (4, 5), (6, 8)] and runs([]) == []


# -- explain


def test_explain_says_what_each_head_sees() -> None:
    spec = tiny_spec(
        {
            "S": attention(7, ROPE),
            "G": attention(None, ROPE, windows=[None, 7, 7], keep_first=4, num_heads=6, num_kv_heads=3, head_dim=8),
        }
    )
    facts = explanation(spec, [64, 256])
    row = facts["layers"][1]
    assert row["sees"] == "all in 1 of 3 KV heads, 7 keys + first 4 in 2"
    assert row["window"] is None and row["windows"] == [None, 7, 7] and facts["layers"][0]["windows"] is None
    assert strip(facts).count("<rect") == 2 * (1 + 3) and "one step a key/value head" in strip(facts)
    answers = {(one["block"], one["device"], one["phase"]): one["backend"] for one in backends(spec)}
    assert {block for block, _, _ in answers} == {"S", "G all", "G window 7"}
    assert answers["G window 7", "cpu", "prefill"] != answers["G all", "cpu", "prefill"]  # one has first tokens to keep
    rotary = rotary_blocks(spec)["G"]
    assert rotary is not None and rotary.reach(256) == 256, "the heads that see most decide what is sound"
    assert all(one["max"] < 1e-12 for one in shift_changes(spec))

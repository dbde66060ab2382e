"""Several periods in one layer: dealt out over the heads, or mixed by content, against naive restatements."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers import GLOBAL, attention, enliven, largest, random_ids, tiny_spec
from torch import Tensor

from miniwin.blocks import native
from miniwin.blocks.attention_ops import AttentionCall, attend, use_backend
from miniwin.blocks.positions import PeriodicRopeSpec
from miniwin.blocks.positions.base import Heads, PositionEncoding, Positions
from miniwin.blocks.positions.p_rope import PeriodicRope, snapped_harmonics
from miniwin.blocks.positions.several_periods import GatedPeriods, PeriodPerHead
from miniwin.specs import UserError

DIM = 16
PERIODS = [5, 64, 12]


def heads(num: int = 8, kv: int = 4, window: int | None = 32) -> Heads:
    return Heads(hidden_size=num * DIM, num_heads=num, num_kv_heads=kv, head_dim=DIM, window=window)


def made(of: Heads, **fields: Any) -> PositionEncoding:
    spec = PeriodicRopeSpec(**fields)
    spec.check(of)
    return spec.build(of)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def index(*at: int) -> Positions:
    return Positions(torch.tensor([at]))


@pytest.mark.parametrize(
    "fields", [{}, {"partial_rotary_factor": 0.5}, {"pairing": "interleaved"}, {"harmonics": "all"}]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 7])
def test_each_head_turns_by_its_own_period(fields: dict[str, Any], dtype: torch.dtype, tokens: int) -> None:
    """Head by head as a layer of one period would, in training and in inference, on padded rows too."""
    if fields.get("harmonics") == "all":
        fields = {**fields, "partial_rotary_factor": 0.25}  # a period of 5 has two harmonics
    dealt = made(heads(), periods=PERIODS, **fields)
    assert isinstance(dealt, PeriodPerHead)
    where = Positions(torch.stack([torch.arange(tokens) + 1_000_003, torch.arange(tokens) + 61]))
    for graded in (True, False):
        with torch.set_grad_enabled(graded):
            q, k = (draw(2, tokens, n, DIM, seed=n, dtype=dtype).requires_grad_(graded) for n in (8, 4))
            got_q, got_k = dealt.encode(q, k, where)
            assert got_q.dtype == got_k.dtype == dtype
            for head, period in enumerate((5, 64, 12, 5)):
                alone = made(heads(2, 1, window=min(32, period)), period=period, **fields)
                want_q, want_k = alone.encode(q[:, :, 2 * head : 2 * head + 2], k[:, :, head : head + 1], where)
                tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-6
                assert largest(got_q[:, :, 2 * head : 2 * head + 2], want_q) < tolerance
                assert largest(got_k[:, :, head : head + 1], want_k) < tolerance


def test_the_c_kernel_turns_each_head_as_torch_does() -> None:
    if reason := native.missing():
        pytest.skip(reason)
    of = Heads(hidden_size=128, num_heads=4, num_kv_heads=2, head_dim=32, window=16)
    dealt, q, k = made(of, periods=[16, 64]), draw(2, 9, 4, 32), draw(2, 9, 2, 32, seed=1)
    where = Positions(torch.arange(100, 109).unsqueeze(0))
    with torch.no_grad():
        fast = dealt.encode(q, k, where)
        with native.without():
            slow = dealt.encode(q, k, where)
    assert max(map(largest, fast, slow)) < 1e-6


def test_gradients_pass_through_the_rotation_of_each_head() -> None:
    dealt = made(heads(4, 2), periods=[64, 5])
    x = draw(1, 3, 4, DIM, dtype=torch.float64).requires_grad_()
    k = draw(1, 3, 2, DIM, seed=1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda q, k: dealt.encode(q, k, index(3, 70, 9)), (x, k))


def naive_turn(x: Tensor, t: int, period: int) -> Tensor:
    """x (DIM,) at position t, in float64 without any modulo."""
    half, turned = DIM // 2, x.double().clone()
    for c, n in enumerate(snapped_harmonics(half, period)):
        a, b, angle = x[c].double(), x[c + half].double(), 2 * math.pi * n * t / period
        turned[c], turned[c + half] = (
            a * math.cos(angle) - b * math.sin(angle),
            b * math.cos(angle) + a * math.sin(angle),
        )
    return turned


def gated(of: Heads, periods: list[int], gain: float = 1.0, seed: int = 5) -> GatedPeriods:
    mixed = made(of, periods=periods, gate=True)
    assert isinstance(mixed, GatedPeriods)
    with torch.no_grad():
        mixed.weight.copy_(gain * draw(*mixed.weight.shape, seed=seed))
        mixed.bias.copy_(gain * draw(*mixed.bias.shape, seed=seed + 1))
    return mixed


def test_a_gated_score_is_the_weighted_sum_of_each_periods_score() -> None:
    """score_ij = sum_r w_r(i) <R_r q_i, R_r k_j>, token by token; values and gradients, in float64."""
    mixed = gated(heads(2, 1), [5, 64]).double()
    q = draw(1, 6, 2, DIM, dtype=torch.float64).requires_grad_()
    k = draw(1, 6, 1, DIM, seed=1, dtype=torch.float64).requires_grad_()
    at = (0, 3, 4, 62, 63, 70)
    given = (q, k, *mixed.parameters())

    encoded_q, encoded_k = mixed.encode(q, k, index(*at))
    assert encoded_q.shape[-1] == encoded_k.shape[-1] == 2 * DIM
    got = torch.einsum("bihd,bjd->hij", encoded_q, encoded_k[:, :, 0])
    got_grads = torch.autograd.grad((got * draw(2, 6, 6, seed=2)).sum(), given)

    rows = []
    for h in range(2):
        for i in range(6):
            logits = [mixed.weight[h, r] @ q[0, i, h] + mixed.bias[h, r] for r in range(2)]
            powers = [z.exp() for z in logits]
            for j in range(6):
                rows.append(
                    sum(
                        powers[r] / sum(powers) * (naive_turn(q[0, i, h], at[i], p) @ naive_turn(k[0, j, 0], at[j], p))
                        for r, p in enumerate((5, 64))
                    )
                )
    want = torch.stack(rows).view(2, 6, 6)  # type: ignore[arg-type]
    want_grads = torch.autograd.grad((want * draw(2, 6, 6, seed=2)).sum(), given)
    assert largest(got, want) < 1e-12
    assert max(map(largest, got_grads, want_grads)) < 1e-11


def test_weights_are_convex_and_start_uniform() -> None:
    fresh = made(heads(), periods=PERIODS, gate=True)
    assert isinstance(fresh, GatedPeriods)
    q = draw(2, 3, 8, DIM)
    assert torch.equal(fresh.weights(q), torch.full((2, 3, 8, 3), 1 / 3))
    drawn = gated(heads(), PERIODS).weights(q)
    assert drawn.min() >= 0 and largest(drawn.sum(-1), torch.ones(2, 3, 8)) < 1e-6
    assert drawn.std() > 0.2  # and do depend on the query


@pytest.mark.parametrize("gate", [False, True])
def test_scores_are_relative_and_periodic(gate: bool) -> None:
    of, both = heads(4, 2, window=16), [5, 16]
    encoding = gated(of, both, gain=0.1) if gate else made(of, periods=both, harmonics=[1, 2, 3, 4, 1, 2, 3, 4])

    def scores(start: int, stride: int = 1) -> Tensor:
        q, k = draw(1, 1, 4, DIM).expand(1, 20, -1, -1), draw(1, 1, 2, DIM, seed=1).expand(1, 20, -1, -1)
        where = Positions((start + stride * torch.arange(20)).unsqueeze(0))
        q, k = encoding.encode(q, k, where)
        return torch.einsum("nhd,mhd->hnm", q[0], k[0].repeat_interleave(2, 1))

    assert isinstance(encoding, GatedPeriods if gate else PeriodPerHead)
    near = scores(0)
    for start in (1, 4, 5, 79, 80, 1_000_003, 2**24 + 11):
        assert largest(scores(start), near) < 1e-5, f"at {start}"
    distances = near[:, :, 0]  # (H, distance)
    if gate:
        assert (distances[:, 1:16] - distances[:, :1]).abs().min() > 1e-3  # within the longest period all differ
    else:
        assert largest(distances[:2, 5:], distances[:2, :15]) < 1e-5  # the heads of period 5
        assert largest(distances[2:, 16:], distances[2:, :4]) < 1e-5
        assert (distances[2:, 1:16] - distances[2:, :1]).abs().min() > 1e-3


@pytest.mark.parametrize("backend", ["sdpa", "tiled"])
def test_backends_take_keys_of_several_periods(backend: str) -> None:
    """A gated layer's call has keys wider than its values."""
    mixed = gated(heads(4, 2), [5, 64])
    q, k = mixed.encode(draw(1, 40, 4, DIM), draw(1, 40, 2, DIM, seed=1), Positions(torch.arange(40).unsqueeze(0)))
    call = AttentionCall(q, k, draw(1, 40, 2, DIM, seed=2), scale=0.25, window=32)
    with use_backend("reference"):
        want = attend(call)
    with use_backend(backend):
        assert largest(attend(call), want) < 1e-5


def test_one_period_in_a_list_is_that_period() -> None:
    plain, listed = (
        tiny_spec({"S": attention(7, {"type": "p-rope", **fields})}) for fields in ({"period": 14}, {"periods": [14]})
    )
    assert plain.hash == listed.hash
    assert isinstance(made(heads(), periods=[64, 64]), PeriodicRope)


def test_equal_deals_have_equal_hashes_and_others_do_not() -> None:
    def digest(**fields: Any) -> str:
        return tiny_spec({"S": attention(7, {"type": "p-rope", **fields}, num_kv_heads=4)}).hash

    assert digest(periods=[5, 14]) == digest(periods=[5, 14, 5, 14]) != digest(periods=[14, 5])
    different = [
        digest(period=14),
        digest(periods=[5, 14]),
        digest(periods=[5, 14], gate=True),
        digest(periods=[14, 5], gate=True),
        digest(periods=[5, 14], harmonics="all", partial_rotary_factor=0.5),
        digest(periods=[5, 14], partial_rotary_factor=0.5),
    ]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "position.period: this field is required, and missing; or give periods"),
        ({"periods": []}, "position.periods: "),
        ({"period": 14, "periods": [5, 14]}, r"position.period: got 14 beside periods \[5, 14\]; remove one"),
        ({"periods": [5, 6]}, r"position.periods: got \[5, 6\] with window 7; the longest must be at least the window"),
        ({"periods": [5, 6], "gate": True}, "position.periods: .* the longest must be at least the window"),
        ({"periods": [5, 14, 20]}, "position.periods: got 3 periods for 2 key/value heads"),
        ({"periods": [5, 14], "harmonic": False}, "position.periods: only a harmonic p-rope has several"),
        ({"period": 14, "gate": True}, r"position.gate: got true with one period; .* periods: \[14, ...\]"),
        ({"periods": [14], "gate": True}, r"position.periods: got \[14\] with gate: true; a query mixes two or more"),
        ({"periods": [14, 5, 14], "gate": True}, "position.periods: .* each once"),
        ({"periods": [5, 14], "harmonics": [1, 2, 3, 6]}, "position.harmonics: got 6; .* between 1 and period 5 - 1"),
        ({"periods": [5, 14], "harmonics": [2, 4, 2, 4]}, "position.harmonics: .* include 1"),
        ({"periods": [5, 14], "harmonics": "all"}, "position.harmonics: 'all' needs 4 .* period / 2 = 2"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        tiny_spec({"S": attention(7 if "include" not in said else 8, {"type": "p-rope", **fields})})


def test_a_gated_layer_cannot_norm_its_wide_keys() -> None:
    gate = {"type": "p-rope", "periods": [5, 14], "gate": True}
    with pytest.raises(UserError, match="qk_norm_order: got 'after', and p-rope widens the keys"):
        tiny_spec({"S": attention(7, gate, qk_norm={"type": "rmsnorm"}, qk_norm_order="after")})


def test_a_global_layer_is_refused() -> None:
    with pytest.raises(UserError, match=r"position.periods: a global layer .* at most the longest period"):
        tiny_spec({"G": attention(None, {"type": "p-rope", "periods": [5, 14]})})


@pytest.mark.parametrize("gate", [False, True])
@torch.no_grad()
def test_caches_of_every_dtype_decode_as_the_prefill(gate: bool) -> None:
    position = {"type": "p-rope", "periods": [5, 14], "gate": gate}
    spec = tiny_spec({"S": attention(7, position), "G": attention(None, GLOBAL)})
    decoder = enliven(spec.build()).eval()
    ids = random_ids(spec, 2, 60)
    expected = decoder(ids)
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 0.3), (torch.int8, 0.6)):
        cache = decoder.new_cache(2, dtype=dtype)
        parts = [decoder(ids[:, :41], cache=cache), *(decoder(ids[:, t : t + 1], cache=cache) for t in range(41, 60))]
        assert largest(torch.cat(parts, 1), expected) < tolerance
        assert cache.nbytes == 2 * spec.cache_bytes(60, str(dtype).removeprefix("torch."))

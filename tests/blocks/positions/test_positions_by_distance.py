"""Position encodings that do not rotate, against naive restatements in float64: ALiBi, T5, Transformer-XL, learned
ones, and the scales of NoPE. Those that make recent tokens count more are in test_positions_recency.py.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers import attention, enliven, largest, random_ids, tiny_spec
from position_encodings import HEADS, at, build, draw, refusal
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.models.t5.modeling_t5 import T5Attention

from miniwin.blocks import POSITIONS, AttentionCall, PositionEncoding, attend, use_backend
from miniwin.blocks.positions import Alibi, Positions, RelativeBuckets
from miniwin.blocks.positions.alibi import slopes
from miniwin.blocks.positions.logit_scale import LogScaleSpec, TemperatureScaleSpec
from miniwin.blocks.positions.t5 import buckets
from miniwin.blocks.spec import facts
from miniwin.specs import UserError

FAR = (0, 1, 1000, 65_535, 1_000_000, 9_999_990)


def liven(module: torch.nn.Module, seed: int = 9) -> None:
    """Give parameters values of order one, so that each has an effect."""
    for number, parameter in enumerate(module.parameters()):
        parameter.data = draw(*parameter.shape, seed=seed + number, dtype=parameter.dtype)


def products(q: Tensor, k: Tensor) -> Tensor:
    """<q_i, k_j> of every pair, (B, H, N, M), query heads sharing key heads."""
    return torch.einsum("bnhd,bmhd->bhnm", q, k.repeat_interleave(q.shape[2] // k.shape[2], dim=2))


# ---- ALiBi


def authors_slopes(n: int) -> list[float]:
    """The slopes by the ALiBi article's own rule."""
    if math.log2(n).is_integer():
        first = 2 ** -(2 ** -(math.log2(n) - 3))
        return [first ** (h + 1) for h in range(n)]
    nearest = 2 ** math.floor(math.log2(n))
    return authors_slopes(nearest) + authors_slopes(2 * nearest)[0::2][: n - nearest]


@pytest.mark.parametrize("num_heads", [1, 2, 3, 5, 8, 12, 25, 40])
def test_alibi_slopes_are_the_authors(num_heads: int) -> None:
    assert slopes(num_heads).tolist() == pytest.approx(authors_slopes(num_heads), rel=1e-6)


def test_alibi_tells_neighbours_apart_at_ten_million_tokens() -> None:
    distance = torch.arange(9_999_990, 10_000_001).unsqueeze(0)
    bias = Alibi(8).score_bias()(distance)
    assert bias.dtype == torch.float32
    assert torch.equal(bias.double(), -slopes(8).double().view(-1, 1, 1) * distance)  # exact
    assert torch.equal(bias[:, 0, :-1] - bias[:, 0, 1:], slopes(8).unsqueeze(1).expand(-1, 10))


@pytest.mark.parametrize("backend", [None, "reference"])
def test_alibi_is_exact_where_the_model_computes_in_bfloat16(backend: str | None) -> None:
    """The weights of 2,000 keys, read off through values that are unit vectors."""
    length, num_heads = 2000, 3
    q, k = draw(1, 1, num_heads, 8, dtype=torch.bfloat16), draw(1, length, 1, 8, seed=1, dtype=torch.bfloat16)
    values = torch.eye(length, dtype=torch.bfloat16).view(1, length, 1, length)
    with use_backend(backend):
        got = attend(AttentionCall(q, k, values, scale=0.1, bias=Alibi(num_heads).score_bias()))[0, 0].double()
    distance = length - 1 - torch.arange(length)
    scores = 0.1 * products(q.double(), k.double())[0, :, 0] - slopes(num_heads).double().unsqueeze(1) * distance
    want = scores.softmax(-1)
    seen = want > 1e-12
    # Half a unit in the last place of bfloat16; biases rounded to it would be off by 6 % where they reach -8.
    assert ((got - want).abs() / want)[seen].max() < 2**-8
    assert distance[seen[1]].max() > 1900


# ---- T5


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (32, 17), (8, 20), (2, 5), (17, 1000)])
def test_t5_buckets_equal_those_of_transformers(num_buckets: int, max_distance: int) -> None:
    distance = torch.arange(3000)
    want = T5Attention._relative_position_bucket(
        -distance, bidirectional=False, num_buckets=num_buckets, max_distance=max_distance
    )
    assert torch.equal(buckets(num_buckets, max_distance)[distance.clamp(max=max_distance)], want)


def test_t5_shares_one_bias_among_all_far_keys() -> None:
    position = build(type="t5", num_buckets=8, max_distance=20)
    bias = position.score_bias()
    assert bias is not None
    got = bias(torch.tensor([[0, 1, 3, 20, 10_000_000], [-5, 0, 2, 19, 9_999_999]]))
    table = position.get_parameter("bias")
    assert got.shape == (4, 2, 5) and got.dtype == torch.float32
    assert torch.equal(got[:, 0], table[[0, 1, 3, 7, 7]].t())
    assert torch.equal(got[:, 1, 1:3], table[[0, 2]].t()) and torch.equal(got[:, 1, 4], table[7])


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("backend", [None, "reference"])
def test_gradients_reach_the_t5_bias(window: int | None, backend: str | None) -> None:
    n = 70
    q, k, v = (draw(2, n, h, 8, seed=h, dtype=torch.float32) for h in (4, 2, 1))
    v = v.expand(-1, -1, 2, -1)
    weight = draw(2, n, 4, 8, seed=7)
    position = RelativeBuckets(4, 8, 20)
    liven(position)
    with use_backend(backend):
        out = attend(AttentionCall(q, k, v, scale=0.3, window=window, bias=position.score_bias()))
    (got,) = torch.autograd.grad(out, [position.bias], weight.float())

    table = position.bias.detach().double().requires_grad_()
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    bias = table[buckets(8, 20)[distance.clamp(0, 20)]].permute(2, 0, 1)
    hidden = (distance < 0) | (distance >= (window or n))
    scores = (0.3 * products(q.double(), k.double()) + bias).masked_fill(hidden, -math.inf)
    naive = torch.einsum("bhnm,bmhd->bnhd", scores.softmax(-1), v.double().repeat_interleave(2, dim=2))
    (want,) = torch.autograd.grad(naive, [table], weight)
    assert largest(out, naive) < 1e-5
    assert largest(got, want) < 1e-4 and want.abs().max() > 1


# ---- Transformer-XL


def naive_xl(position: PositionEncoding, q: Tensor, k: Tensor, distance: Tensor, blur: Tensor, theta: float) -> Tensor:
    """The four terms of the article with an explicit table of r. distance, blur (N, M): mean and variance of i - j."""
    u, v, w = (position.get_parameter(n).detach() for n in ("content_bias", "position_bias", "weight"))
    count = w.shape[-1] // 2
    out = torch.empty(q.shape[0], q.shape[2], q.shape[1], k.shape[1], dtype=torch.float64)
    for b, h, i, j in torch.cartesian_prod(*(torch.arange(n) for n in out.shape)).tolist():
        r = torch.empty(2 * count, dtype=torch.float64)
        for f in range(count):
            frequency = theta ** (-f / count)
            fade = math.exp(-(frequency**2) * float(blur[i, j]) / 2)
            r[f] = fade * math.sin(float(distance[i, j]) * frequency)
            r[count + f] = fade * math.cos(float(distance[i, j]) * frequency)
        key = k[b, j, h // (q.shape[2] // k.shape[2])]
        turned = w[h] @ r
        out[b, h, i, j] = q[b, i, h] @ key + q[b, i, h] @ turned + u[h] @ key + v[h] @ turned
    return out


@pytest.mark.parametrize("fields", [{}, {"num_frequencies": 5, "rope_theta": 50.0}])
def test_transformer_xl_equals_the_four_terms_of_the_article(fields: dict[str, Any]) -> None:
    position = build(type="transformer-xl", **fields).double()
    liven(position)
    n = 6
    q, k = draw(2, n, 4, 6), draw(2, n, 2, 6, seed=1)
    index = torch.arange(n).unsqueeze(0)
    wide_q, wide_k = position.encode(q, k, Positions(index))
    assert wide_k.shape[-1] == POSITIONS["transformer-xl"](**fields).key_dim(HEADS)  # type: ignore[attr-defined]
    distance = (index.t() - index).double()
    theta = fields.get("rope_theta", 10_000.0)
    want = naive_xl(position, q, k, distance, torch.zeros(n, n), theta)
    assert largest(products(wide_q, wide_k), want) < 1e-12

    # Positions that are real numbers, with and without a variance.
    mean, variance = 40 * draw(1, n, seed=2), draw(1, n, seed=3).square()
    sharp = naive_xl(position, q, k, mean.t() - mean, torch.zeros(n, n), theta)
    assert largest(products(*position.encode(q, k, Positions(index, mean))), sharp) < 1e-12
    blurred = naive_xl(position, q, k, mean.t() - mean, variance.t() + variance, theta)
    assert largest(products(*position.encode(q, k, Positions(index, mean, variance))), blurred) < 1e-12
    assert largest(blurred, sharp) > 1


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 2e-5)])
def test_transformer_xl_is_relative_far_out(dtype: torch.dtype, tolerance: float) -> None:
    position = build(type="transformer-xl").to(dtype)
    liven(position)
    q, k = draw(1, 9, 4, 6, dtype=dtype), draw(1, 9, 2, 6, seed=1, dtype=dtype)
    near = products(*position.encode(q, k, at(*range(9))))
    for start in FAR:
        far = products(*position.encode(q, k, at(*range(start, start + 9))))
        assert largest(far, near) < tolerance, f"at {start}"
    shifted = products(*position.encode(q, k, at(*range(0, 18, 2))))
    assert largest(shifted, near) > 1


def test_transformer_xl_keeps_the_dtype_and_reaches_every_parameter() -> None:
    position = build(type="transformer-xl")
    q, k = draw(2, 5, 4, 6, dtype=torch.bfloat16), draw(2, 5, 2, 6, seed=1, dtype=torch.bfloat16)
    rows = Positions(torch.tensor([[0, 1, 2, 3, 4], [0, 0, 0, 1, 2]]))
    wide_q, wide_k = position.encode(q, k, rows)
    assert wide_q.dtype == wide_k.dtype == torch.bfloat16
    assert torch.equal(wide_k[..., :6], k)
    products(wide_q.float(), wide_k.float()).softmax(-1)[..., 0].sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in position.parameters())
    assert position.encode(q[:, :0], k[:, :0], at())[1].shape == (2, 0, 2, 12)
    meta = build(type="transformer-xl").to("meta")
    index = torch.zeros(1, 5, dtype=torch.int64, device="meta")
    assert meta.encode(q.to("meta"), k.to("meta"), Positions(index))[0].shape == (2, 5, 4, 12)


# ---- learned positions and what follows them


def test_learned_positions_act_on_the_first_tokens_alone() -> None:
    position = build(type="learned", num_positions=4, then={"type": "rope"}).double()
    liven(position)
    plain = build(type="rope").double()
    q, k = draw(2, 8, 4, 6), draw(2, 8, 2, 6, seed=1)
    rows = Positions(torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7], [2, 3, 4, 5, 6, 7, 8, 10_000_000]]))
    a, b = (position.get_parameter(name) for name in ("queries", "keys"))
    want_q, want_k = q.clone(), k.clone()
    for row, column in torch.cartesian_prod(torch.arange(2), torch.arange(8)).tolist():
        place = int(rows.index[row, column])
        if place < 4:
            want_q[row, column] += a[place]
            want_k[row, column] += b[place]
    for got, want in zip(position.encode(q, k, rows), plain.encode(want_q, want_k, rows), strict=True):
        assert largest(got, want) < 1e-14
    untouched = plain.encode(q, k, rows)[0]
    assert torch.equal(position.encode(q, k, rows)[0][rows.index >= 4], untouched[rows.index >= 4])
    assert largest(position.encode(q, k, rows)[0], untouched) > 1


@pytest.mark.parametrize(
    "then",
    [
        {"type": "alibi"},
        {"type": "nope"},
        {"type": "forgetting"},
        {"type": "stick-breaking"},
        {"type": "hope"},
        {"type": "transformer-xl"},
        {"type": "t5"},
    ],
    ids=lambda then: then["type"],
)
def test_learned_positions_leave_everything_else_to_what_follows(then: dict[str, Any]) -> None:
    outer: Any = POSITIONS["learned"](num_positions=3, then=then)
    inner: Any = POSITIONS[then["type"]](**then)
    for spec_says in ("weighting", "by_distance"):
        assert getattr(outer, spec_says) == getattr(inner, spec_says)
    for spec_says in ("key_dim", "gates"):
        assert getattr(outer, spec_says)(HEADS) == getattr(inner, spec_says)(HEADS)
    torch.manual_seed(0)
    position = outer.build(HEADS)
    liven(position.then)
    alone = inner.build(HEADS)
    alone.load_state_dict(position.then.state_dict())
    assert position.weighting == alone.weighting
    for name, arguments in (("score_bias", ()), ("score", ()), ("query_scale", (torch.tensor([[1, 9]]), 9))):
        assert (getattr(position, name)(*arguments) is None) == (getattr(alone, name)(*arguments) is None), name
    x = draw(1, 3, 24, dtype=torch.float32)
    gates = position.log_gates(x)
    assert (gates is None and alone.log_gates(x) is None) or torch.equal(gates, alone.log_gates(x))
    q, k = draw(1, 3, 4, 6, dtype=torch.float32), draw(1, 3, 2, 6, dtype=torch.float32)
    for got, want in zip(position.encode(q, k, at(3, 4, 5)), alone.encode(q, k, at(3, 4, 5)), strict=True):
        assert torch.equal(got, want)


def test_a_fresh_model_with_learned_positions_learns_them() -> None:
    spec = tiny_spec({"X": attention(7, {"type": "learned", "num_positions": 5, "then": {"type": "rope"}})})
    decoder = spec.build()
    decoder(random_ids(spec, 2, 12)).square().mean().backward()
    for name, parameter in decoder.named_parameters():
        if "position" in name:
            assert parameter.grad is not None and (parameter.grad.abs().amax(-1) > 0).all(), name


def test_what_does_not_fit_is_refused_where_it_stands() -> None:
    nested = {"type": "learned", "num_positions": 2, "then": {"type": "alibi"}}
    message = refusal({"type": "learned", "num_positions": 2, "then": nested})
    assert "attention.position.then: got learned within learned; name the encoding that follows" in message
    message = refusal({"type": "learned", "num_positions": 2, "then": {"type": "p-rope", "period": 3}})
    assert "attention.position.then.period: got period 3 with window 7" in message
    message = refusal({"type": "learned", "num_positions": 2, "then": {"type": "p-roep", "period": 3}})
    assert "position.then" in message and "did you mean 'p-rope'?" in message
    message = refusal({"type": "t5", "num_buckets": 32, "max_distance": 16})
    assert (
        "position.max_distance: got 16 with 32 buckets, 16 of them for one distance each; expected at least 17"
        in message
    )


@pytest.mark.parametrize(
    ("position", "reason"),
    [
        ({"type": "alibi"}, "alibi's penalty grows with the number of tokens between query and key"),
        ({"type": "t5"}, "t5's buckets count the tokens between query and key"),
        ({"type": "hope"}, "hope's decay counts the tokens between query and key"),
        ({"type": "token-aware-phase"}, "token-aware-phase turns by the number of tokens between query and key"),
        (
            {"type": "learned", "num_positions": 2, "then": {"type": "rope"}},
            "its learned positions belong to the first tokens of a row",
        ),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_positions_of_the_callers_are_refused_where_tokens_are_counted(position: dict[str, Any], reason: str) -> None:
    spec = tiny_spec({"X": attention(7, position)})
    with pytest.raises(UserError, match=f"positions: a layer of this model cannot take them: {reason}"):
        spec.build()(random_ids(spec, 1, 3), positions=torch.tensor([[0.0, 2.0, 4.0]]))


def test_transformer_xl_moves_its_frequencies_to_a_device_once() -> None:
    """A step that is recorded as a CUDA graph must copy nothing from the host."""
    position: Any = build(type="transformer-xl")
    with FakeTensorMode(allow_non_fake_inputs=True):
        device = torch.device("cuda", 0)
        first = position._frequencies_on(device)
        assert first.device == device and position._frequencies_on(device) is first
    position = build(type="transformer-xl")
    assert position._frequencies_on(torch.device("meta")).is_meta
    assert not position._frequencies.is_meta, "meta has no numbers to bring back"


def test_a_model_with_transformer_xl_positions_takes_the_callers() -> None:
    spec = tiny_spec({"X": attention(None, {"type": "transformer-xl"})})
    decoder = enliven(spec.build()).double().eval()
    ids = random_ids(spec, 1, 9)
    with torch.no_grad():
        plain = decoder(ids)
        given = torch.arange(9, dtype=torch.float64).unsqueeze(0)
        assert largest(decoder(ids, positions=given), plain) < 1e-5
        assert largest(decoder(ids, positions=given + 1e6), plain) < 1e-5
        assert largest(decoder(ids, positions=given * 1.5), plain) > 0.1
        blurred = decoder(ids, positions=given, position_variance=torch.full((1, 9), 4.0))
        assert largest(blurred, plain) > 0.1


# ---- the scales of NoPE


def test_temperature_scaling_is_llama_4s() -> None:
    positions = torch.tensor([[0, 1, 8190, 8191, 8192, 16_383, 100_000, 10_000_000]])
    scale = TemperatureScaleSpec().build(4)
    # As transformers' Llama4TextAttention computes it from positions.
    want = torch.log1p(torch.floor((positions.float() + 1.0) / 8192)) * 0.1 + 1.0
    got = scale(positions + 1, 7)
    assert got.shape == (1, 8, 1, 1)
    assert torch.equal(got[..., 0, 0], want)
    assert got[0, 2] == 1.0 and float(got[0, 3]) == pytest.approx(1 + 0.1 * math.log(2))
    small = TemperatureScaleSpec(floor=4, scale=0.5).build(4)
    assert small(torch.tensor([[3, 4, 7, 8]]), 9).flatten().tolist() == pytest.approx(
        [1, 1 + 0.5 * math.log(2), 1 + 0.5 * math.log(2), 1 + 0.5 * math.log(3)]
    )
    assert TemperatureScaleSpec().parameters(4) == 0 and list(scale.parameters()) == []


def test_a_fixed_log_scale_is_the_learned_one_without_its_parameter() -> None:
    visible = torch.tensor([[1, 2, 150, 10_000_000]])
    fixed, learned = (LogScaleSpec(init=0.3, learned=flag).build(4) for flag in (False, True))
    assert largest(fixed(visible, 9).expand(1, 4, 4, 1), learned(visible, 9)) < 1e-6
    assert list(fixed.parameters()) == [] and list(fixed.buffers()) == [] and fixed.state_dict() == {}
    assert LogScaleSpec(learned=False).parameters(4) == 0 and LogScaleSpec().parameters(4) == 4
    # A spec without the new field keeps its hash.
    assert facts(LogScaleSpec()) == {"type": "log", "init": 0.2}
    assert facts(LogScaleSpec(learned=False)) == {"type": "log", "init": 0.2, "learned": False}

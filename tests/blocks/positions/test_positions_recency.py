"""Position encodings that let the past fade: forgetting, stick-breaking, HoPE; and token-aware phase. All encodings
that are not rotary must be causal, and must not depend on where a text begins.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import attention, enliven, largest, random_ids, tiny_spec
from position_encodings import at, build, draw, refusal
from torch import Tensor

import miniwin.blocks
from miniwin.blocks import Attention, AttentionSpec
from miniwin.blocks.positions import Positions

HIDDEN = 24


def layer(window: int | None = None, **position: Any) -> Attention:
    """An attention layer in float64 with weights of order one."""
    spec = AttentionSpec.model_validate({"num_heads": 4, "num_kv_heads": 2, "window": window, "position": position})
    made = spec.resolve(HIDDEN).build(HIDDEN).double()
    for number, parameter in enumerate(made.parameters()):
        gain = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 1.0
        parameter.data = gain * draw(*parameter.shape, seed=20 + number)
    return made


def index(n: int, start: int = 0) -> Positions:
    return Positions(torch.arange(start, start + n).unsqueeze(0))


def naive_layer(made: Attention, x: Tensor, weigh: Any) -> Tensor:
    """One row x (N, hidden), by plain loops over heads and queries. weigh(scaled scores (i + 1,), i, h) -> weights."""
    q, k, v = (getattr(made, f"{name}_proj")(x).unflatten(-1, (-1, 6)) for name in "qkv")
    rows = []
    for i in range(len(x)):
        heads = []
        for h in range(4):
            scores = torch.stack([q[i, h] @ k[j, h // 2] for j in range(i + 1)]) / math.sqrt(6)
            heads.append(weigh(scores, i, h) @ v[: i + 1, h // 2])
        rows.append(torch.cat(heads))
    return made.o_proj(torch.stack(rows))


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 5])
def test_forgetting_equals_a_sum_over_the_tokens_between(window: int | None) -> None:
    made = layer(window, type="forgetting")
    x = draw(1, 14, HIDDEN)
    gates = torch.sigmoid(x[0] @ made.position.gate.weight.t() + made.position.gate.bias)  # type: ignore[union-attr]

    def weigh(scores: Tensor, i: int, h: int) -> Tensor:
        fade = [math.log(math.prod(float(gates[t, h]) for t in range(j + 1, i + 1))) for j in range(i + 1)]
        hidden = [0.0 if i - j < (window or 99) else -math.inf for j in range(i + 1)]
        return (scores + torch.tensor(fade) + torch.tensor(hidden)).softmax(0)

    got = made(x, index(14))[0]
    assert largest(got, naive_layer(made, x[0], weigh)) < 1e-6
    plain = naive_layer(made, x[0], lambda scores, i, h: scores.softmax(0))
    assert largest(got, plain) > 0.1


@torch.no_grad()
def test_forget_gates_are_at_most_one_and_in_float32() -> None:
    position = build(type="forgetting").bfloat16()
    gates = position.log_gates(50 * draw(2, 9, HIDDEN, dtype=torch.bfloat16))
    assert gates is not None and gates.shape == (2, 9, 4) and gates.dtype == torch.float32
    assert gates.max() <= 0 and gates.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 5])
def test_stick_breaking_equals_a_stick_broken_by_hand(window: int | None) -> None:
    made = layer(window, type="stick-breaking")
    x = draw(1, 14, HIDDEN)
    kept = []

    def weigh(scores: Tensor, i: int, h: int) -> Tensor:
        weights, stick = [0.0] * (i + 1), 1.0
        for j in range(i - 1, max(i - (window or 99), -1), -1):  # the nearest first; its own key never
            share = stick / (1 + math.exp(-float(scores[j])))
            weights[j], stick = share, stick - share
        kept.append(stick)
        return torch.tensor(weights, dtype=torch.float64)

    got = made(x, index(14))[0]
    assert largest(got, naive_layer(made, x[0], weigh)) < 1e-10
    assert got[0].abs().max() == 0  # the first token sees no earlier one
    assert kept[0] == 1 and 0 < min(kept) < 0.2


def test_stick_breaking_needs_an_earlier_key() -> None:
    message = refusal({"type": "stick-breaking"}, window=1)
    assert "window: got 1, which is the query itself; stick-breaking looks at earlier keys only" in message


# ---- HoPE


def boost(angle: float) -> Tensor:
    return torch.tensor(
        [[math.cosh(angle), math.sinh(angle)], [math.sinh(angle), math.cosh(angle)]], dtype=torch.float64
    )


def rapidities(scale: float = 0.01, theta: float = 10_000.0, dim: int = 6) -> list[float]:
    return [scale * theta ** (-2 * c / dim) for c in range(dim // 2)]


def hope_score(q: Tensor, k: Tensor, distance: list[int], **fields: Any) -> Tensor:
    """Scores of one query and one key (D,) at each distance."""
    position = build(type="hope", **fields)
    wide_q, wide_k = position.encode(q.view(1, 1, 1, -1), k.view(1, 1, 1, -1), at(0))
    score = position.score()
    assert score is not None
    return torch.cat([score(wide_q, wide_k, torch.tensor([[d]])).flatten() for d in distance])


@pytest.mark.parametrize("fields", [{}, {"scale": 0.3, "damping": 2, "rope_theta": 100.0}])
def test_hope_equals_the_damped_boosts_of_the_article(fields: dict[str, Any]) -> None:
    """Equations 5, 6, 10 and 11, at absolute positions where their exponentials do not overflow."""
    q, k = draw(6), draw(6, seed=1)
    scale = fields.get("scale", 0.01)
    damping = fields.get("damping", 1.1) * scale
    places = [(0, 0), (1, 0), (7, 3), (11, 10), (60, 0)]
    want = []
    for m, n in places:
        total = 0.0
        for c, w in enumerate(rapidities(scale, fields.get("rope_theta", 10_000.0))):
            pair = slice(2 * c, 2 * c + 2)
            f_q = math.exp(-m * damping) * boost(m * w) @ q[pair]
            f_k = math.exp(n * damping) * boost(-n * w) @ k[pair]
            total += float(f_q @ f_k)
        want.append(total)
    got = hope_score(q, k, [m - n for m, n in places], **fields)
    assert largest(got, torch.tensor(want, dtype=torch.float64)) < 1e-12
    assert largest(got[:1], (q @ k).view(1)) < 1e-14


def test_hope_decays_steadily_and_stays_finite_at_any_distance() -> None:
    for dtype in (torch.float64, torch.float32):
        q = draw(6, dtype=dtype)
        near = hope_score(q, q, list(range(0, 400, 7)))
        assert (near.diff() < 0).all() and (near > 0).all()
        far = hope_score(q, draw(6, seed=1, dtype=dtype), [10_000, 1_000_000, 10_000_000])
        assert far.isfinite().all() and (far.abs() <= near[-1]).all()
    # At large distances only the slowest coordinate is left: e^(-d (damping - scale)) times its product.
    q, k, d = draw(6), draw(6, seed=1), 30_000
    a_q, a_k = q[0] + q[1], k[0] + k[1]
    left = float(a_q * a_k) / 2 * math.exp(-d * 0.01 * 0.1)
    assert float(hope_score(q, k, [d])) == pytest.approx(left, rel=1e-9)


def test_hope_keeps_norms_and_gradients_even_of_masked_pairs() -> None:
    position = build(type="hope")
    q, k = draw(2, 5, 4, 6).requires_grad_(), draw(2, 7, 2, 6, seed=1)
    wide_q, wide_k = position.encode(q, k, at(0))
    assert largest(wide_q.norm(dim=-1), q.norm(dim=-1)) < 1e-14
    score = position.score()
    assert score is not None
    distance = torch.arange(5).unsqueeze(1) - 10_000_000 * torch.arange(7)
    scores = score(wide_q, wide_k, distance)
    assert scores.shape == (2, 4, 5, 7) and scores.isfinite().all()
    torch.where(distance >= 0, scores, 0.0).sum().backward()
    assert q.grad is not None and q.grad.isfinite().all() and q.grad.abs().max() > 0
    halves = score(wide_q.bfloat16(), wide_k.bfloat16(), distance)
    assert halves.dtype == torch.float32
    assert "so it must be even" in refusal({"type": "hope"}, head_dim=5)


# ---- token-aware phase


@pytest.mark.parametrize(("alpha", "share", "channels"), [(0.1, 0.5, 3), (1.0, 0.7, 4)])
def test_token_aware_phase_equals_equation_12(alpha: float, share: float, channels: int) -> None:
    position = build(type="token-aware-phase", alpha=alpha, amplitude=share)
    score = position.score()
    assert score is not None
    q, k = draw(2, 4, 4, 6), draw(2, 3, 2, 6, seed=1)
    distance = torch.tensor([[0, -1, -2], [1, 0, -1], [1000, 999, 998], [10_000_000, 9_999_999, 9_999_998]])
    got = score(q, k, distance) * 6**-0.5  # as the attention scales it
    for b, h, i, j in torch.cartesian_prod(*(torch.arange(n) for n in got.shape)).tolist():
        d = int(distance[i, j])
        if d >= 0:
            x, y = q[b, i, h], k[b, j, h // 2]
            amplitude = float(x[:channels] @ y[:channels]) / math.sqrt(channels)
            phase = float(x[channels:] @ y[channels:]) / math.sqrt(6 - channels)
            want = amplitude * math.cos(2 * math.pi * d**alpha * phase)
            assert float(got[b, h, i, j]) == pytest.approx(want, abs=1e-6 if alpha == 1 else 1e-12)
    assert score(q.bfloat16(), k.bfloat16(), distance).dtype == torch.float32


def test_token_aware_phase_needs_channels_for_both() -> None:
    message = refusal({"type": "token-aware-phase", "amplitude": 0.95}, head_dim=4)
    assert (
        "position.amplitude: got 0.95, 4 of head_dim 4 channels; amplitude and phase need at least one each" in message
    )


# ---- all of them

EVERY: list[dict[str, Any]] = [
    {"type": "alibi"},
    {"type": "t5", "num_buckets": 6, "max_distance": 9},
    {"type": "nope", "logit_scale": None},
    {"type": "forgetting"},
    {"type": "stick-breaking"},
    {"type": "hope", "scale": 0.1},
    {"type": "token-aware-phase"},
    {"type": "transformer-xl"},
]
every = pytest.mark.parametrize("position", EVERY, ids=lambda p: p["type"])


@every
@torch.no_grad()
def test_attention_is_the_same_ten_million_tokens_further_on(position: dict[str, Any]) -> None:
    made = layer(6, **position)
    x = draw(2, 15, HIDDEN)
    near = made(x, index(15))
    for start in (1, 65_535, 10_000_000):
        tolerance = 1e-6 if position["type"] == "transformer-xl" else 0.0  # angles of float64 at 1e7
        assert largest(made(x, index(15, start)), near) <= tolerance


@every
@torch.no_grad()
def test_later_tokens_change_nothing_and_earlier_ones_do(position: dict[str, Any]) -> None:
    made = layer(None, **position)
    x = draw(1, 12, HIDDEN)
    other = x.clone()
    other[:, 8:] = draw(1, 4, HIDDEN, seed=5)
    before, after = made(x, index(12)), made(other, index(12))
    assert largest(before[:, :8], after[:, :8]) < 1e-14
    assert largest(before[:, 8:], after[:, 8:]) > 0.01


@every
@torch.no_grad()
def test_order_matters_unless_there_is_no_position(position: dict[str, Any]) -> None:
    made = layer(None, **position)
    x = draw(1, 12, HIDDEN)
    swapped = x.clone()
    swapped[:, [2, 6]] = x[:, [6, 2]]
    change = largest(made(x, index(12))[:, 11], made(swapped, index(12))[:, 11])
    assert (change < 1e-14) == (position["type"] == "nope")


@every
def test_prefill_and_decoding_agree_in_float64(position: dict[str, Any]) -> None:
    spec = tiny_spec({"S": attention(5, position), "G": attention(None, position)})
    decoder = enliven(spec.build()).double().eval()
    ids = random_ids(spec, 2, 33)
    with torch.no_grad():
        want = decoder(ids)
        cache = decoder.new_cache(2)
        parts = [decoder(ids[:, i:j], cache=cache) for i, j in ((0, 1), (1, 12), (12, 13), (13, 33))]
    assert largest(torch.cat(parts, 1), want) < 2e-5  # logits are float32
    assert sum(p.numel() for p in decoder.parameters()) == spec.parameters()


def test_a_new_encoding_is_one_file() -> None:
    """In the blocks only their own files and the list of encodings name HoPE and token-aware phase."""
    folder = Path(miniwin.blocks.__file__).parent
    for own, words in (
        ("hope.py", ('"hope"', "Hyperbolic", "positions.hope")),
        ("token_aware_phase.py", ('"token-aware-phase"', "TokenAwarePhase", "token_aware_phase")),
    ):
        for path in folder.rglob("*.py"):
            if path.name != own and path != folder / "positions" / "__init__.py":
                assert not any(word in path.read_text(encoding="utf-8") for word in words), path

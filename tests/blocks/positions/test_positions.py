"""Position encodings: against naive restatements in float64, and the properties that their names promise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers import GLOBAL, attention, enliven, largest, random_ids, tiny_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from miniwin.blocks import POSITIONS, Attention, PositionEncoding
from miniwin.blocks.attention.visibility import Visibility
from miniwin.blocks.positions import Alibi
from miniwin.blocks.positions.alibi import slopes
from miniwin.blocks.positions.base import Heads, Positions
from miniwin.blocks.positions.logit_scale import LogRatioScaleSpec, LogScaleSpec
from miniwin.blocks.positions.p_rope import PeriodicRope, snapped_harmonics
from miniwin.blocks.positions.rope import Rope
from miniwin.specs import UserError

DIM = 16
FAR = (0, 1, 63, 64, 65, 1000, 65_535, 65_536, 131_073, 1_000_000, 9_999_999, 10_000_000, 100_000_001)


def encoding(window: int | None = 32, dim: int = DIM, **fields: Any) -> PositionEncoding:
    spec: Any = POSITIONS[fields["type"]](**fields)
    heads = Heads(hidden_size=2 * dim, num_heads=2, num_kv_heads=1, head_dim=dim, window=window)
    spec.check(heads)
    made: PositionEncoding = spec.build(heads)
    return made


def turn(position: PositionEncoding, x: Tensor, at: Tensor) -> Tensor:
    """x (B, N, H, D), encoded at integer positions (1 or B, N)."""
    return position.encode(x, x, Positions(at))[0]


def rope(**fields: Any) -> PositionEncoding:
    return encoding(type="rope", **fields)


def harmonic(period: int = 64, **fields: Any) -> PositionEncoding:
    return encoding(type="p-rope", period=period, **fields)


def published(period: int = 64, **fields: Any) -> PositionEncoding:
    return encoding(type="p-rope", period=period, harmonic=False, **fields)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rotated(position: PositionEncoding, x: Tensor, at: list[int] | range) -> Tensor:
    """x (D,) rotated to each of the positions: (len(at), D)."""
    row = x.expand(1, len(at), 1, -1)
    return turn(position, row, torch.tensor(list(at)).unsqueeze(0))[0, :, 0]


def naive_rotation(x: Tensor, turns: list[float], t: int) -> Tensor:
    """Channels (c, c + D/2) as a complex number, times e^(i t theta_c). Angles t * theta are in turns."""
    half = len(x) // 2
    pairs = [complex(x[c], x[c + half]) for c in range(half)]
    angles = [2 * math.pi * (t * f % 1) for f in turns]
    moved = [z * complex(math.cos(a), math.sin(a)) for z, a in zip(pairs, angles, strict=True)]
    return torch.tensor([z.real for z in moved] + [z.imag for z in moved], dtype=torch.float64)


def geometric_turns(theta: float, dim: int = DIM) -> list[float]:
    return [theta ** (-2 * k / dim) / (2 * math.pi) for k in range(dim // 2)]


def scores(position: PositionEncoding, queries: list[int], keys: list[int]) -> Tensor:
    q, k = draw(DIM, seed=1), draw(DIM, seed=2)
    return (rotated(position, q, queries) * rotated(position, k, keys)).sum(-1)


@pytest.mark.parametrize("theta", [100.0, 10_000.0, 1e6])
def test_rope_equals_a_naive_rotation_at_any_position(theta: float) -> None:
    x = draw(DIM)
    got = rotated(rope(rope_theta=theta), x, list(FAR))
    want = torch.stack([naive_rotation(x, geometric_turns(theta), t) for t in FAR])
    assert largest(got, want) < 2e-6


def test_rope_scores_depend_on_distance_alone_far_out() -> None:
    distance = list(range(32))
    near = scores(rope(), distance, [0] * 32)
    for start in FAR:
        far = scores(rope(), [start + d for d in distance], [start] * 32)
        assert largest(far, near) < 1e-5, f"at {start}"
    assert largest(near[1:], near[:-1]) > 0.1  # and do depend on it


@pytest.mark.parametrize("period", [64, 65, 128, 1000])
def test_harmonic_p_rope_is_exactly_periodic_and_relative(period: int) -> None:
    position = harmonic(period)
    x = draw(DIM)
    window = range(period)
    once = rotated(position, x, window)
    for laps in (1, 2, 1000, 10_000_000 // period):
        assert torch.equal(rotated(position, x, range(laps * period, (laps + 1) * period)), once)
    distance = list(range(32))
    near = scores(position, distance, [0] * 32)
    for start in (*FAR, period - 1, period - 16, 7 * period - 5):  # pairs that straddle a period boundary, too
        far = scores(position, [start + d for d in distance], [start] * 32)
        assert largest(far, near) < 1e-5, f"at {start}"


@pytest.mark.parametrize("period", [64, 65, 1000])
def test_harmonic_p_rope_equals_a_naive_rotation_without_any_modulo(period: int) -> None:
    x = draw(DIM)
    turns = [n / period for n in snapped_harmonics(DIM // 2, period)]
    want = torch.stack([naive_rotation(x, turns, t) for t in FAR if t < 1_000_000])
    assert largest(rotated(harmonic(period), x, [t for t in FAR if t < 1_000_000]), want) < 2e-6
    listed = harmonic(period, harmonics=snapped_harmonics(DIM // 2, period))
    assert torch.equal(rotated(listed, x, list(FAR)), rotated(harmonic(period), x, list(FAR)))


def test_harmonic_p_rope_tells_all_distances_within_its_period_apart() -> None:
    """The score of a vector with itself, by distance: within a period only distance 0 gives that of 0."""
    for fields in ({}, {"harmonics": "all"}):
        position = harmonic(64, **fields)
        turned = rotated(position, torch.ones(DIM), range(64))
        gap = torch.cdist(turned, turned) + 10 * torch.eye(64)
        assert gap.min() > 0.1


def test_all_harmonics_are_the_first_integers() -> None:
    x = draw(DIM)
    named, listed = harmonic(64, harmonics="all"), harmonic(64, harmonics=list(range(1, 9)))
    assert torch.equal(rotated(named, x, range(70)), rotated(listed, x, range(70)))


@pytest.mark.parametrize("period", [16, 33])
def test_published_p_rope_is_rope_at_the_position_modulo_the_period(period: int) -> None:
    x = draw(DIM)
    for theta in (100.0, 10_000.0):
        want = torch.stack([naive_rotation(x, geometric_turns(theta), t % period) for t in FAR])
        assert largest(rotated(published(period, rope_theta=theta), x, list(FAR)), want) < 2e-6
    assert torch.equal(rotated(published(period), x, range(period)), rotated(rope(), x, range(period)))


def test_published_p_rope_is_not_relative() -> None:
    """Across a period boundary the angle is that of d - p in place of d."""
    period, d = 64, 5
    within = scores(published(period), [20 + d], [20])
    across = scores(published(period), [period + 2], [period + 2 - d])
    assert largest(within, across) > 0.1
    assert largest(across, scores(rope(), [2], [period + 2 - d])) < 1e-5
    assert largest(across, scores(rope(), [period + 2], [2 * period + 2 - d])) < 1e-5  # distance d - p


@pytest.mark.parametrize("position", [rope(), harmonic(), published()], ids=["rope", "harmonic", "published"])
def test_rotations_keep_norms_and_dtype(position: PositionEncoding) -> None:
    x = draw(2, 9, 3, DIM)
    positions = torch.randint(0, 10_000_000, (2, 9), generator=torch.Generator().manual_seed(3))
    turned = turn(position, x, positions)
    assert turned.shape == x.shape
    assert largest(turned.norm(dim=-1), x.norm(dim=-1)) < 2e-6
    assert largest(turned, x) > 1
    halved = turn(position, x.bfloat16(), positions)
    assert halved.dtype == torch.bfloat16
    # Rotated in float32 and rounded once: a rotation in bfloat16 would be off by several times as much.
    assert largest(halved, turn(position, x.bfloat16().float(), positions).bfloat16()) == 0
    # One row of positions serves every row of the batch.
    assert torch.equal(turn(position, x, positions[:1])[1], turn(position, x[1:], positions[:1])[0])


def test_gradients_pass_through_a_rotation() -> None:
    x = draw(1, 5, 2, DIM).requires_grad_()
    weight = draw(1, 5, 2, DIM, seed=4)
    positions = torch.tensor([[0, 3, 70, 128, 1_000_000]])
    for position in (rope(), harmonic(), published()):
        (grad,) = torch.autograd.grad(turn(position, x, positions), x, weight)
        # The transpose of a rotation is its inverse: rotating the gradient again gives the weight back.
        assert largest(turn(position, grad, positions), weight) < 2e-6


@pytest.mark.parametrize("make", [rope, harmonic], ids=["rope", "harmonic"])
def test_tables_made_without_gradients_serve_training_afterwards(make: Any) -> None:
    position = make()
    with torch.inference_mode():
        turn(position, draw(1, 9, 1, DIM), torch.arange(9)[None])
    x = draw(1, 9, 1, DIM).requires_grad_()
    turn(position, x, torch.arange(9)[None]).sum().backward()
    assert x.grad is not None and x.grad.abs().max() > 0
    turn(position, x, torch.arange(300, 309)[None]).sum().backward()  # the table grows


# ---- the integers of harmonic p-rope


@settings(derandomize=True, deadline=None)
@given(count=st.integers(1, 256), period=st.integers(1, 4096))
def test_snapped_harmonics(count: int, period: int) -> None:
    numbers = snapped_harmonics(count, period)
    top = max(period // 2, 1)
    assert len(numbers) == count
    assert all(1 <= n <= top for n in numbers)
    assert 1 in numbers, "distances would not be distinct"
    if count <= top:
        assert len(set(numbers)) == count, "enough integers, and yet one is used twice"
        assert numbers == sorted(numbers, reverse=True)
        if count > 1:
            assert numbers[0] == top
    else:
        assert set(numbers) == set(range(1, top + 1))
        counts = [numbers.count(n) for n in set(numbers)]
        assert max(counts) - min(counts) <= 1


@settings(derandomize=True, deadline=None)
@given(count=st.integers(2, 64), period=st.integers(512, 100_000))
def test_snapped_harmonics_lie_near_a_geometric_series(count: int, period: int) -> None:
    top = period // 2
    for k, n in enumerate(snapped_harmonics(count, period)):
        ideal = top ** (1 - k / (count - 1))
        if ideal > 4 * count:  # here neighbours are more than one apart: rounding meets no taken integer
            assert abs(n - ideal) <= 1


@pytest.mark.parametrize("dim", [2, 8, 16, 64, 128])
@pytest.mark.parametrize("period", [16, 64, 256])
def test_frequencies_are_distinct_where_there_are_enough(dim: int, period: int) -> None:
    """Frequencies are read from the encoding itself: how far each channel pair turns from one token to the next."""
    position = harmonic(period, window=8, dim=dim)
    half = dim // 2
    ones = torch.cat((torch.ones(half), torch.zeros(half)))
    turned = rotated(position, ones, [1])[0].double()
    steps = (torch.atan2(turned[half:], turned[:half]) * period / (2 * math.pi)).abs()
    assert largest(steps, steps.round()) < 1e-4
    assert len(set(steps.round().tolist())) == min(half, period // 2)


def refusal(head_dim: int = 16, window: int | None = 8, **fields: Any) -> str:
    with pytest.raises(UserError) as error:
        tiny_spec({"X": attention(window, {"type": "p-rope", **fields}, head_dim=head_dim)})
    return str(error.value)


def test_impossible_p_ropes_are_refused_with_the_field_and_the_way_out() -> None:
    message = refusal(period=6, window=8)
    assert "position.period: got period 6 with window 8; a harmonic p-rope needs period >= window" in message
    assert "period >= 16 (twice the window) is better" in message
    assert "a global layer (window: null) sees distances beyond any period" in refusal(period=16, window=None)
    assert "position.harmonics: got 2 harmonics; head_dim 16 needs 8" in refusal(period=16, harmonics=[1, 2])
    assert "harmonics lie between 1 and period - 1" in refusal(period=16, harmonics=[1, 2, 3, 4, 5, 6, 7, 16])
    assert "'all' needs 8 distinct integers up to period / 2 = 7" in refusal(period=15, harmonics="all")
    assert "harmonics: only a harmonic p-rope has harmonics" in refusal(period=16, harmonic=False, harmonics="all")
    assert "rope_theta: a harmonic p-rope takes its frequencies from the period" in refusal(period=16, rope_theta=1e4)
    assert "head_dim: got 15; a rotary encoding turns channels in pairs" in refusal(period=16, head_dim=15)


@pytest.mark.parametrize("harmonics", [[2, 4, 6, 8, 10, 12, 14, 2], [4] * 8])
def test_harmonics_whose_common_period_is_shorter_than_the_window_are_refused(harmonics: list[int]) -> None:
    """Even integers at period 16: the encoding repeats after 8 tokens, twice within a window of 12."""
    assert "harmonics" in refusal(period=16, window=12, harmonics=harmonics)


# ---- ALiBi


def naive_slopes(heads: int) -> list[float]:
    """The published rule (Press et al., the authors' code), restated."""

    def of_power(n: int) -> list[float]:
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    if math.log2(heads).is_integer():
        return of_power(heads)
    closest = 2 ** math.floor(math.log2(heads))
    return of_power(closest) + naive_slopes(2 * closest)[0::2][: heads - closest]


@pytest.mark.parametrize("heads", range(1, 21))
def test_alibi_slopes(heads: int) -> None:
    assert slopes(heads).tolist() == pytest.approx(naive_slopes(heads), rel=1e-6)


def test_alibi_bias_falls_with_distance() -> None:
    bias = Alibi(3).score_bias()
    distance = torch.tensor([[0, 1, 1000], [7, 100_000, 2]])
    got = bias(distance)
    assert got.shape == (3, 2, 3)
    for head, slope in enumerate(naive_slopes(3)):
        assert got[head].tolist() == [pytest.approx([-slope * d for d in row], rel=1e-6) for row in distance.tolist()]


# ---- NoPE and its logit scale


def test_nope_without_scaling_does_nothing() -> None:
    position = encoding(type="nope", logit_scale=None)
    x = draw(1, 5, 2, DIM)
    assert turn(position, x, torch.arange(5)[None]) is x
    assert position.score_bias() is None
    assert position.query_scale(torch.arange(1, 6)[None], 5) is None


def test_a_global_nope_layer_is_blind_to_the_order_of_what_came_before() -> None:
    spec = tiny_spec({"G": attention(None, GLOBAL)}, num_layers=1, pattern="G")
    decoder = enliven(spec.build()).eval()
    ids = random_ids(spec, 1, 20)
    shuffled = ids.clone()
    shuffled[0, :19] = ids[0, torch.randperm(19, generator=torch.Generator().manual_seed(0))]
    with torch.no_grad():
        assert largest(decoder(ids)[:, -1], decoder(shuffled)[:, -1]) < 1e-5


def test_log_scale_is_learned_per_head_and_logarithmic() -> None:
    scale = LogScaleSpec(init=0.3).build(2)
    assert [p.shape for p in scale.parameters()] == [(2,)]
    with torch.no_grad():
        scale.scale.copy_(torch.tensor([0.5, 2.0]))
    got = scale(torch.tensor([[1, 2, 10, 1_000_000]]), 99)
    assert got.shape == (1, 4, 2, 1)
    for i, n in enumerate((1, 2, 10, 1_000_000)):
        assert got[0, i, :, 0].tolist() == pytest.approx([0.5 * math.log(n), 2.0 * math.log(n)], rel=1e-6)
    got.sum().backward()
    assert scale.scale.grad is not None and (scale.scale.grad > 0).all()


def test_log_ratio_scale_is_one_for_one_key_and_grows() -> None:
    visible = torch.tensor([[1, 2, 10, 1000]])
    got = LogRatioScaleSpec(base=8.0).build(2)(visible, 1000)
    assert got.flatten().tolist() == pytest.approx([math.log(8 + n) / math.log(9) for n in (1, 2, 10, 1000)], rel=1e-6)
    total = LogRatioScaleSpec(base=8.0, total_length=True).build(2)(visible, 1000)
    assert total.flatten().tolist() == pytest.approx([math.log(1008) / math.log(9)] * 4, rel=1e-6)


@pytest.mark.parametrize("window", [1, 4, None])
@pytest.mark.parametrize("warm", [0, 3, 9])
def test_logit_scale_counts_the_keys_each_query_sees(window: int | None, warm: int) -> None:
    """min(i + 1, W) for the token at i of its own row, on a warm cache and behind padding too."""
    asked: list[list[list[int]]] = []

    class Recorder(PositionEncoding):
        def query_scale(self, visible: Tensor, total: int) -> None:
            asked.append(visible.tolist())

    layer = Attention(8, 2, 1, 4, Recorder(), Visibility(window))
    cache = layer.new_cache(2, torch.float32, torch.device("cpu"))
    pad = torch.tensor([0, 2])
    positions = (torch.arange(warm + 6) - pad.unsqueeze(1)).clamp(min=0)
    for part in (slice(0, warm), slice(warm, None)):
        if positions[:, part].shape[1]:
            layer(draw(2, positions[:, part].shape[1], 8), Positions(positions[:, part]), cache, pad)
    most = window or 1000
    for row, skip in enumerate(pad.tolist()):
        got = [n for call in asked for n in call[row]]
        assert got[skip:] == [min(i + 1, most) for i in range(warm + 6 - skip)]


class Faster(Rope):
    """A plugin's encoding: a rotation with an attribute of its own."""

    def __init__(self, frequencies: Tensor, speed: float) -> None:
        super().__init__(frequencies)
        self.speed = speed

    def angles(self, positions: Tensor) -> Tensor:
        return super().angles(positions) * self.speed


def test_only_layers_that_turn_alike_share_their_angles() -> None:
    frequencies, where = torch.tensor([1.0, 0.1], dtype=torch.float64), Positions(torch.arange(5).unsqueeze(0))
    encodings = [Rope(frequencies), Rope(frequencies * 2), Faster(frequencies, 1), Faster(frequencies, 3)]
    encodings += [Rope(frequencies, attention_factor=1.5), PeriodicRope(frequencies, 3), PeriodicRope(frequencies, 4)]
    q = k = torch.randn(1, 5, 1, 4)
    for each in encodings:
        alone = each.encode(q, k, Positions(where.index))
        for mine, own in zip(each.encode(q, k, where), alone, strict=True):
            assert torch.equal(mine, own)
    assert len(where.shared) == len(encodings)
    Rope(frequencies.clone()).encode(q, k, where)
    assert len(where.shared) == len(encodings)  # an equal encoding finds its angles

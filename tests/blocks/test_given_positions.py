"""Positions that the caller gives: real numbers, and Gaussian distributions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers import attention, enliven, largest, random_ids, tiny_spec
from torch import Tensor

from miniwin.blocks import POSITIONS, PositionEncoding
from miniwin.blocks.positions.base import Heads, Positions
from miniwin.specs import UserError

HEADS = Heads(hidden_size=32, num_heads=2, num_kv_heads=1, head_dim=16, window=32)
YARN = {"type": "yarn", "factor": 4, "original_max_position_embeddings": 64}
ROTARY: dict[str, dict[str, Any]] = {
    "rope": {"type": "rope"},
    "rope-partial": {"type": "rope", "partial_rotary_factor": 0.5, "pairing": "interleaved", "scaling": YARN},
    "p-rope": {"type": "p-rope", "period": 64},
    "resonance": {"type": "resonance"},
}
every_rotary = pytest.mark.parametrize("fields", ROTARY.values(), ids=ROTARY.keys())
PUBLISHED: dict[str, Any] = {"type": "p-rope", "period": 64, "harmonic": False}


def build(**fields: Any) -> PositionEncoding:
    spec: Any = POSITIONS[fields["type"]](**fields)
    spec.check(HEADS)
    made: PositionEncoding = spec.build(HEADS)
    return made


def frequencies(**fields: Any) -> Tensor:
    spec: Any = POSITIONS[fields["type"]](**fields)
    found: Tensor = spec.frequencies(HEADS)
    return found


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reals(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def given(mean: Tensor, variance: Tensor | None = None) -> Positions:
    """mean, variance (N,)."""
    index = torch.arange(len(mean))[None]
    return Positions(index, mean.double()[None], None if variance is None else variance.double()[None])


def turned(position: PositionEncoding, x: Tensor, where: Positions) -> Tensor:
    """x (D,) encoded at each position: (N, D)."""
    row = x.expand(1, where.index.shape[1], 1, -1)
    return position.encode(row, row, where)[0][0, :, 0]


@pytest.mark.parametrize("fields", [*ROTARY.values(), PUBLISHED], ids=[*ROTARY, "published"])
def test_whole_numbers_given_are_the_whole_numbers_counted(fields: dict[str, Any]) -> None:
    position, x = build(**fields), draw(16)
    numbers = torch.tensor([0, 3, 63, 64, 65, 1000, 70_000, 9_999_999])
    counted = turned(position, x, Positions(numbers[None]))
    assert largest(turned(position, x, given(numbers)), counted) < 1e-12
    # The given position counts, not the order; and one row of positions serves a batch.
    x2 = draw(3, 8, 2, 16)
    where = Positions(torch.arange(8)[None], numbers.double()[None])
    q, k = position.encode(x2, x2[:, :, :1], where)
    assert largest(q, position.encode(x2, x2, Positions(numbers[None]))[0]) < 1e-12
    assert largest(k, q[:, :, :1]) == 0


@every_rotary
def test_scores_depend_on_the_real_valued_distance_alone(fields: dict[str, Any]) -> None:
    position = build(**fields)
    q, k = draw(16, seed=1), draw(16, seed=2)
    distance = reals(0, 0.25, 1.5, 7.125, 20.0625)
    near = turned(position, q, given(distance)) @ turned(position, k, given(reals(0)))[0]
    for start in (0.5, 63.75, 1000.0, 123_456.375, 9_999_999.5):
        there = turned(position, q, given(start + distance))
        far = there @ turned(position, k, given(reals(start)))[0]
        assert largest(far, near) < 1e-7, f"at {start}"
    assert largest(near[1:], near[:-1]) > 0.01


def test_a_real_position_lies_between_its_neighbours() -> None:
    """A naive rotation by t * theta, in Python's own floats."""
    position, x = build(type="rope"), draw(16)
    for t in (0.5, 2.75, 1000.125):
        want = x.clone()
        for c in range(8):
            angle = t * 10_000 ** (-c / 8)
            z = complex(x[c], x[c + 8]) * complex(math.cos(angle), math.sin(angle))
            want[c], want[c + 8] = z.real, z.imag
        assert largest(turned(position, x, given(reals(t)))[0], want) < 1e-12


@pytest.mark.parametrize("harmonic", [True, False])
def test_real_positions_are_taken_modulo_the_period(harmonic: bool) -> None:
    position, x = build(type="p-rope", period=64, harmonic=harmonic), draw(16)
    near = reals(0, 0.5, 31.25, 63.875)
    for laps in (1, 1000, 156_249):  # up to 1e7
        assert torch.equal(turned(position, x, given(near + 64.0 * laps)), turned(position, x, given(near)))
    if harmonic:  # no jump where a period ends
        ends = turned(position, x, given(reals(64 - 1e-6, 64 + 1e-6)))
        assert largest(ends[0], ends[1]) < 1e-4


@every_rotary
@pytest.mark.parametrize("deviation", [0.0, 0.7, 3.0])
def test_a_gaussian_position_gives_the_expected_score(fields: dict[str, Any], deviation: float) -> None:
    """Monte Carlo over query and key positions drawn independently, and the closed form of each pair."""
    position = build(**fields)
    q, k = draw(16, seed=1), draw(16, seed=1)  # alike, so that blurring shows
    means, count = (112.3, 112.0), 40_000
    variance = reals(deviation**2)
    got = turned(position, q, given(reals(means[0]), variance))[0]
    got = (got * turned(position, k, given(reals(means[1]), variance / 4))[0]).sum()
    at_q = means[0] + deviation * draw(count, seed=3)
    at_k = means[1] + deviation / 2 * draw(count, seed=4)
    samples = (turned(position, q, given(at_q)) * turned(position, k, given(at_k))).sum(-1)
    error = 5 * float(samples.std()) / math.sqrt(count)
    assert abs(float(samples.mean() - got)) < error + 1e-10
    if deviation:  # tight enough to tell the expected score from the score at the means
        sharp = turned(position, q, given(reals(means[0]))) * turned(position, k, given(reals(means[1])))
        assert abs(float(sharp.sum() - got)) > 3 * error


@every_rotary
def test_each_frequency_is_attenuated_by_its_own_gaussian(fields: dict[str, Any]) -> None:
    position, x = build(**fields), draw(16)
    thetas = frequencies(**fields)
    count = len(thetas)
    for variance in (0.0, 1.0, 100.0, 1e6):
        mean = reals(1234.5)
        sharp, blurred = turned(position, x, given(mean)), turned(position, x, given(mean, reals(variance)))
        fade = torch.exp(-(thetas**2) * variance / 2)
        each = fade.repeat_interleave(2) if fields.get("pairing") == "interleaved" else fade.repeat(2)
        want = torch.cat((sharp[:, : 2 * count] * each, sharp[:, 2 * count :]), dim=-1)
        assert largest(blurred, want) < 1e-12
    # With an unbounded variance nothing of the position is left: only channels that do not turn remain.
    nowhere = turned(position, x, given(mean, reals(1e18)))
    assert largest(nowhere[:, : 2 * count], torch.zeros(1, 2 * count)) < 1e-12


@every_rotary
def test_gradients_and_float32_with_a_variance(fields: dict[str, Any]) -> None:
    position = build(**fields)
    where = given(torch.tensor([0.5, 70.25, 1e5]), torch.tensor([0.0, 0.5, 9.0]))
    x = draw(1, 3, 2, 16).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: position.encode(a, a, where), (x,))
    single = position.encode(x.detach().float(), x.detach().float(), where)[0]
    assert single.dtype == torch.float32
    assert largest(single, position.encode(x, x, where)[0]) < 2e-6


@every_rotary
def test_given_positions_on_the_meta_device(fields: dict[str, Any]) -> None:
    position = build(**fields)
    x = draw(1, 3, 2, 16).to("meta")
    where = given(torch.arange(3), torch.ones(3))
    assert where.mean is not None and where.variance is not None
    there = Positions(where.index.to("meta"), where.mean.to("meta"), where.variance.to("meta"))
    assert position.encode(x, x, there)[0].shape == x.shape


def test_the_published_form_refuses_a_variance() -> None:
    decoder = tiny_spec({"X": attention(None, PUBLISHED)}).build()
    ids, numbers = torch.zeros(1, 3, dtype=torch.int64), torch.arange(3.0).unsqueeze(0)
    cache = decoder.new_cache()
    with pytest.raises(UserError, match=r"position_variance: .* published p-rope jumps .* use harmonic: true"):
        decoder(ids, cache, positions=numbers, position_variance=torch.ones(1, 3))
    decoder(ids, cache, positions=numbers)  # nothing was left halfway


@pytest.mark.parametrize("position", ["nope", "forgetting", "stick-breaking"])
def test_positions_that_nobody_reads_are_refused(position: str) -> None:
    decoder = tiny_spec({"X": attention(None, {"type": position})}).build()
    with pytest.raises(UserError, match="positions: no layer of this model reads them"):
        decoder(torch.zeros(1, 3, dtype=torch.int64), positions=torch.arange(3.0).unsqueeze(0))


# ---- in a model


@pytest.mark.parametrize("fields", [ROTARY["rope"], ROTARY["p-rope"], ROTARY["resonance"]])
def test_a_model_at_given_positions(fields: dict[str, Any]) -> None:
    spec = tiny_spec({"S": attention(9, fields)})
    decoder = enliven(spec.build()).eval().double()
    ids = random_ids(spec, 2, 24)
    counted = decoder(ids)
    numbers = torch.arange(24, dtype=torch.float64)[None]
    assert largest(decoder(ids, positions=numbers), counted) < 1e-10
    # Relative: moving all positions by one real number changes nothing; moving them apart does.
    assert largest(decoder(ids, positions=numbers + 1000.375), counted) < 1e-7
    assert largest(decoder(ids, positions=numbers * 1.5), counted) > 0.01
    spread = torch.full_like(numbers, 4.0)
    blurred = decoder(ids, positions=numbers, position_variance=spread)
    assert largest(blurred, counted) > 0.01
    assert largest(decoder(ids, positions=numbers, position_variance=0 * spread), counted) < 1e-10
    # A warm cache, with positions given in every call.
    cache = decoder.new_cache(2)
    parts = []
    for part in range(0, 24, 8):
        cut = slice(part, part + 8)
        parts.append(decoder(ids[:, cut], cache, positions=numbers[:, cut], position_variance=spread[:, cut]))
    assert largest(torch.cat(parts, dim=1), blurred) < 1e-10

"""RoPE scalings: against an independent implementation, and the identities that every rotary encoding must keep.

Positions reach 1e7, in float64: an angle of 1e7 rad is exact to 2e-9 there, so a wrong frequency cannot hide.
"""

from __future__ import annotations

import math
import random
import re
from typing import Any

import pytest
import torch
from float64 import all_float64
from helpers import attention, enliven, largest, random_ids, tiny_spec
from torch import Tensor
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from miniwin.blocks import POSITIONS, PositionEncoding
from miniwin.blocks.positions.base import Heads, Positions
from miniwin.blocks.positions.rope import RopeSpec
from miniwin.blocks.positions.scaling import YarnSpec
from miniwin.blocks.registry import SCALINGS
from miniwin.specs import UserError

FAR = (0, 1, 127, 5000, 65_535, 65_537, 1_000_003, 9_999_980)


def heads(head_dim: int = 16, window: int | None = 32) -> Heads:
    return Heads(hidden_size=2 * head_dim, num_heads=2, num_kv_heads=1, head_dim=head_dim, window=window)


def position_spec(head_dim: int = 16, **fields: Any) -> Any:
    spec: Any = POSITIONS[fields["type"]](**fields)
    spec.check(heads(head_dim))
    return spec


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def at(index: list[int] | range) -> Positions:
    return Positions(torch.tensor([list(index)]))


def turned(position: PositionEncoding, x: Tensor, index: list[int] | range) -> Tensor:
    """x (D,) encoded at each position: (len(index), D)."""
    row = x.expand(1, len(index), 1, -1)
    return position.encode(row, row, at(index))[0][0, :, 0]


LISTS = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 2.0, 5.0, 20.0]}
SCALED: dict[str, dict[str, Any]] = {
    "linear": {"type": "linear", "factor": 8},
    "ntk": {"type": "ntk", "factor": 4},
    "dynamic-ntk": {"type": "dynamic-ntk", "factor": 2, "original_max_position_embeddings": 32, "length": 256},
    "yarn": {"type": "yarn", "factor": 16, "original_max_position_embeddings": 64},
    "llama3": {
        "type": "llama3",
        "factor": 8,
        "low_freq_factor": 1,
        "high_freq_factor": 4,
        "original_max_position_embeddings": 256,
    },
    "longrope": {
        "type": "longrope",
        **LISTS,
        "original_max_position_embeddings": 64,
        "max_position_embeddings": 512,
    },
}
# Every rotary encoding that is relative, with whole heads turning and with half of each head.
RELATIVE: dict[str, dict[str, Any]] = {
    "rope": {"type": "rope"},
    "rope-interleaved": {"type": "rope", "pairing": "interleaved"},
    "rope-partial": {"type": "rope", "partial_rotary_factor": 0.5},
    "rope-partial-interleaved": {"type": "rope", "partial_rotary_factor": 0.25, "pairing": "interleaved"},
    "p-rope": {"type": "p-rope", "period": 100},
    "p-rope-partial": {"type": "p-rope", "period": 99, "partial_rotary_factor": 0.5, "pairing": "interleaved"},
    "resonance": {"type": "resonance"},
    "resonance-partial": {"type": "resonance", "partial_rotary_factor": 0.75, "pairing": "interleaved"},
    "resonance-yarn": {"type": "resonance", "scaling": SCALED["yarn"]},
} | {
    f"scaled-{name}": {"type": "rope", "partial_rotary_factor": 0.5, "scaling": scaling}
    for name, scaling in SCALED.items()
}
every_relative = pytest.mark.parametrize("fields", RELATIVE.values(), ids=RELATIVE.keys())


def test_the_table_here_covers_every_scaling() -> None:
    assert set(SCALED) == set(SCALINGS.names())


# ---- identities


@every_relative
def test_scores_depend_on_distance_alone(fields: dict[str, Any]) -> None:
    position = position_spec(**fields).build(heads())
    q, k = draw(16, seed=1), draw(16, seed=2)
    distances = range(20)
    near = turned(position, q, distances) @ turned(position, k, [0])[0]
    for start in FAR:
        far = turned(position, q, [start + d for d in distances]) @ turned(position, k, [start])[0]
        assert largest(far, near) < 1e-7, f"at {start}"
    assert largest(near[1:], near[:-1]) > 0.01  # and do depend on it


@every_relative
def test_norms_are_kept_up_to_the_attention_factor_of_the_rotated_channels(fields: dict[str, Any]) -> None:
    spec = position_spec(**fields)
    position = spec.build(heads())
    x = draw(1, len(FAR), 3, 16)
    got = position.encode(x, x, at(list(FAR)))[0]
    count = 2 * len(spec.frequencies(heads()))
    assert count == int(16 * spec.partial_rotary_factor)
    before, after = x[..., :count].norm(dim=-1), got[..., :count].norm(dim=-1)
    factor = position.attention_factor
    assert largest(after, before * factor) < 1e-12
    assert (factor == 1) == ("scaling" not in fields or fields["scaling"]["type"] not in ("yarn", "longrope"))
    assert torch.equal(got[..., count:], x[..., count:]), "channels that do not turn pass unchanged"
    # Pair by pair, so that no pair affects another.
    if fields.get("pairing") == "interleaved":
        pair = x[..., :count].unflatten(-1, (-1, 2)).norm(dim=-1), got[..., :count].unflatten(-1, (-1, 2)).norm(dim=-1)
    else:
        pair = x[..., :count].unflatten(-1, (2, -1)).norm(dim=-2), got[..., :count].unflatten(-1, (2, -1)).norm(dim=-2)
    assert largest(pair[1], pair[0] * factor) < 1e-12


@every_relative
def test_every_pair_turns_at_the_frequency_that_the_spec_names(fields: dict[str, Any]) -> None:
    """A naive complex rotation, angle by angle, in Python's own floats."""
    spec = position_spec(**fields)
    position = spec.build(heads())
    frequencies = spec.frequencies(heads()).tolist()
    x = draw(16)
    count = len(frequencies)
    for t in (0, 1, 7, 98, 12_345):
        want = x.clone()
        for c, f in enumerate(frequencies):
            a, b = (2 * c, 2 * c + 1) if fields.get("pairing") == "interleaved" else (c, c + count)
            angle = math.fmod(t * f, 2 * math.pi)
            z = complex(x[a], x[b]) * complex(math.cos(angle), math.sin(angle)) * position.attention_factor
            want[a], want[b] = z.real, z.imag
        assert largest(turned(position, x, [t])[0], want) < 1e-10


@every_relative
def test_what_follows_a_token_changes_nothing_of_it(fields: dict[str, Any]) -> None:
    """Scaling is causal: a token's rotation does not change when the sequence goes on past every length."""
    position = position_spec(**fields).build(heads())
    x = draw(16)
    short = turned(position, x, range(40))
    long = turned(position, x, [*range(40), 3000, 70_000, 10_000_000])
    assert largest(long[:40], short) < 1e-12
    assert largest(turned(position, x, range(40)), short) == 0


@pytest.mark.parametrize("fields", [RELATIVE["p-rope"], RELATIVE["p-rope-partial"]], ids=["whole", "partial"])
def test_harmonic_p_rope_repeats_after_its_period_and_is_one_without_the_modulo(fields: dict[str, Any]) -> None:
    spec = position_spec(**fields)
    position, period, x = spec.build(heads()), fields["period"], draw(16)
    once = turned(position, x, range(period))
    for laps in (1, 77, 10_000_000 // period):
        assert torch.equal(turned(position, x, range(laps * period, (laps + 1) * period)), once)
    turns = spec.frequencies(heads()) * period / (2 * math.pi)
    assert largest(turns, turns.round()) < 1e-12 and bool((turns.round() >= 1).all())


def test_resonance_wavelengths_are_the_nearest_whole_numbers_and_repeat_exactly() -> None:
    spec = position_spec(**RELATIVE["resonance"])
    plain = position_spec(type="rope")
    wavelengths = 2 * math.pi / spec.frequencies(heads())
    ideal = 2 * math.pi / plain.frequencies(heads())
    assert largest(wavelengths, wavelengths.round()) < 1e-9
    assert largest(wavelengths, ideal) <= 0.5 + 1e-9
    assert wavelengths[0].round() == 6  # 2 pi
    position, x = spec.build(heads()), draw(16)
    once = turned(position, x, range(6))
    for c, wavelength in enumerate(wavelengths.round().long().tolist()):
        laps = [wavelength * (10_000_000 // wavelength) + t for t in range(6)]
        there = turned(position, x, laps)
        assert largest(there[:, [c, c + 8]], once[:, [c, c + 8]]) < 1e-12
        # Plain RoPE is out of phase by then, except for a wavelength that happens to be whole.
    off = turned(plain.build(heads()), x, [6 * 1_000_000])
    assert largest(off[:, [0, 8]], x[[0, 8]].unsqueeze(0)) > 0.1


def test_resonance_rounds_after_scaling() -> None:
    spec = position_spec(**RELATIVE["resonance-yarn"])
    scaled = position_spec(type="rope", scaling=SCALED["yarn"]).frequencies(heads())
    assert largest(2 * math.pi / spec.frequencies(heads()), (2 * math.pi / scaled).round()) < 1e-9
    assert spec.build(heads()).attention_factor == pytest.approx(0.1 * math.log(16) + 1)


@every_relative
def test_gradients_are_those_of_the_rotation(fields: dict[str, Any]) -> None:
    position = position_spec(**fields).build(heads())
    x, k = draw(1, 3, 2, 16).requires_grad_(), draw(1, 3, 1, 16, seed=3).requires_grad_()
    where = at([0, 5, 131])
    assert torch.autograd.gradcheck(lambda a, b: position.encode(a, b, where), (x, k))


@every_relative
def test_float32_is_float64_rounded_once_and_meta_needs_no_numbers(fields: dict[str, Any]) -> None:
    position = position_spec(**fields).build(heads())
    q, k = draw(2, len(FAR), 2, 16), draw(2, len(FAR), 1, 16, seed=1)
    exact = position.encode(q, k, at(list(FAR)))
    for a, b in zip(position.encode(q.float(), k.float(), at(list(FAR))), exact, strict=True):
        assert a.dtype == torch.float32 and largest(a, b) < 2e-6
    with torch.device("meta"):
        built = position_spec(**fields).build(heads())
    where = Positions(torch.arange(8, device="meta")[None])
    q, k = built.encode(q.to("meta").bfloat16(), k.to("meta").bfloat16(), where)
    assert q.is_meta and k.shape == (2, 8, 1, 16) and q.dtype == torch.bfloat16


# ---- against transformers


def theirs(name: str, head_dim: int, max_length: int, seq_len: int | None, **parameters: Any) -> tuple[Tensor, float]:
    config = LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        head_dim=head_dim,
        max_position_embeddings=max_length,
        rope_parameters={"rope_type": name, **parameters},
    )
    with all_float64():
        frequencies, factor = ROPE_INIT_FUNCTIONS[name](config, torch.device("cpu"), seq_len=seq_len)
    return frequencies, float(factor)


def agree(ours: dict[str, Any], head_dim: int, want: tuple[Tensor, float], **rope: Any) -> None:
    spec = RopeSpec(scaling=ours, **rope)
    spec.check(heads(head_dim))
    got, factor = spec.scaled(heads(head_dim))
    assert got.dtype == torch.float64
    assert ((got - want[0]) / want[0]).abs().max() < 1e-5, f"{ours} {rope}"
    assert factor == pytest.approx(want[1], rel=1e-6)


@pytest.mark.parametrize("seed", range(25))
def test_frequencies_and_factors_equal_those_of_transformers(seed: int) -> None:
    rng = random.Random(seed)
    head_dim = rng.choice([16, 32, 64, 80, 128])
    part = rng.choice([1.0, 0.5, 0.25, 0.75])
    rope = {"rope_theta": rng.choice([100.0, 1e4, 5e5, 1e6]), "partial_rotary_factor": part}
    factor, original = rng.choice([1.0, 2.0, 5.5, 32.0]), rng.choice([64, 2048, 8192])
    there: dict[str, Any] = {**rope, "factor": factor}
    far = original * rng.choice([1, 2, 16])

    agree({"type": "linear", "factor": factor}, head_dim, theirs("linear", head_dim, far, None, **there), **rope)

    dynamic = {"type": "dynamic-ntk", "factor": factor, "original_max_position_embeddings": original, "length": far}
    agree(dynamic, head_dim, theirs("dynamic", head_dim, original, far, **there), **rope)
    # Static NTK is the dynamic one at the length where its growth is the factor: (f s - (f - 1)) = g for f = 1, s = g.
    static = theirs("dynamic", head_dim, 100, 550, **rope, factor=1.0)
    agree({"type": "ntk", "factor": 5.5}, head_dim, static, **rope)

    there["original_max_position_embeddings"] = original
    low = rng.choice([1.0, 1.5])
    llama3 = {"factor": factor, "low_freq_factor": low, "high_freq_factor": rng.choice([2.0, 4.0])}
    ours = {"type": "llama3", **llama3, "original_max_position_embeddings": original}
    agree(ours, head_dim, theirs("llama3", head_dim, far, None, **(there | llama3)), **rope)

    yarn: dict[str, Any] = {"beta_fast": rng.choice([32.0, 8.0]), "beta_slow": rng.choice([1.0, 2.0])}
    yarn["truncate"] = rng.random() < 0.5
    yarn |= rng.choice([{}, {"attention_factor": 1.25}, {"mscale": 0.707, "mscale_all_dim": 1.0}])
    ours = {"type": "yarn", "factor": factor, "original_max_position_embeddings": original, **yarn}
    agree(ours, head_dim, theirs("yarn", head_dim, far, None, **there, **yarn), **rope)

    lists = {k: [rng.uniform(1, 40) for _ in range(int(head_dim * part) // 2)] for k in LISTS}
    given = rng.choice([{}, {"attention_factor": 1.1}])
    ours = {"type": "longrope", "original_max_position_embeddings": original, "max_position_embeddings": far, **lists}
    there |= {**lists, **given, "factor": None}
    agree({**ours, **given}, head_dim, theirs("longrope", head_dim, far, far, **there), **rope)
    agree({**ours, **given, "length": original}, head_dim, theirs("longrope", head_dim, far, original, **there), **rope)


@pytest.mark.parametrize("original", [32, 4096, 1_000_000])
@pytest.mark.parametrize("clamp", ["channels", "pairs"])
def test_yarn_clamps_its_ramp_as_told(clamp: str, original: int) -> None:
    """Restated pair by pair. transformers clamps at d - 1, MiniMind at d/2 - 1: they differ for long originals."""
    d, theta, factor = 32, 10_000.0, 4.0
    scaling = YarnSpec(factor=factor, original_max_position_embeddings=original, high_clamp=clamp)  # type: ignore[arg-type]
    low = max(math.floor(d * math.log(original / (2 * math.pi * 32)) / (2 * math.log(theta))), 0)
    high = math.ceil(d * math.log(original / (2 * math.pi)) / (2 * math.log(theta)))
    high = min(high, d - 1 if clamp == "channels" else d // 2 - 1)
    want = []
    for k in range(d // 2):
        ramp = min(max((k - low) / (high - low), 0), 1)
        f = theta ** (-2 * k / d)
        want.append(f * (1 - ramp) + f / factor * ramp)
    spec = RopeSpec(scaling=scaling)
    assert spec.frequencies(heads(d)).tolist() == pytest.approx(want, rel=1e-12)
    stock = theirs("yarn", d, 8, None, rope_theta=theta, factor=factor, original_max_position_embeddings=original)[0]
    same = bool(((spec.frequencies(heads(d)) - stock) / stock).abs().max() < 1e-5)
    assert same == (clamp == "channels" or original < 100_000)


def test_interpolated_positions_are_positions_divided() -> None:
    x = draw(16)
    plain = position_spec(type="rope").build(heads())
    spread = position_spec(type="rope", scaling={"type": "linear", "factor": 8}).build(heads())
    assert largest(turned(spread, x, range(0, 800, 8)), turned(plain, x, range(100))) < 1e-12


# ---- in a model


@pytest.mark.parametrize("scaling", SCALED.values(), ids=SCALED.keys())
def test_decoding_past_the_original_length_equals_a_prefill(scaling: dict[str, Any]) -> None:
    position = {"type": "rope", "scaling": scaling}
    spec = tiny_spec({"G": attention(None, position, head_dim=8)})
    decoder = enliven(spec.build()).eval()
    ids = random_ids(spec, 1, 90)
    with torch.no_grad():
        whole = decoder(ids)
        cache = decoder.new_cache(1)
        parts = torch.cat([decoder(part, cache) for part in ids.split([60, 1, 20, 1, 8], dim=1)], dim=1)
        plain = enliven(tiny_spec({"G": attention(None, {"type": "rope"}, head_dim=8)}).build()).eval()(ids)
    assert largest(whole, parts) < 1e-4
    assert largest(whole, plain) > 0.05, "the scaling does something"


# ---- specs


def test_a_plain_rope_is_written_as_before_so_that_old_hashes_hold() -> None:
    assert RopeSpec().canonical(heads()) == {"type": "rope", "rope_theta": 10000.0}
    part = RopeSpec(partial_rotary_factor=0.51, pairing="interleaved").canonical(heads(64))
    assert part == {"type": "rope", "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "pairing": "interleaved"}
    old: dict[str, Any] = {"type": "p-rope", "period": 64}
    assert position_spec(**old, harmonics="all").canonical(heads(8)) == {**old, "harmonics": [1, 2, 3, 4]}
    published = position_spec(**old, harmonic=False)
    assert published.canonical(heads()) == {**old, "rope_theta": 10000.0}
    half = position_spec(**old, harmonic=False, partial_rotary_factor=0.5, pairing="half-mismatched")
    extra = {"partial_rotary_factor": 0.5, "pairing": "half-mismatched"}
    assert half.canonical(heads()) == {**old, "rope_theta": 10000.0, **extra}


def test_two_ways_of_writing_one_scaling_are_one() -> None:
    def written(**fields: Any) -> dict[str, Any]:
        return RopeSpec(scaling=fields).canonical(heads())["scaling"]  # type: ignore[no-any-return]

    yarn = SCALED["yarn"]
    assert written(**yarn) == written(**yarn, attention_factor=0.1 * math.log(16) + 1)
    assert written(**yarn) != written(**yarn, attention_factor=1.0)
    assert written(**SCALED["longrope"]) == written(**SCALED["longrope"], length=65)
    assert written(**SCALED["longrope"]) != written(**SCALED["longrope"], length=64)


def test_words() -> None:
    def words(**fields: Any) -> str:
        return ", ".join(POSITIONS[fields["type"]](**fields).words())  # type: ignore[attr-defined]

    assert words(type="rope", rope_theta=1e6) == "rope, theta 1e+06"
    yarn = words(type="rope", rope_theta=1e6, scaling=SCALED["yarn"], partial_rotary_factor=0.25)
    assert yarn == "rope, theta 1e+06, yarn x16, 25% of channels"
    assert words(type="rope", scaling=SCALED["longrope"]) == "rope, theta 10000, longrope x8, long"
    assert words(type="rope", scaling=SCALED["dynamic-ntk"]) == "rope, theta 10000, dynamic-ntk x2 at 256"
    assert words(type="p-rope", period=64) == "p-rope, harmonic"
    assert words(type="p-rope", period=64, harmonic=False) == "p-rope, published, theta 10000"
    assert words(type="resonance", pairing="interleaved") == "resonance, theta 10000, interleaved"


def refusal(head_dim: int = 16, window: int | None = None, **fields: Any) -> str:
    with pytest.raises(UserError) as error:
        tiny_spec({"X": attention(window, fields, head_dim=head_dim)})
    return str(error.value)


def scaling_refusal(name: str, head_dim: int = 8, rope_theta: float = 1e4, **fields: Any) -> str:
    return refusal(head_dim, type="rope", rope_theta=rope_theta, scaling={**SCALED[name], **fields})


def test_impossible_scalings_are_refused_with_the_field_and_the_way_out() -> None:
    assert "position.scaling.short_factor: got 4 factors; 16 rotated channels need 8" in scaling_refusal("longrope", 16)
    assert "position.scaling.high_freq_factor: got 0.5 with low_freq_factor 1" in scaling_refusal(
        "llama3", high_freq_factor=0.5
    )
    alone = scaling_refusal("yarn", mscale=1)
    assert "position.scaling.mscale_all_dim: mscale and mscale_all_dim act together" in alone
    both = scaling_refusal("yarn", mscale=1, mscale_all_dim=1, attention_factor=1)
    assert "position.scaling.attention_factor: attention_factor stands in place of mscale; give one" in both
    assert "position.scaling.beta_fast: got 1 with beta_slow 2" in scaling_refusal("yarn", beta_fast=1, beta_slow=2)
    assert "position.rope_theta: got 1; yarn needs more than 1" in scaling_refusal("yarn", rope_theta=1)
    tiny = scaling_refusal("yarn", original_max_position_embeddings=1, rope_theta=10)
    assert "position.scaling.original_max_position_embeddings: got 1; with rope_theta 10 no pair" in tiny
    assert "got NTK scaling with 2 rotated channels" in scaling_refusal("ntk", head_dim=2)
    alone = scaling_refusal("longrope", original_max_position_embeddings=1)
    assert "position.scaling.attention_factor: it follows from the logarithm" in alone
    assert "position.scaling.factor" in scaling_refusal("linear", factor=0.5)
    assert "did you mean 'yarn'" in refusal(type="rope", scaling={"type": "yran", "factor": 2})


def test_impossible_rotations_are_refused_with_the_field_and_the_way_out() -> None:
    odd = refusal(type="rope", partial_rotary_factor=0.2)
    assert "position.partial_rotary_factor: got 0.2, which is 3 of 16 channels" in odd and "0.125 would do" in odd
    for head_dim, factor in ((96, 0.35), (100, 0.59), (44, 0.71), (22, 0.5)):  # the suggested factor works
        said = refusal(head_dim, type="rope", partial_rotary_factor=factor)
        offered = float(re.findall(r"at least 2: ([0-9.]+) would do", said)[0])
        tiny_spec({"X": attention(None, {"type": "rope", "partial_rotary_factor": offered}, head_dim=head_dim)})
    none = refusal(type="resonance", partial_rotary_factor=0.01)
    assert "which is 0 of 16 channels" in none and "0.125 would do" in none
    assert "head_dim: got 15; a rotary encoding turns channels in pairs" in refusal(15, type="resonance")
    assert "position.rope_theta: got 1e-05, with which a wavelength rounds to" in refusal(
        type="resonance", rope_theta=1e-5
    )
    whole = refusal(type="p-rope", period=16, harmonic=False, pairing="half-mismatched")
    assert "position.pairing: half-mismatched is how the published MiniWin turns a part of each head" in whole
    harmonic = refusal(window=8, type="p-rope", period=16, partial_rotary_factor=0.5, pairing="half-mismatched")
    assert "it needs harmonic: false and partial_rotary_factor below 1" in harmonic
    few = refusal(window=8, type="p-rope", period=16, partial_rotary_factor=0.5, harmonics=[1, 2, 3])
    assert "position.harmonics: got 3 harmonics; head_dim 16, 8 channels of which turn, needs 4" in few


# ---- the published defect


def test_the_published_partial_rotary_is_the_defect_and_not_a_rotation() -> None:
    """Channel by channel, as in the authors' code: the frequencies of the whole head, twice in a row."""
    fields: dict[str, Any] = {"type": "p-rope", "period": 16, "harmonic": False, "partial_rotary_factor": 0.5}
    spec = position_spec(**fields, pairing="half-mismatched")
    position, x = spec.build(heads()), draw(16)
    row = [10_000.0 ** (-2 * k / 16) for k in range(8)] * 2
    for t in (0, 3, 15, 16, 9_999_999):
        want, angle = x.clone(), [(t % 16) * f for f in row]
        for c in range(4):
            a, b = x[c], x[c + 4]
            want[c] = a * math.cos(angle[c]) - b * math.sin(angle[c])
            want[c + 4] = b * math.cos(angle[c + 4]) + a * math.sin(angle[c + 4])
        assert largest(turned(position, x, [t])[0], want) < 1e-12
    assert largest(turned(position, x, [9]).norm(dim=-1), x.norm()[None]) > 0.01
    right = position_spec(**fields).build(heads())
    assert largest(turned(right, x, [9]).norm(dim=-1), x.norm()[None]) < 1e-12
    q = draw(1, 2, 2, 16).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: position.encode(a, a, at([5, 20]))[0], (q,))

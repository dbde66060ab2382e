"""Is this RoPE sound? The bounds against naive loops and published figures, the verdicts on known models, the metrics.

The verdicts on Llama, Mistral and DeepSeek are derived: each model's published rope_theta, depth and context put into
the formulas of arXiv 2602.10959 with its coherence of 0.95 and float32. The table of arXiv 2405.14591 is quoted.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import attention, tiny_spec
from processes import miniwin

from miniwin.blocks.positions.rotary_bounds import (
    aliasing_base,
    angle_error,
    cosine_sum,
    distinct_phases,
    effective_base,
    least_base,
    least_cosine_sum,
    precision_base,
    stability_base,
    straddling_share,
    unfinished,
    zone,
)
from miniwin.explain.soundness import METRICS, rotary_blocks, soundness, worst
from miniwin.search.objectives import cost
from miniwin.search.space import Space
from miniwin.specs import ModelSpec, UserError, load_train_spec, parse_spec
from miniwin.specs.objectives import costs


def plain(theta: float, pairs: int) -> torch.Tensor:
    return theta ** (-torch.arange(pairs, dtype=torch.float64) / pairs)


def model(position: dict[str, Any], layers: int, window: int | None = None, head_dim: int = 128) -> ModelSpec:
    block = {"num_heads": 1, "head_dim": head_dim, "window": window, "position": position}
    return tiny_spec({"S": block}, num_layers=layers)


def verdicts(spec: ModelSpec, length: int, **options: Any) -> dict[str, str]:
    return {c["name"]: c["verdict"] for c in soundness(spec, length, **options)[0]["criteria"]}


# ------------------------------------------------------------------------------------------- the functions


@pytest.mark.parametrize("theta, pairs", [(10_000.0, 64), (500_000.0, 32), (100.0, 3), (1e6, 2)])
def test_the_base_of_a_plain_rope_is_its_rope_theta(theta: float, pairs: int) -> None:
    assert effective_base(plain(theta, pairs)) == pytest.approx(theta, rel=1e-12)
    # Every wavelength stretched by 4: the slowest pair is that of a base 4^(K/(K-1)) times as large.
    assert effective_base(plain(theta, pairs) / 4) == pytest.approx(theta * 4 ** (pairs / (pairs - 1)), rel=1e-12)


def test_channels_that_do_not_turn_are_no_pairs() -> None:
    still = torch.cat([plain(10_000.0, 8), torch.zeros(4, dtype=torch.float64)])
    assert effective_base(still) == pytest.approx(10_000.0)
    assert unfinished(still, 1 << 40) == 0


def test_the_bounds_are_the_papers_formulas() -> None:
    assert aliasing_base(4096) == 4096 / (2 * math.pi)
    for layers in (1, 32, 80):
        base = stability_base(4096, layers)
        assert math.cos(4096 / base) ** layers == pytest.approx(0.95, rel=1e-12)
    assert precision_base(torch.float32) == 2**23 and precision_base(torch.bfloat16) == 2**7


@pytest.mark.parametrize("length, base", [(1000, 4.3e3), (2000, 1.6e4), (4000, 2.7e4), (8000, 8.4e4)])
def test_least_bases_of_the_published_table(length: int, base: float) -> None:
    """Table 2 of arXiv 2405.14591 (1k to 8k), which its authors computed for head_dim 128, as far as we can tell."""
    assert least_base(length, 64) == base


def test_the_least_base_grows_with_the_length() -> None:
    bases = [least_base(length, 16) for length in (64, 256, 1024, 4096)]
    assert bases == sorted(set(bases)) and bases[-1] > 16 * bases[0]


def test_the_sum_of_cosines_against_a_loop() -> None:
    theta = plain(500.0, 5)
    naive = [sum(math.cos(m * float(t)) for t in theta) for m in range(300)]
    assert torch.allclose(cosine_sum(theta, torch.arange(300)), torch.tensor(naive, dtype=torch.float64), atol=1e-12)
    first = next(m for m, value in enumerate(naive) if value < 0)
    least, found = least_cosine_sum(theta, 300)
    assert found == first and least == pytest.approx(min(naive) / 5, abs=1e-12)
    assert least_cosine_sum(theta, first) == (pytest.approx(min(naive[:first]) / 5), None)


def test_least_cosine_sum_over_more_than_one_chunk() -> None:
    theta = torch.tensor([math.pi / 20_000], dtype=torch.float64)  # negative only from 10,000 on, least at 20,000
    least, first = least_cosine_sum(theta, 30_000)
    assert first == 10_001 and least == pytest.approx(-1.0, abs=1e-9)


def test_wavelengths_that_training_never_completes() -> None:
    theta = 2 * math.pi / torch.tensor([10.0, 100.0, 1000.0], dtype=torch.float64)
    assert [unfinished(theta, n) for n in (9, 10, 99, 100, 1000)] == [3, 2, 2, 1, 0]


@pytest.mark.parametrize("window, period, length", [(4, 4, 4), (4, 4, 37), (7, 14, 100), (20, 6, 50), (None, 5, 33)])
def test_straddling_pairs_against_counting_them(window: int | None, period: int, length: int) -> None:
    pairs = [(i, j) for i in range(length) for j in range(i + 1) if window is None or i - j < window]
    apart = sum(i // period != j // period for i, j in pairs)
    assert straddling_share(window, period, length) == pytest.approx(apart / len(pairs), rel=1e-12)


@pytest.mark.parametrize("window, period", [(128, 128), (16, 16), (64, 128)])
def test_the_straddling_share_tends_to_the_rule(window: int, period: int) -> None:
    assert straddling_share(window, period, 1_000_000) == pytest.approx((window - 1) / 2 / period, rel=1e-3)


def test_distinct_phases_of_harmonics() -> None:
    def phases(harmonics: list[int], period: int) -> int:
        return distinct_phases(torch.tensor(harmonics, dtype=torch.float64) * 2 * math.pi / period, period)

    assert phases([1, 5], 24) == 24 and phases([4, 6], 24) == 12 and phases([8], 24) == 3


def test_angle_error_by_dtype() -> None:
    theta = plain(10_000.0, 64)
    assert angle_error(theta, 1 << 20, torch.float64) == 0
    assert 0.01 < angle_error(theta, 1 << 20, torch.float32) < 0.1
    assert angle_error(theta, 4096, torch.bfloat16) > 1
    assert angle_error(theta, 100_000, torch.float16) == math.inf  # the position itself is none
    exact = (torch.arange(3000, 4000, dtype=torch.float64)[:, None] * theta).float()
    naive = torch.arange(3000, 4000).float()[:, None] * theta.float()
    assert angle_error(theta, 4000, torch.float32) >= float((naive.double() - exact.double()).abs().max()) * 0.5


# ----------------------------------------------------------------------- verdicts on models that people know

ROPE = {"type": "rope", "rope_theta": 10_000.0}
LLAMA_3 = {"type": "rope", "rope_theta": 500_000.0}
OK, OUT = "ok", "outside"
YARN_40 = {"type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096}
LLAMA_31 = {
    "type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    "name, position, layers, head_dim, length, aliasing, one_layer, stability, precision",
    [
        ("Llama 1 7B", ROPE, 32, 128, 2048, OK, OK, OUT, OK),
        ("Llama 2 7B", ROPE, 32, 128, 4096, OK, OUT, OUT, OK),
        ("Llama 3 8B", LLAMA_3, 32, 128, 8192, OK, OK, OK, OK),
        ("Llama 3 70B", LLAMA_3, 80, 128, 8192, OK, OK, OK, OK),
        ("Llama 3 8B, unscaled", LLAMA_3, 32, 128, 131_072, OK, OK, OUT, OK),
        ("Llama 3.1 8B, scaled", {**LLAMA_3, "scaling": LLAMA_31}, 32, 128, 131_072, OK, OK, OK, OK),
        ("Mistral 7B v0.1", ROPE, 32, 128, 32_768, OK, OUT, OUT, OK),
        ("Mistral 7B v0.2", {**ROPE, "rope_theta": 1e6}, 32, 128, 32_768, OK, OK, OK, OK),
        ("DeepSeek-V3, unscaled", ROPE, 61, 64, 131_072, OUT, OUT, OUT, OK),
        ("DeepSeek-V3, YaRN", {**ROPE, "scaling": YARN_40}, 61, 64, 131_072, OK, OK, OUT, OK),
        ("a million tokens, Llama 3's base", LLAMA_3, 32, 128, 1_048_576, OK, OUT, OUT, OK),
        ("a million tokens, base 20M", {**ROPE, "rope_theta": 2e7}, 32, 128, 1_048_576, OK, OK, OK, OUT),
    ],
)
def test_verdicts_of_the_goldilocks_zone(
    name: str,
    position: dict[str, Any],
    layers: int,
    head_dim: int,
    length: int,
    aliasing: str,
    one_layer: str,
    stability: str,
    precision: str,
) -> None:
    deep = rotary_blocks(model(position, layers, head_dim=head_dim))["S"]
    shallow = rotary_blocks(model(position, 1, head_dim=head_dim))["S"]
    assert deep is not None and shallow is not None
    criteria = [deep.aliasing(length), shallow.stability(length), deep.stability(length), deep.precision("float32")]
    assert [c.as_facts()["verdict"] for c in criteria] == [aliasing, one_layer, stability, precision], name


def test_the_zone_is_empty_at_a_million_tokens_in_float32() -> None:
    """The precision wall: no base is sound for 32 layers, whatever the training."""
    least, most = zone(1_048_576, 32)
    assert least > most
    assert zone(131_072, 32)[0] < zone(131_072, 32)[1]
    assert zone(1_048_576, 32, torch.float64)[0] < zone(1_048_576, 32, torch.float64)[1]


def test_a_window_is_what_distances_are_held_against() -> None:
    """Mistral 7B v0.1 within its window of 4096 stands where Llama 2 stands, at any context."""
    windowed = soundness(model(ROPE, 32, window=4096), 1_000_000)[0]
    assert windowed["distances"] == 4096
    assert verdicts(model(ROPE, 32, window=4096), 1_000_000)["aliasing"] == OK
    assert verdicts(model(ROPE, 32), 1_000_000)["aliasing"] == OUT
    kept = tiny_spec({"S": attention(16, {"type": "rope"}, keep_first=2)})
    assert soundness(kept, 1000)[0]["distances"] == 1000, "a kept first token is seen from anywhere"
    chunked = tiny_spec({"S": attention(None, {"type": "rope"}, chunk=32)})
    assert soundness(chunked, 1000)[0]["distances"] == 32


def test_only_rotary_layers_multiply() -> None:
    blocks = {"S": attention(16, {"type": "rope"}), "G": attention(None, {"type": "nope"})}
    rows = {row["block"]: row for row in soundness(tiny_spec(blocks, num_layers=8), 4096)}
    stability = next(c for c in rows["S"]["criteria"] if c["name"] == "stability")
    assert stability["bound"] == pytest.approx(stability_base(16, 4))
    assert rows["G"]["criteria"] == [] and not rows["G"]["rotary"] and "no positions at all" in rows["G"]["says"]


def test_training_shorter_than_the_context() -> None:
    spec = model(ROPE, 2)
    assert verdicts(spec, 4096)["trained turns"] == OK
    assert verdicts(spec, 4096, trained_length=512)["trained turns"] == OUT
    assert verdicts(model(ROPE, 2, window=256), 4096, trained_length=512)["trained turns"] == OK
    assert verdicts(model(ROPE, 2), 1 << 18, trained_length=1 << 17)["trained turns"] == OK, "all have turned by then"


def test_periodic_encodings_have_their_own_criteria() -> None:
    def rows(harmonic: bool, window: int, length: int) -> dict[str, dict[str, Any]]:
        spec = tiny_spec({"S": attention(window, {"type": "p-rope", "period": 32, "harmonic": harmonic})})
        return {c["name"]: c for c in soundness(spec, length)[0]["criteria"]}

    published = rows(False, 32, 100_000)
    assert published["straddling"]["verdict"] == OUT
    assert published["straddling"]["value"] == pytest.approx(31 / 64, rel=1e-2)
    assert "turned by d - p" in published["straddling"]["says"]
    assert published["aliasing"]["value"] == 32, "however long the context, angles are at most a period apart"
    assert rows(False, 32, 32)["straddling"]["verdict"] == OK, "the first period has no boundary in it"
    assert rows(False, 40, 1000)["window in period"]["verdict"] == OUT
    harmonic = rows(True, 16, 100_000)
    assert {c["verdict"] for c in harmonic.values()} == {OK}
    assert harmonic["phases"]["value"] == 32 and "stability" not in harmonic and "cosine sum" not in harmonic
    assert harmonic["angle error"]["value"] < 1e-4, "positions stay below the period"
    assert "far would not look like near" in rows(True, 32, 64)["window in period"]["says"]


@pytest.mark.parametrize("gate", [False, True])
def test_the_longest_of_several_periods_is_judged(gate: bool) -> None:
    position = {"type": "p-rope", "periods": [8, 64, 20], "gate": gate}
    spec = tiny_spec({"S": attention(32, position, num_kv_heads=4)})
    rows = {c["name"]: c for c in soundness(spec, 100_000)[0]["criteria"]}
    assert {c["verdict"] for c in rows.values()} == {OK}
    assert (rows["window in period"]["value"], rows["window in period"]["bound"]) == (32, 64)
    assert rows["window in period"]["says"].endswith("; these repeat within it: 8, 20")
    assert rows["phases"]["value"] == 64
    assert worst(spec, "rope_aliasing", 1 << 20) == 0.5


def test_a_context_past_exact_angles() -> None:
    """A window bounds distances; angles are those of absolute positions."""
    spec = model(ROPE, 1, window=64)
    assert verdicts(spec, 10_000_000)["angle error"] == OUT
    assert verdicts(spec, 10_000_000, dtype="float64")["angle error"] == OK
    assert verdicts(spec, 1024, dtype="bfloat16")["precision"] == OUT


@pytest.mark.parametrize(
    "options, message",
    [
        ({"dtype": "float8"}, "--angle-dtype: got 'float8'; expected one of float64, float32"),
        ({"trained_length": 0}, "--trained-length: got 0; expected 1 to 16,777,216"),
        ({"length": 10**9}, "--length: got 1000000000; expected 1 to 16,777,216"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        soundness(model(ROPE, 1), **{"length": 64, **options})
    assert message in str(caught.value)


# --------------------------------------------------------------------------------------- in a search

SEARCH: dict[str, Any] = {
    "kind": "search",
    "format": 1,
    "name": "bases",
    "base": "base.yaml",
    "train": "demo",
    "variables": {"theta": {"choice": [1000.0, 1e6]}},
    "set": {"blocks.R.attention.position.rope_theta": "theta"},
    "objectives": ["minimize loss@512"],
    "constraints": ["rope_stability@4096 <= 1"],
    "budget": {"trials": 2},
}


def test_the_metrics_are_the_worst_layers_ratios() -> None:
    assert set(METRICS) == {row.name for row in costs().values() if row.how == "rotation"}
    spec = tiny_spec({"R": attention(None, {"type": "rope", "rope_theta": 1e5}), "S": attention(64, ROPE)})
    layers = [c for row in soundness(spec, 8192) for c in row["criteria"]]
    for metric, names in {
        "rope_aliasing": {"aliasing"},
        "rope_stability": {"stability"},
        "rope_cosine_bound": {"cosine sum"},
        "rope_precision": {"precision", "angle error"},
    }.items():
        expected = max(c["ratio"] for c in layers if c["name"] in names)
        assert (
            cost(f"{metric}@8192", spec, 1)
            == cost(f"{metric}@16x", spec, 512)
            == worst(spec, metric, 8192)
            == expected
            > 0
        )
    assert all(c["sound"] == (c["ratio"] <= 1) for c in layers)


@pytest.mark.parametrize("metric", list(METRICS))
def test_a_model_without_rotary_layers_is_at_zero(metric: str) -> None:
    spec = tiny_spec({"G": attention(None, {"type": "nope"}), "A": attention(8, {"type": "alibi"})})
    assert worst(spec, metric, 1 << 20) == 0


def test_a_harmonic_encoding_is_held_against_its_period_alone() -> None:
    spec = tiny_spec({"S": attention(16, {"type": "p-rope", "period": 32})})
    assert worst(spec, "rope_aliasing", 1 << 20) == 0.5
    assert worst(spec, "rope_stability", 1 << 20) == worst(spec, "rope_cosine_bound", 1 << 20) == 0


def test_a_constraint_of_a_search() -> None:
    base = tiny_spec({"R": attention(None, {"type": "rope", "rope_theta": 10_000.0})})
    space = Space(parse_spec(SEARCH, "search"), base, load_train_spec("demo"))
    broken = space.assign({"theta": 1000.0})
    assert broken.candidate is None and broken.reason == "does not hold: rope_stability@4096 <= 1"
    assert broken.constraints["rope_stability@4096 <= 1"] > 0
    assert space.assign({"theta": 1e6}).candidate is not None


def test_checking_such_a_search_from_the_command_line(tmp_path: Path) -> None:
    """`miniwin check` does without torch; the frequencies need it."""
    base = tiny_spec({"R": attention(None, {"type": "rope", "rope_theta": 10_000.0})}).model_dump(mode="json")
    (tmp_path / "base.yaml").write_text(json.dumps(base), encoding="utf-8")
    fine, impossible = tmp_path / "fine.yaml", tmp_path / "impossible.yaml"
    fine.write_text(json.dumps(SEARCH), encoding="utf-8")
    impossible.write_text(json.dumps({**SEARCH, "constraints": ["rope_aliasing@4096 < 0"]}), encoding="utf-8")
    done = miniwin("check", str(fine), str(impossible))
    assert done.returncode == 2
    assert done.stdout.count("\n") == 1 and "of 2 drawn at random 1 hold the constraints" in done.stdout
    assert "does not hold: rope_aliasing@4096 < 0" in done.stderr and "Traceback" not in done.stderr

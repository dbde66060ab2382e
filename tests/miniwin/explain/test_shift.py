"""The same content, some tokens later: which encodings notice, and by how much."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from helpers import attention, tiny_spec

from miniwin.explain.shift import MOST_SHIFTS, shift_changes, spread
from miniwin.specs import UserError, load_model_spec


def change(window: int | None, position: dict[str, Any], tokens: int | None = None, **fields: Any) -> dict[str, Any]:
    block = attention(window, position, head_dim=32, **fields)
    return shift_changes(tiny_spec({"S": block}), tokens=tokens)[0]


def test_kept_first_tokens_are_left_out() -> None:
    """Moved content is not the row's first any more: with them plain RoPE would seem to change by 29 %."""
    assert change(16, {"type": "rope"}, keep_first=4)["max"] < 1e-12


@pytest.mark.parametrize("window", [16, 32, 64])
def test_published_p_rope_changes_by_a_quarter(window: int) -> None:
    """W = p, scores of order one, W tokens of content: 20 to 31 % rms."""
    found = change(window, {"type": "p-rope", "period": window, "harmonic": False})
    assert found["tokens"] == window and found["shifts"] == [1, window]
    assert 0.20 <= found["mean"] <= 0.31
    assert found["max"] > found["mean"]


@pytest.mark.parametrize(
    "window, position",
    [
        (16, {"type": "p-rope", "period": 16}),
        (16, {"type": "p-rope", "period": 40, "harmonics": "all"}),
        (16, {"type": "p-rope", "periods": [5, 40]}),
        (16, {"type": "p-rope", "periods": [5, 40, 16], "gate": True}),
        (32, {"type": "rope"}),
        (None, {"type": "rope", "partial_rotary_factor": 0.5}),
        (None, {"type": "resonance"}),
        (8, {"type": "alibi"}),
        (None, {"type": "nope"}),
        (None, {"type": "t5"}),
    ],
)
def test_relative_encodings_do_not_change(window: int | None, position: dict[str, Any]) -> None:
    assert change(window, position, tokens=24)["max"] < 1e-12


def test_a_logit_scale_counts_keys_and_so_does_not_count_here() -> None:
    assert change(None, {"type": "nope", "logit_scale": {"type": "log"}}, tokens=24)["max"] == 0


def test_a_shift_by_the_whole_period_changes_nothing() -> None:
    """And one by less does: the published form is periodic, not relative."""
    spec = tiny_spec({"S": attention(8, {"type": "p-rope", "period": 1, "harmonic": False})})
    assert shift_changes(spec)[0]["max"] == 0
    assert change(8, {"type": "p-rope", "period": 9, "harmonic": False})["mean"] > 0.05


def test_the_shifts_of_a_hybrid_are_those_of_its_period() -> None:
    position = {"type": "learned", "num_positions": 8, "then": {"type": "p-rope", "period": 32}}
    found = change(16, position, tokens=16)
    assert found["shifts"] == [1, 32]


def test_the_measure_does_not_depend_on_the_size_of_the_model() -> None:
    found = {row["block"]: row for row in shift_changes(load_model_spec("miniwin-1m"))}
    assert found["S"]["max"] < 1e-12 and found["G"]["max"] == 0


def test_the_same_seed_gives_the_same_figures() -> None:
    spec = tiny_spec({"S": attention(8, {"type": "p-rope", "period": 8, "harmonic": False})})
    assert shift_changes(spec) == shift_changes(spec) != shift_changes(spec, seed=1)


def test_every_shift_or_an_even_choice_of_them() -> None:
    assert spread(5) == [1, 2, 3, 4, 5]
    many = spread(100_000)
    assert many[0] == 1 and many[-1] == 100_000 and len(many) == MOST_SHIFTS
    gaps = [b - a for a, b in pairwise(many)]
    assert max(gaps) - min(gaps) <= 1


def test_a_mistake() -> None:
    with pytest.raises(UserError, match="tokens: got 0; expected at least 1"):
        shift_changes(tiny_spec(), tokens=0)

"""What a confirmation says to a reader who knows no statistics."""

from __future__ import annotations

from typing import Any

import pytest

from miniwin.search.confirm.result import Comparison, Measured, Result
from miniwin.search.confirm.words import plainly


def said(seeds: int = 2, of: str = "documents", name: str = "bits_per_byte@4096", **found: Any) -> str:
    measured = Measured(name=name, objective=True, direction="minimize", draws=8, of=of, **found)  # type: ignore[arg-type]
    comparison = Comparison(first="trial 7", other="baseline", measures=[measured])
    result = Result(
        study="small",
        study_id="1",
        trained=9,
        chosen_by=name,
        top=1,
        split="test",
        seeds=list(range(1, seeds + 1)),
        tokens=32768,
        fingerprint="f",
        variants=[],
        comparisons=[comparison],
    )
    return " ".join(plainly(result, comparison, 256))


def test_a_difference_beyond_chance() -> None:
    assert said(value=-0.25, low=-0.375, high=-0.125, verdict="better") == (
        "Trained anew with 2 other seeds and measured on the test split, trial 7 differs from the baseline by "
        "-0.2500 bits per byte at 4,096 tokens. The 95 % interval goes from -0.3750 to -0.1250: of 20 such intervals "
        "19 hold the difference that more seeds and more text would show. It does not hold 0, so trial 7 is better "
        "than the baseline, and not only by chance."
    )


@pytest.mark.parametrize(
    ("found", "end"),
    [
        (
            {"value": -0.25, "low": -0.625, "high": 0.125, "verdict": "not distinguishable"},
            "It holds 0, so trial 7 and the baseline are not distinguishable; more seeds might tell them apart.",
        ),
        (
            {"value": -0.25, "low": None, "high": None, "verdict": "not distinguishable", "seeds": 1},
            "With one seed each nobody can say how much of that is chance.",
        ),
        (
            {"value": None, "low": None, "high": None, "verdict": "not measured"},
            "Trial 7 and the baseline could not be compared: a training did not come to its end.",
        ),
        (
            {"value": -5.0, "low": -5.0, "high": -5.0, "verdict": "better", "of": "spec", "name": "parameters"},
            "Trial 7 is better than the baseline on the test split: -5 in parameters.",
        ),
    ],
)
def test_what_is_not_known_is_said(found: dict[str, Any], end: str) -> None:
    assert said(**found).endswith(end)
    assert "not only by chance" not in said(**found)

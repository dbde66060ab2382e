"""The page about a distillation, and the plan behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.distill_small.page import FILE, FOLDER, page
from benchmarks.distill_small.plan import ARMS, SEEDS, model, train


def results(better: float) -> dict[str, Any]:
    """Made up: `kl` is better by `better` bits per byte on one text, and by next to nothing on the other."""
    runs = []
    for arm in ARMS:
        for seed in SEEDS:
            gain = better if arm == "kl" else 0.0
            values = {
                "valid": 2.0,
                "test": 2.0 + seed / 10 - gain + seed / 1000 * gain,
                "unseen": 3.0 + seed * gain / 9,
            }
            about = {"status": "complete", "tokens": 1024, "parameters": 10**7, "cpu_seconds": 10.0, "code": "0.1.0"}
            started = {"started": "2026-01-02T03:04:05+00:00"}
            runs.append({"arm": arm, "rate": 2e-3, "seed": seed, "bits_per_byte": values, **about, **started})
    return {
        "machine": {"cpu": "a processor", "cores": 2, "threads": 1, "torch": "2"},
        "teacher": {"sha256": "0" * 64, "bits_per_byte": {"valid": 1.0, "test": 1.0, "unseen": 1.0}},
        "measured": 100,
        "rates": dict.fromkeys(ARMS, 2e-3),
        "runs": runs,
    }


def test_the_page_says_what_can_be_told_apart() -> None:
    shown = page(results(0.1))
    ends, novel = (line for line in shown.splitlines() if "| kl is " in line)
    assert "kl is better" in ends and "-0.09" in ends
    assert "kl is not distinguishable" in novel


def test_both_arms_differ_in_the_teacher_only() -> None:
    one, other = (train(arm, 2e-3, 1, Path("t"), Path("c"), Path("s")).model_dump(mode="json") for arm in ARMS)
    assert other.pop("distill")["loss"] == "kl"
    assert {**one, "name": ""} == {**other, "name": ""}
    assert 9.5e6 < model().parameters() < 10.5e6


@pytest.mark.skipif(not FILE.is_file(), reason="no results are committed")
def test_the_committed_page_is_that_of_the_committed_results() -> None:
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == page(json.loads(FILE.read_text(encoding="utf-8")))

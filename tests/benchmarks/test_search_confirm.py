"""Simulated confirmations: the truth is held where the simulation is as the interval thinks, and missed where not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_grid import foretell, space, table

from benchmarks.search_confirm.documents import FORMAT, Documents, load
from benchmarks.search_confirm.page import page
from benchmarks.search_confirm.simulation import confirmations, kept
from benchmarks.search_regret.cases import QUESTIONS
from benchmarks.search_regret.problem import Problem
from benchmarks.search_regret.truth import Truth, truth
from miniwin.specs import UserError


def problem() -> tuple[Problem, Truth]:
    made = Problem(table(foretell, noise=0.02), space(), QUESTIONS[0].parsed)
    return made, truth(made)


def documents(of_document: float = 0.02, of_both: float = 0.01) -> Documents:
    rng = np.random.default_rng(1)
    units = rng.integers(500, 2000, 30).astype(float)
    losses = 1.5 + rng.normal(0, of_document, (3, 1, 30)) + rng.normal(0, of_both, (3, 3, 30))
    return Documents(units, losses * units, {"study": "made-up", "length": 2048, "draws": "documents"})


def test_the_interval_holds_the_truth_and_the_search_alone_flatters() -> None:
    found = kept(confirmations(*problem(), documents(), 3, 12, 1500))
    assert 0.92 <= found.held.value <= 0.98  # seeds and text matter alike here, where it is a little too narrow
    assert found.wrong.value < 0.03
    assert found.bias[0] < -0.005 and abs(found.bias[1]) < 0.002


def test_a_simulation_with_more_noise_than_an_interval_sees_would_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interval over documents alone: seeds matter here, so it must be seen to fail."""
    from benchmarks.search_confirm import simulation
    from miniwin.evaluation import intervals

    monkeypatch.setattr(simulation, "loss_difference", lambda y, _, x: intervals.loss_difference(y.mean(0), 0 * x, x))
    found = kept(confirmations(*problem(), documents(0.001, 0.001), 3, 12, 100))
    assert found.held.value < 0.8


def test_effects_of_documents_are_those_of_the_confirmation() -> None:
    made = documents()
    share = made.units / made.units.sum()
    pairs = made.effects()
    assert len(pairs) == 3
    for (of_document, rest), (first, second) in zip(pairs, ((0, 1), (0, 2), (1, 2)), strict=True):
        assert of_document @ share == pytest.approx(0, abs=1e-12)
        assert rest @ share == pytest.approx(np.zeros(3), abs=1e-12)
        difference = (made.nats[first] - made.nats[second]) / made.units
        whole = difference.mean(0) - difference.mean(0) @ share
        assert of_document == pytest.approx(whole)
        assert 0.7 < rest.std() / (0.01 * 2**0.5) < 1.3  # of 30 documents


def test_the_page_has_a_line_for_each_number_of_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.search_confirm.page.COUNT", 20)
    lines = [line for line in page(problem()[0], documents()).splitlines() if line.startswith("| ")]
    assert [line.split("|")[1:3] for line in lines[1:4]] == [[" 12 ", " 2 "], [" 12 ", " 3 "], [" 12 ", " 5 "]]


def test_the_page_says_what_the_confirmation_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.search_confirm.page.COUNT", 5)
    real = load()
    text = page(problem()[0], real)
    for name, layout, variables, *values in real.of["confirmed"]["variants"]:
        assert f"| {name} | {layout} | {variables} | {' | '.join(values)} |" in text
    assert "--set budget.tokens_per_trial=1e6" in text
    assert all(f"- {verdict}" in text for verdict in real.of["confirmed"]["verdicts"])


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "documents.json"
    with pytest.raises(UserError, match="there is no such file"):
        load(path)
    made = documents()
    good = {"format": FORMAT, **made.of, "units": made.units.tolist(), "nats": made.nats.tolist()}
    path.write_text(json.dumps(good))
    assert np.array_equal(load(path).nats, replace(made, of={}).nats)
    for broken in ({**good, "units": [1.0]}, {**good, "format": 0}, {**good, "nats": "x"}, {"format": FORMAT}):
        path.write_text(json.dumps(broken))
        with pytest.raises(UserError, match="is damaged"):
            load(path)

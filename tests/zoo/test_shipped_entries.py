"""The models that come with the package: whole, as good as their cards say they must be, and small enough to ship."""

from __future__ import annotations

import json

import pytest

import miniwin
from miniwin.specs import load_model_spec, shipped_specs
from miniwin.zoo import Entry, built_in_zoo, list_entries, verify
from miniwin.zoo.card_values import trained_tasks
from miniwin.zoo.store import Store

ENTRIES = Store(built_in_zoo(), "built-in").entries()


def some(entries: list[Entry]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", entries, ids=lambda entry: entry.ref)


TASKS_ALONE = [entry for entry in ENTRIES if trained_tasks(entry.provenance)]
each, of_tasks = some(ENTRIES), some(TASKS_ALONE)
of_text = some([entry for entry in ENTRIES if entry not in TASKS_ALONE])


def test_there_is_one_and_all_together_stay_under_20_megabytes() -> None:
    assert ENTRIES
    assert sum(entry.size for entry in ENTRIES) < 20e6


@each
def test_its_files_and_its_reference_logits_hold(entry: Entry) -> None:
    assert verify(entry) == []


@of_text
def test_it_is_no_worse_at_16_times_its_training_length(entry: Entry) -> None:
    trained = entry.provenance["run"]["train"]["seq_len"]
    bits = {int(length): value for length, value in entry.metrics["bits_per_byte"].items()}
    assert bits[16 * trained] <= bits[trained]


@of_tasks
def test_it_answers_beyond_its_training_length(entry: Entry) -> None:
    """Every task that it was trained on, at 16 and 64 times the length: the bars of the claims for the worst seed."""
    found, known = entry.suite, entry.provenance
    assert found is not None and found.spec["split"] == "test" and entry.size <= 1e6
    for times, bar in ((16, 0.97), (64, 0.95)):
        asked = [row for row in found.rows if row.times == times and row.unit == "share"]
        assert [row.setting["task"] for row in asked] == [task.model_dump(mode="json") for task in trained_tasks(known)]
        for row in asked:
            assert row.value is not None and row.value >= bar and row.n >= 64
            assert row.low is not None and row.chance is not None and row.low > max(row.chance, row.blind or 0)


@of_tasks
def test_it_answers_as_its_card_shows(entry: Entry) -> None:
    line = next(line for line in entry.card.splitlines() if line.startswith("prompt = "))
    prompt = json.loads(line.removeprefix("prompt = "))
    answer = miniwin.load(entry.ref).generate(prompt, max_new_tokens=1, temperature=0.0)
    assert (prompt + answer).strip("\n") in entry.card


@each
def test_it_says_which_code_and_data_it_comes_from(entry: Entry) -> None:
    run = entry.provenance["run"]
    assert run["status"] == "complete" and run["data"]["fingerprint"]
    assert "+g" in run["code"] and not run["code"].endswith(".dirty")
    assert "/" not in json.dumps({k: v for k, v in entry.metrics.items() if k == "model"})
    assert entry.suite is None or "/" not in entry.suite.model.ref


@of_text
def test_it_says_which_search_it_comes_from(entry: Entry) -> None:
    known = entry.provenance
    assert known["study"] and isinstance(known["trial"], int)
    assert known["run"]["data"]["fingerprint"] == known["data_fingerprint"]


@each
def test_a_shipped_spec_of_the_same_name_is_the_same_architecture(entry: Entry) -> None:
    if entry.name in shipped_specs("model"):
        assert load_model_spec(entry.name).hash == entry.spec.hash


@each
def test_the_index_lists_it(entry: Entry) -> None:
    index = json.loads((built_in_zoo().parent / "index.json").read_text(encoding="utf-8"))
    assert (entry.name, str(entry.version), entry.digest) in {
        (release["name"], release["version"], release["digest"]) for release in index["releases"]
    }


def test_it_generates_code() -> None:
    model = miniwin.load("miniwin-1m@1.0.0")
    text = model.generate("import os\nimport sys\n\n\ndef ", max_new_tokens=200, temperature=0.0)
    assert any(word in text for word in ("self", "return", "def"))
    assert "miniwin-1m" in {entry.name for entry in list_entries()}

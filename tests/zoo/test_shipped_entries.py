"""The models that come with the package: whole, as good as their cards say they must be, and small enough to ship."""

from __future__ import annotations

import json

import pytest

import miniwin
from miniwin.specs import load_model_spec, shipped_specs
from miniwin.zoo import Entry, built_in_zoo, list_entries, verify
from miniwin.zoo.store import Store

ENTRIES = Store(built_in_zoo(), "built-in").entries()

each = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.ref)


def test_there_is_one_and_all_together_stay_under_20_megabytes() -> None:
    assert ENTRIES
    assert sum(entry.size for entry in ENTRIES) < 20e6


@each
def test_its_files_and_its_reference_logits_hold(entry: Entry) -> None:
    assert verify(entry) == []


@each
def test_it_is_no_worse_at_16_times_its_training_length(entry: Entry) -> None:
    trained = entry.provenance["run"]["train"]["seq_len"]
    bits = {int(length): value for length, value in entry.metrics["bits_per_byte"].items()}
    assert bits[16 * trained] <= bits[trained]


@each
def test_it_says_which_search_and_which_code_it_comes_from(entry: Entry) -> None:
    known = entry.provenance
    assert known["study"] and isinstance(known["trial"], int) and known["run"]["status"] == "complete"
    assert "+g" in known["run"]["code"] and not known["run"]["code"].endswith(".dirty")
    assert known["run"]["data"]["fingerprint"] == known["data_fingerprint"]
    assert "/" not in json.dumps({k: v for k, v in entry.metrics.items() if k == "model"})


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

"""Dealing lengths out to passes: counts that are formulas, equal tokens in every pass, whole batches of one length."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import tiny_model, tiny_train, write_text

from miniwin.data import batch_at, loader
from miniwin.data.passes import Passes
from miniwin.data.shares import counts, dealt
from miniwin.runs import read_metrics
from miniwin.specs import TrainSpec, UserError
from miniwin.training.launch import train


def test_counts_are_those_of_dealing_one_after_the_other() -> None:
    rng = random.Random(0)
    for _ in range(50):
        weights = [rng.choice([0.7, 0.1, 1, 3, rng.random() + 1e-3]) for _ in range(rng.randint(1, 6))]
        so_far = [0] * len(weights)
        for number in range(200):
            assert counts(number, weights) == tuple(so_far)
            place, before = dealt(number, weights)
            assert before == so_far[place]
            so_far[place] += 1


def test_counts_stay_close_to_the_weights() -> None:
    rng = random.Random(1)
    for _ in range(100):
        weights = [rng.random() + 0.01 for _ in range(rng.randint(2, 8))]
        for number in (1, 7, 100, 12345, 10**12):
            shares = [number * weight / sum(weights) for weight in weights]
            # Each split in two is off by at most a half; what is left over is passed on.
            both = zip(counts(number, weights), shares, strict=True)
            assert all(abs(have - want) <= 0.5 * len(weights) + 1e-3 for have, want in both)
            assert sum(counts(number, weights)) == number


def test_weights_are_the_decimals_that_were_written() -> None:
    assert counts(10, [0.7, 0.3]) == counts(10, [7, 3]) == counts(10, [70.0, 30.0]) == (7, 3)
    assert [dealt(number, [1, 3])[0] for number in range(8)] == [1, 0, 1, 1, 1, 0, 1, 1]


def test_each_pass_has_one_length_and_all_have_equal_tokens() -> None:
    split = np.arange(5000)
    settings: dict[str, Any] = {"batch_size": 2, "seq_len": (16, 64), "weights": (1.0, 3.0), "seed": 3}
    batches = list(loader(split, start_step=0, num_steps=12, **settings))
    assert [tuple(inputs.shape) for inputs, _ in batches[:4]] == [(2, 64), (8, 16), (2, 64), (2, 64)]
    # The passes of one length are those of a run of that length alone.
    for length, rows in ((16, 8), (64, 2)):
        own = [batch for batch in batches if batch[0].shape[1] == length]
        for step, (inputs, targets) in enumerate(own):
            alone = batch_at(split, step, batch_size=rows, seq_len=length, seed=3)
            assert torch.equal(inputs, alone[0]) and torch.equal(targets, alone[1])
    later = list(loader(split, start_step=7, num_steps=5, workers=1, **settings))
    assert all(torch.equal(one[0], other[0]) for one, other in zip(later, batches[7:], strict=True))
    assert Passes((64,), (1.0,), 2)[9] == (18, 2, 64)


def test_lengths_in_a_spec() -> None:
    spec = tiny_train(seq_len=[16, 64], seq_len_weights=[1, 3], gradient_accumulation=2)
    assert spec.longest == 64 and spec.tokens_per_step == 64 * 4 * 2
    assert spec.model_dump(mode="json")["seq_len"] == [16, 64]
    assert TrainSpec.model_validate(spec.model_dump(mode="json")) == spec
    assert hash(spec) == hash(tiny_train(seq_len=[16, 64], seq_len_weights=[1, 3], gradient_accumulation=2))
    plain = tiny_train(seq_len=64).model_dump(mode="json")
    assert plain["seq_len"] == 64 and "seq_len_weights" not in plain


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seq_len": [64]}, r"seq_len: got \[64\]; expected one number, or a list of two or more different lengths"),
        ({"seq_len": [64, 64]}, r"got \[64, 64\]; expected one number, or a list of two or more different"),
        (
            {"seq_len": [64, 48]},
            "= 256 tokens, which 48 does not divide; expected lengths that divide it, such as 8, 16, 32,",
        ),
        ({"seq_len_weights": [1, 2]}, "seq_len_weights: seq_len is 32, one length; expected weights with several"),
        ({"seq_len": [32, 64], "seq_len_weights": [1]}, "seq_len_weights: got 1 weights for 2 lengths"),
        ({"seq_len": [32, 64], "seq_len_weights": [1, 0]}, "seq_len_weights.1: got 0; expected more than 0"),
        ({"seq_len": "long"}, "seq_len: got 'long'; expected a whole number"),
    ],
)
def test_lengths_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny_train(**changes)


def test_a_run_of_several_lengths_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)
    spec = tiny_train(seq_len=[16, 32], seq_len_weights=[2, 1], gradient_accumulation=3, batch_size=2)
    options: dict[str, Any] = {"progress": False, "tracking": "off", "device": "cpu"}
    whole = train(tiny_model(), spec, out="whole", **options)
    assert whole.tokens == whole.steps * 192 and whole.steps == 20
    for tokens in (200, 1000):
        train(tiny_model(), spec, out="pieces", stop_after_tokens=tokens, workers=1, **options)
    train(tiny_model(), spec, out="pieces", **options)
    assert Path("whole/model.safetensors").read_bytes() == Path("pieces/model.safetensors").read_bytes()
    lines = [[{**line, "tokens_per_second": 0} for line in read_metrics(run)] for run in ("whole", "pieces")]
    assert lines[0] == lines[1]

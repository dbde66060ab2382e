"""`source: examples`: rows drawn from a task, never twice, the same in any order of asking; and their refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from tiny import run_cli
from tiny_runs import tiny_model, tiny_train

from miniwin.data import batch_at, prepare
from miniwin.evaluation import evaluate
from miniwin.evaluation.tasks import draw
from miniwin.loading import load
from miniwin.runs import read_run
from miniwin.specs import UserError
from miniwin.specs.data import DataSpec, ExamplesData
from miniwin.tokenizer import ByteTokenizer
from miniwin.training.launch import train

BYTE = ByteTokenizer()
LAST_WRITE = {"source": "examples", "task": {"type": "last-write", "num_keys": 2, "writes": 3}}


def examples(**changes: Any) -> ExamplesData:
    spec = TypeAdapter(DataSpec).validate_python({**LAST_WRITE, **changes})
    assert isinstance(spec, ExamplesData)
    return spec


def test_a_row_is_an_example_and_counts_its_answers() -> None:
    spec = examples()
    inputs, targets = batch_at(prepare(spec, BYTE).rows, 5, batch_size=3, seq_len=64, seed=7)
    assert inputs.shape == targets.shape == (3, 64)
    for row in range(3):
        example = draw(spec.parsed_task, 65, seed=7, index=15 + row, split="train")
        text = np.frombuffer(example.text, dtype=np.uint8)
        assert inputs[row].tolist() == text[:-1].tolist()
        counted = [place - 1 for start, end in example.answers for place in range(start, end)]
        assert torch.nonzero(targets[row] != -100)[:, 0].tolist() == counted
        assert targets[row][counted].tolist() == text[1:][counted].tolist()


def test_loss_all_counts_every_byte() -> None:
    some, every = prepare(examples(), BYTE), prepare(examples(loss="all"), BYTE)
    inputs, targets = batch_at(every.rows, 0, batch_size=2, seq_len=64, seed=0)
    assert torch.equal(inputs, batch_at(some.rows, 0, batch_size=2, seq_len=64, seed=0)[0])
    assert torch.equal(targets[:, :-1], inputs[:, 1:])


def test_no_row_comes_twice_and_seeds_give_others() -> None:
    def rows(of_run: int, **changes: Any) -> list[bytes]:
        made = prepare(examples(**changes), BYTE).rows.rows(0, 300, 64, of_run)
        return [inputs.tobytes() for inputs, _ in made]

    assert rows(0) == rows(0)
    everything = [*rows(0), *rows(1), *rows(0, seed=1), *rows(1, seed=1)]
    assert len(set(everything)) == 1200


def test_another_tokenizer_has_one_token_a_character() -> None:
    class Shifted(ByteTokenizer):
        name = "shifted"

        def encode(self, text: str) -> list[int]:
            return [byte + 7 for byte in text.encode()]

        def decode(self, ids: object) -> str:
            return bytes(one - 7 for one in ids).decode()  # type: ignore[attr-defined]

    settings = {"batch_size": 2, "seq_len": 64, "seed": 0}
    inputs, targets = batch_at(prepare(examples(), Shifted()).rows, 0, **settings)  # type: ignore[arg-type]
    plain, wanted = batch_at(prepare(examples(), BYTE).rows, 0, **settings)  # type: ignore[arg-type]
    assert torch.equal(inputs, plain + 7)
    assert torch.equal(targets, torch.where(wanted == -100, wanted, wanted + 7))


def test_the_fingerprint_is_of_task_seed_loss_and_tokenizer() -> None:
    other = [
        examples(seed=1),
        examples(loss="all"),
        examples(task={"type": "last-write", "num_keys": 3, "writes": 3}),
        examples(task={"type": "recall"}),
    ]
    prints = [prepare(spec, BYTE).fingerprint for spec in (examples(), *other)]
    assert len(set(prints)) == 5 and prints[0] == prepare(examples(), BYTE).fingerprint


@pytest.mark.parametrize("task", ["last-write", "recall", "which-first"])
def test_every_run_on_examples_is_a_run(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained without a file of text; evaluated where text is named; its own text is not there, and that is said."""
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    spec = tiny_train(data={"source": "examples", "task": {"type": task}}, seq_len=200, tokens=3 * 4 * 200)
    options: dict[str, Any] = {"progress": False, "tracking": "off", "device": "cpu"}
    train(tiny_model(), spec, out=tmp_path / "pieces", stop_after_tokens=800, workers=1, **options)
    result = train(tiny_model(), spec, out=tmp_path / "pieces", **options)
    whole = train(tiny_model(), spec, out=tmp_path / "whole", **options)
    assert result.status == whole.status == "complete"
    weights = "model.safetensors"
    assert (tmp_path / "pieces" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
    assert not (tmp_path / "cache" / "data").exists()
    assert read_run(tmp_path / "whole")["data"]["task"]["type"] == task
    if task != "recall":
        return
    code, _, said = run_cli("eval", str(tmp_path / "whole"))
    assert code == 2 and "source examples has no text to measure bits per byte on; name text with --data" in said
    model = load(tmp_path / "whole")
    metrics = evaluate(model, prepare(spec.data, BYTE), lengths=[200], speed=False)
    assert metrics.bits_per_byte == metrics.by_position == {} and set(metrics.recall) == {200}


def test_a_length_without_room_is_refused_before_anything_starts(tmp_path: Path) -> None:
    message = "task last-write: an example takes at least 35 bytes, so seq_len has to be at least 34; got 32"
    with pytest.raises(UserError, match=message):
        train(tiny_model(), tiny_train(data=LAST_WRITE), out=tmp_path / "run", tracking="off", device="cpu")
    assert not (tmp_path / "run").exists()
    head = "kind: train\nformat: 1\nname: t\ntokens: 1e5\nseq_len: [32, 64]\n"
    (tmp_path / "t.yaml").write_text(head + "data:\n  source: examples\n  task: {type: last-write}\n")
    code, _, said = run_cli("check", str(tmp_path / "t.yaml"))
    assert code == 2 and f"t.yaml:8:9: data.task: {message}" in said

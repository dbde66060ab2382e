"""What a suite cannot measure: left out with a reason where the suite says so, else refused before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from suites import TRAINED, corpus, measure, model, small

from miniwin.evaluation.suite.run import run_suite
from miniwin.specs import UserError


def test_what_has_no_room_is_left_out_with_a_reason(tmp_path: Path) -> None:
    wide = {"type": "recall", "num_pairs": 20}
    suite = small(no_room="skip", tasks=[{"task": wide}], lengths=["1x", "4x", "16x"], speed=None)
    found = measure(suite, out=tmp_path / "out")
    assert found["recall@32"].value is None and found["recall@32"].n == 0
    assert found["recall@32"].note.startswith("task recall: an example takes at least 120 bytes, and length is 32")
    assert found["recall@128"].value is not None
    left_out = found["bits_per_byte@512"]
    assert left_out.value is None
    assert left_out.note.startswith("no document of the valid split has 513 tokens, and the longest has 300; choose")
    assert found["bits_per_byte@128"].n == 3  # on the tokens of the longest length that fits


def test_lengths_that_too_few_documents_have_are_left_out(tmp_path: Path) -> None:
    suite = small(no_room="skip", tasks=[], speed=None, shift=None, lengths=[32, 280], loss={"documents": 4})
    found = measure(suite, out=tmp_path / "out")
    assert found["bits_per_byte@280"].note.startswith("only 2 documents of the valid split have 281 tokens, too few")
    assert found["bits_per_byte@32"].n == 4
    alone = measure(
        small(tasks=[], speed=None, shift=None, lengths=[32, 280], loss={"documents": 1}), out=tmp_path / "1"
    )
    assert alone["bits_per_byte@280"].n == 1 and alone["bits_per_byte@280"].low is None


def test_what_has_no_room_is_refused_at_its_place(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "kind: suite\nformat: 1\nname: mine\nlengths: [1x, 99999999]\ntasks:\n"
        "  - {task: {type: recall}, lengths: [1x, 4x]}\nloss: {}\n"
    )
    with pytest.raises(UserError) as caught:
        run_suite(model(), path, corpus(), trained_length=TRAINED, out=tmp_path / "out")
    assert str(caught.value).splitlines() == [
        f"{path}:4:15: lengths.1: no document of the valid split has 100,000,000 tokens, and the longest has 300; "
        "choose shorter lengths, or name longer text with --data (data= in Python)",
        f"{path}:6:38: tasks.0.lengths.0: task recall: an example takes at least 100 bytes, and length is 32; make the "
        "length at least 100, or the example smaller by the task's fields",
    ]
    assert not (tmp_path / "out").exists()


def test_a_multiple_of_an_unknown_training_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"lengths\.0: 1x is a multiple of .* not known here; give it with --trained-length"
    ):
        run_suite(model(), small(), corpus(), out=tmp_path / "out")
    with pytest.raises(UserError, match="trained_length: expected a number of tokens from 1"):
        run_suite(model(), small(), corpus(), trained_length=0, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (
            [{"task": {"type": "copy"}, "form": "words"}],
            "task copy has no form in words; write form: bytes",
        ),
        (
            [{"task": {"type": "recall"}, "form": "words"}],
            "tiny has no tokenizer, and task recall is asked in words; write form: bytes, or use a model with a",
        ),
    ],
)
def test_a_form_that_a_model_cannot_be_asked_in_is_refused(tmp_path: Path, tasks: Any, message: str) -> None:
    tested = model()
    tested.tokenizer = None
    with pytest.raises(UserError, match=message):
        run_suite(tested, small(tasks=tasks, loss=None, shift=None), trained_length=512, out=tmp_path / "out")

"""Associative recall: examples are what they claim to be, and a perfect memory answers every query."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from miniwin.data import associative_recall
from miniwin.data.tasks import character_ids, recall_documents
from miniwin.specs import UserError
from miniwin.tokenizer import ByteTokenizer


def text_of(ids: torch.Tensor) -> str:
    return bytes(ids.tolist()).decode("ascii")


@pytest.mark.parametrize(
    ("length", "num_pairs", "num_queries"), [(10, 1, 1), (160, 16, 16), (1000, 7, 3), (6760, 676, 676)]
)
def test_every_query_is_answered_by_the_context_alone(length: int, num_pairs: int, num_queries: int) -> None:
    ids, positions, answers = associative_recall(length, num_pairs=num_pairs, num_queries=num_queries, seed=3, batch=4)
    assert ids.shape == (4, length) and ids.dtype == torch.int64
    assert positions.shape == answers.shape == (4, num_queries)
    assert positions.dtype == answers.dtype == torch.int64
    for row in range(4):
        text = text_of(ids[row])
        context = text[: length - 5 * num_queries]
        pairs = re.findall(r"\n([a-z][a-z])=([A-Z])", context)
        assert len(pairs) == len(dict(pairs)) == num_pairs == context.count("=")
        asked = [text[place - 2 : place] for place in positions[row].tolist()]
        assert len(set(asked)) == num_queries
        assert [dict(pairs)[key] for key in asked] == [chr(answer) for answer in answers[row].tolist()]
        assert torch.equal(ids[row, positions[row] + 1], answers[row])
        assert all(text[place] == "=" for place in positions[row].tolist())


def test_pairs_lie_anywhere() -> None:
    ids, _, _ = associative_recall(400, num_pairs=2, seed=0, batch=200)
    places = np.array([match.start() for row in ids for match in list(re.finditer("=", text_of(row)))[:2]])
    # Uniform over a context of 390: every tenth of it is hit, and no tenth by more than a quarter of all.
    counts = np.histogram(places, bins=10, range=(0, 390))[0]
    assert counts.min() > 0 and counts.max() < len(places) / 4


def test_the_seed_and_the_row_decide() -> None:
    once, again = (associative_recall(200, seed=1, batch=3)[0] for _ in range(2))
    assert torch.equal(once, again)
    assert torch.equal(once[:2], associative_recall(200, seed=1, batch=2)[0])
    assert not torch.equal(once[0], once[1])
    assert not torch.equal(once, associative_recall(200, seed=2, batch=3)[0])


def test_documents_to_train_on_are_not_those_of_valid_or_of_the_evaluation() -> None:
    def some(split: str) -> set[str]:
        examples = recall_documents(100, 4, 0, split)
        return {next(examples) for _ in range(5)}

    evaluation = {text_of(row) for row in associative_recall(100, num_pairs=4, seed=0, batch=5)[0]}
    assert len(some("train") | some("valid") | evaluation) == 15
    assert some("train") == some("train")
    assert all(len(one) == 100 for one in some("train"))


def test_ids_of_another_tokenizer() -> None:
    class Shifted(ByteTokenizer):
        name = "shifted"

        def encode(self, text: str) -> list[int]:
            return [byte + 7 for byte in text.encode()]

        def decode(self, ids: object) -> str:
            return bytes(one - 7 for one in ids).decode()  # type: ignore[attr-defined]

    ids, positions, answers = associative_recall(100, num_pairs=4, seed=0, tokenizer=Shifted())
    plain, same_positions, same_answers = associative_recall(100, num_pairs=4, seed=0)
    assert torch.equal(ids, plain + 7) and torch.equal(answers, same_answers + 7)
    assert torch.equal(positions, same_positions)


def test_a_tokenizer_without_the_characters_is_refused() -> None:
    class Words(ByteTokenizer):
        name = "words"

        def encode(self, text: str) -> list[int]:
            return [1, 2]

    with pytest.raises(
        UserError, match=r"the tokenizer words has no single token for the character '\\n', which the task"
    ):
        character_ids(Words())


@pytest.mark.parametrize(
    ("length", "settings", "message"),
    [
        (
            100,
            {},
            "16 pairs and 16 queries take 160 bytes, and length is 100; make length at least 160 or",
        ),
        (100, {"num_pairs": 0}, "got num_pairs 0; expected 1 to 676"),
        (100000, {"num_pairs": 677}, "got num_pairs 677; expected 1 to 676"),
        (100, {"num_pairs": 4, "num_queries": 5}, r"got num_queries 5; expected 1 to num_pairs \(4\)"),
    ],
)
def test_impossible_examples(length: int, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        associative_recall(length, seed=0, **settings)

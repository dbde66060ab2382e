"""Likelihoods of continuations: those of one plain pass over each text, whatever stands beside it, and read once."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import tiny
import torch
from likelihoods import confident, naive

from miniwin import build
from miniwin.evaluation.continuations import Likelihood, Pair, score_continuations
from miniwin.evaluation.streamed_loss import sequence_loss
from miniwin.language_model import LanguageModel
from miniwin.specs import UserError


@torch.no_grad()
def greedy_ids(model: LanguageModel, context: list[int], count: int) -> list[int]:
    ids = list(context)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(context) :]


def drawn_pairs(model: LanguageModel) -> list[Pair]:
    """Of many lengths. Some continuations are the greedy ones, some share their texts, and some are near to greedy."""
    random = Random(0)
    pairs: list[Pair] = []
    for length, asked in ((1, 1), (3, 9), (20, 1), (20, 5), (33, 2), (40, 40), (41, 1)):
        context = [random.randrange(256) for _ in range(length)]
        likely = greedy_ids(model, context, asked)
        other = [*likely[:-1], (likely[-1] + 1) % 256]
        first = [(likely[0] + 1) % 256, *likely[1:]]
        pairs += [(context, likely), (context, other), (context, first)]
        pairs += [(context + likely[:-1], likely[-1:])]
    random.shuffle(pairs)
    return pairs


def scores(model: LanguageModel, pairs: list[Pair], **options: Any) -> list[Likelihood]:
    found = dict(one for batch in score_continuations(model, pairs, **options) for one in batch)
    return [found[number] for number in range(len(pairs))]


@pytest.mark.parametrize("rows", [None, 1, 3])
@pytest.mark.parametrize("chunk", [None, 7, 40])
def test_likelihoods_are_those_of_one_pass(rows: int | None, chunk: int | None) -> None:
    model = confident()
    pairs = drawn_pairs(model)
    found = scores(model, pairs, rows=rows, chunk=chunk)
    expected = [naive(model, pair) for pair in pairs]
    assert 0 < sum(one.greedy for one in expected) < len(pairs)
    for one, other in zip(found, expected, strict=True):
        assert one.greedy == other.greedy
        assert one.nats == pytest.approx(other.nats, rel=1e-5, abs=1e-4)


@torch.no_grad()
def test_they_are_the_losses_of_an_evaluation() -> None:
    model = build(tiny.spec())
    ids = torch.randint(256, (1, 300), generator=torch.Generator().manual_seed(1))
    nats = sequence_loss(model.eval(), ids, chunk=64).double()
    (found,) = scores(model, [(ids[0, :1].tolist(), ids[0, 1:].tolist())], chunk=50)
    assert found.nats == pytest.approx(float(nats.sum()), rel=1e-6)
    (found,) = scores(model, [(ids[0, :200].tolist(), ids[0, 200:].tolist())])
    assert found.nats == pytest.approx(float(nats[:, 199:].sum()), rel=1e-6)


def test_a_text_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = build(tiny.spec()), []

    def counted(ids: torch.Tensor, **options: Any) -> Any:
        seen.append(tuple(ids.shape))
        return forward(ids, **options)

    forward = model.decoder.forward
    monkeypatch.setattr(model.decoder, "forward", counted)
    scores(model, [([1, 2, 3], [token]) for token in range(9)] + [([1, 2], [3, 4])])
    assert seen == [(1, 3)]


@pytest.mark.parametrize("ids", [[256, 1], [1, -1]])
def test_an_id_that_the_model_does_not_know(ids: list[int]) -> None:
    with pytest.raises(UserError, match=r"holds the id (256|-1), and tiny knows the ids 0 to 255 only"):
        scores(build(tiny.spec()), [(ids, [1])])

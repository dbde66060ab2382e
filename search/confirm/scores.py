"""What is measured on the test split, kept for each piece of text and each example, so that runs can be paired.

The text is cut into pieces of the longest report length, evenly spaced over the split. At a length L a piece is read in
windows of L. So every length is measured on the same predicted tokens, and every run on the same pieces.

Shapes: D pieces, E examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.writing import write_json
from miniwin.search.objectives import answered, eval_tokens, is_loss, report_lengths, value
from miniwin.search.spec_errors import SpaceError
from miniwin.search.study import Study
from miniwin.specs import ModelSpec, SearchSpec, TrainSpec, UserError
from miniwin.specs.base import Strict
from miniwin.specs.confirmation import ConfirmSpec
from miniwin.specs.data import tasks_in
from miniwin.specs.validation_errors import Problem

if TYPE_CHECKING:
    from miniwin.data import Corpus
    from miniwin.evaluation.task_scores import TaskScore
    from miniwin.language_model import LanguageModel

FILE = "scores.json"
TIMES = 4  # as many tokens as a trial is measured on: a confirmation is the last word
PIECES = 8  # at least, if the split has them
ENOUGH = 8  # documents; with fewer, the pieces of text are what varies

Array = NDArray[np.float64]


class Answers(Strict):
    """Of each example, (E,): how many answers are right, or the nats of all of them; and how many there are."""

    counts: list[float]
    answers: list[float]


class Scores(Strict):
    """documents: which document each piece begins in, (D,). bytes: of the predicted tokens of each piece, (D,).
    nats: by length, (D,) each. answers: of objectives that are tasks. values: of the other objectives."""

    format: Literal[1] = 1
    fingerprint: str
    documents: list[int] = []
    bytes: list[float] = []
    nats: dict[str, list[float]] = {}
    answers: dict[str, Answers] = {}
    values: dict[str, float] = {}


def test_tokens(spec: SearchSpec, asked: ConfirmSpec, train: TrainSpec, corpus: Corpus) -> int:
    """How many tokens of each test text are predicted: whole pieces of the longest length.

    Raises:
        SpaceError: the split has not even one piece, or fewer tokens than were asked for.
    """
    longest = max(report_lengths(spec, train))
    available = min(len(text.ids) - 1 for text in corpus.texts_of(asked.split))
    wanted = asked.tokens or min(max(TIMES * eval_tokens(spec, train), PIECES * longest), available)
    needed = max(wanted, longest)
    if needed > available:
        raise SpaceError(
            [
                Problem(
                    ("confirm", "tokens") if asked.tokens else ("confirm", "split"),
                    f"the test split has {max(available, 0):,} tokens to predict, and {needed:,} are needed (longest "
                    f"length {longest:,}): keep back more (test_fraction), lower confirm.tokens, or report_lengths",
                )
            ]
        )
    return needed // longest * longest


def check_test(spec: SearchSpec, train: TrainSpec, corpus: Corpus) -> None:
    """SpaceError if the text of a confirmation is too short. That there is such a split is seen in the specs."""
    if spec.confirm is not None and corpus.has_text:
        test_tokens(spec, spec.confirm, train, corpus)


def draws_of(scores: Scores) -> tuple[Array, str, Callable[[Sequence[float]], Array]]:
    """What varies in the text: (bytes of each draw (D,), what a draw is, from numbers of pieces to those of draws).

    Pieces that begin in one document are alike, so a document is a draw; with fewer than ENOUGH of them a piece is.
    """
    documents, group = np.unique(scores.documents, return_inverse=True)
    if len(documents) < ENOUGH:
        return np.array(scores.bytes), "pieces", lambda numbers: np.asarray(numbers, np.float64)

    def summed(numbers: Sequence[float]) -> Array:
        return np.bincount(group, weights=np.asarray(numbers), minlength=len(documents)).astype(np.float64)

    return summed(scores.bytes), "documents", summed


NUMBERS: dict[str, Callable[[TaskScore], np.ndarray]] = {
    "task": lambda score: score.right,
    "task nats": lambda score: score.nats,
}


def measure(
    study: Study, asked: ConfirmSpec, spec: ModelSpec, model: LanguageModel, corpus: Corpus
) -> tuple[Scores, dict[int, float], dict[str, float]]:
    """(scores, losses in nats per byte by length, values of the objectives) of a trained model on the test split."""
    train, split = study.space.train, asked.split
    scores = Scores(fingerprint=corpus.fingerprint)
    losses: dict[int, float] = {}
    if corpus.has_text:
        _measure_text(study, asked, model, corpus, scores, losses)
    values: dict[str, float] = {}
    tasks = tasks_in(train.data)
    for objective in study.spec.parsed_objectives:
        name, number = objective.name, NUMBERS.get(objective.row.how)
        if number is not None:
            found = answered(objective, train.longest, spec, model, tasks, split)
            counts, answers = number(found).astype(float), found.answers.astype(float)
            scores.answers[name] = Answers(counts=counts.tolist(), answers=answers.tolist())
            values[name] = float(counts.sum() / answers.sum())
            continue
        values[name] = value(objective, train.longest, spec, model, losses, tasks, study.spec.speeds)
        if not is_loss(objective):
            scores.values[name] = values[name]
    return scores, losses, values


def _measure_text(
    study: Study,
    asked: ConfirmSpec,
    model: LanguageModel,
    corpus: Corpus,
    scores: Scores,
    losses: dict[int, float],
) -> None:
    from miniwin.evaluation.suite.documents import places
    from miniwin.evaluation.suite.losses import document_losses

    assert model.tokenizer is not None and model.tokenizer.separator is not None
    train, lengths = study.space.train, report_lengths(study.spec, study.space.train)
    longest = max(lengths)
    count = test_tokens(study.spec, asked, train, corpus) // longest
    before = 0
    for text in corpus.texts_of(asked.split):
        begin = np.linspace(0, len(text.ids) - 1 - longest, count).astype(int) if count > 1 else np.zeros(1, int)
        starts, _ = places(text.ids, model.tokenizer.separator)
        within = np.searchsorted(starts, begin, side="right") - 1 + before  # of each piece: its document
        before += len(starts) + 1
        pieces = [np.asarray(text.ids[start : start + longest + 1]) for start in begin]
        scores.documents.extend(within.tolist())
        for length in lengths:
            found = document_losses(model, pieces, length)
            # Of a mixture, a text counts by its weight.
            scores.nats.setdefault(str(length), []).extend((text.weight * found.nats.sum(1)).tolist())
            if length == longest:
                scores.bytes.extend((text.weight * found.bytes.sum(1)).tolist())
    for length in lengths:
        losses[length] = math.fsum(scores.nats[str(length)]) / math.fsum(scores.bytes)


def write_scores(folder: Path, scores: Scores) -> None:
    write_json(folder / FILE, scores.model_dump(mode="json"))


def read_scores(folder: Path) -> Scores | None:
    """The scores of a training; None if there are none that can be read."""
    try:
        return Scores.model_validate(read_json(folder / FILE, names=True))
    except (OSError, JSONProblem, ValidationError, UserError):
        return None

"""Evaluating a model: bits per byte by length of context and by position, recall, speed, and cache size.

    bits per byte = sum of -log2 p(token) / sum of the UTF-8 bytes those tokens stand for

Counting per byte makes models with different tokenizers comparable. The numbers of one evaluation are all on
the same text, the beginning of the validation split (see `streamed_loss.py`). A mixture has a number for each part that
is text, and one for all: of a text that has of each part its weight's share of the tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from miniwin.evaluation.progress import EvaluationProgress
from miniwin.evaluation.result import Metrics
from miniwin.evaluation.streamed_loss import PositionLosses, loss_at, mixed, position_losses, sequence_loss, span_of
from miniwin.specs import UserError

if TYPE_CHECKING:
    from miniwin.data import Corpus
    from miniwin.data.corpus import Text
    from miniwin.language_model import LanguageModel
    from miniwin.specs import DataSpec

__all__ = ["LENGTHS", "Metrics", "evaluate", "loss_at", "sequence_loss"]

LENGTHS = (512, 2048, 8192, 16384)
SPLITS = ("valid", "test")
FIRST_BUCKET = 128  # positions 0-128, then doubling
SPEED_LENGTH = 2048


def evaluate(
    model: LanguageModel | str | Path,
    data: DataSpec | Corpus | str | Path | None = None,
    *,
    lengths: Sequence[int] = LENGTHS,
    tokens_per_length: int | None = None,
    chunk: int | None = None,
    recall: bool = True,
    speed: bool = True,
    split: str = "valid",
    progress: bool = False,
) -> Metrics:
    """Measure `model` (a LanguageModel, or anything `miniwin.load` takes) on a validation split.

    Memory is bounded by the activations of one chunk and by the caches, whatever the lengths.

    data: a corpus, a data spec, a train spec's YAML file (its data), or a text file or folder. The validation part is
        used. Default: what the model was trained on; for an imported model and for random weights, the source of the
        Python standard library. A corpus that has no text gives no bits per byte.
    lengths: lengths of context, in tokens.
    tokens_per_length: how many tokens to predict at every length. Default: 65,536, or the longest length if that is
        more.
    chunk: tokens in one forward pass.
    split: `test` measures on the text that the spec of the data keeps back for a test (test_fraction, test_paths).

    Raises:
        UserError: an argument is wrong, or the data cannot be found or is too short for a length.
    """
    from miniwin.evaluation.data import corpus_for
    from miniwin.loading import load

    lengths = _checked(lengths)
    if isinstance(model, str | Path):
        model = load(model)
    corpus = corpus_for(model, data)
    if split not in SPLITS:
        raise UserError(f"split: got {split!r}; expected {' or '.join(SPLITS)}: text that was trained on tests nothing")
    texts = corpus.texts_of(split)
    tokens = span_of(texts, lengths[-1], tokens_per_length) if texts else 0
    by_length: dict[int, PositionLosses] = {}
    by_part: dict[str, dict[int, float]] = {text.name: {} for text in texts} if len(texts) > 1 else {}
    with EvaluationProgress(progress) as bar:
        for length in lengths if texts else ():
            advance = bar.task(f"bits per byte at {length:,}", tokens * len(texts))
            losses = [position_losses(model, text.ids, length, tokens, chunk, advance, text.counted) for text in texts]
            by_length[length] = mixed(losses, texts)
            for name, found in by_part.items():
                at = [text.name for text in texts].index(name)
                found[length] = losses[at].nats_per_byte / math.log(2)
        recalled: dict[int, float] = {}
        if recall:
            from miniwin.evaluation.recall import SHORTEST, recall_at

            for length in lengths:
                if length >= SHORTEST:  # shorter ones have no room for the pairs
                    recalled[length] = recall_at(model, length, chunk=chunk, task=bar.task)
        measured = None
        if speed:
            from miniwin.evaluation.speed import measure_speed

            measured = measure_speed(model, SPEED_LENGTH, task=bar.task)
    dtype = str(model.dtype).removeprefix("torch.")
    return Metrics(
        model=model.ref,
        parameters=model.spec.parameters(),
        data=corpus.describe() | ({} if split == "valid" else {"measured_on": split}) | _of_answers(texts),
        tokens=tokens,
        loss={length: losses.nats_per_byte for length, losses in by_length.items()},
        bits_per_byte={length: losses.nats_per_byte / math.log(2) for length, losses in by_length.items()},
        parts=by_part,
        by_position=_by_position(by_length[lengths[-1]]) if by_length else {},
        recall=recalled,
        cache_bytes={length: model.spec.cache_bytes(length, dtype) for length in lengths},
        prefill_tokens_per_second=None if measured is None else measured.prefill_tokens_per_second,
        decode_tokens_per_second=None if measured is None else measured.decode_tokens_per_second,
        speed_length=None if measured is None else measured.length,
        device=str(model.device),
    )


def _of_answers(texts: Sequence[Text]) -> dict[str, list[str]]:
    """Of which texts only a part counts: the answers of chats."""
    found = [text.name for text in texts if text.counted is not None]
    return {"counted_of": found} if found else {}


def _checked(lengths: Sequence[int]) -> list[int]:
    """Sorted, without repetition."""
    for length in lengths:
        if isinstance(length, bool) or not isinstance(length, int) or length < 1:
            raise UserError(f"lengths: expected whole numbers of at least 1, got {length!r}")
    if not lengths:
        raise UserError("lengths: expected at least one length, got none")
    return sorted(set(lengths))


def _by_position(losses: PositionLosses) -> dict[str, float]:
    """Bits per byte in buckets that double: 0-128, 128-256, 256-512, ... up to the length."""
    length = len(losses.nats)
    buckets: dict[str, float] = {}
    start, end = 0, FIRST_BUCKET
    while start < length:
        end = min(end, length)
        if losses.bytes[start:end].sum() > 0:
            buckets[f"{start}-{end}"] = losses.bits_per_byte(start, end)
        start, end = end, 2 * end
    return buckets

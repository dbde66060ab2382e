"""The figures of the report: what a placement loses on text and questions that the search has not seen.

What varies from draw to draw is the row: its questions and its text are one draw. All placements are measured on the
same rows, so differences are paired. Intervals: miniwin/evaluation/intervals.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from miniwin.evaluation import intervals
from miniwin.evaluation.intervals import Interval
from miniwin.search.adapt.rows import Answer, Row
from miniwin.search.adapt.scoring import PARTS, Score, text_counts

DEPTHS = 5  # bands of depth


def compared(score: Score, original: Score, rows: Sequence[Row]) -> dict[str, Any]:
    """Everything about a placement, each with its difference from the original's: a dictionary for adapt.json."""
    judged = [i for i, row in enumerate(rows) if any(one.judged for one in row.answers)]
    kinds = sorted({one.kind for row in rows for one in row.answers})
    return {
        "bits_per_byte": _text(score, original, rows),
        **({"answers": _answers(score, original, rows, lambda one: one.judged)} if judged else {}),
        "kinds": {kind: _answers(score, original, rows, _of_kind(kind)) for kind in kinds},
        "text_by_part": _parts(score, rows),
        "answers_by_depth": [_answers(score, original, rows, _in_band(band)) for band in range(DEPTHS)],
    }


def text_difference(score: Score, other: Score, rows: Sequence[Row]) -> Interval:
    """Bits per byte of the first minus those of the other."""
    some = [i for i, row in enumerate(rows) if row.bytes]
    mine, theirs = ([sum(scores[i].text) / math.log(2) for i in some] for scores in (score, other))
    return intervals.loss_difference(mine, theirs, [rows[i].bytes for i in some])


def answer_difference(
    score: Score, other: Score, rows: Sequence[Row], wanted: Callable[[Answer], bool] = lambda one: one.judged
) -> Interval | None:
    """Nats a token of the answers of the first minus those of the other; None if there are no such answers."""
    mine, theirs, tokens = _nats(score, rows, wanted), _nats(other, rows, wanted), _tokens(rows, wanted)
    some = tokens > 0
    if not some.any():
        return None
    return intervals.loss_difference(mine[some], theirs[some], tokens[some])


def _text(score: Score, original: Score, rows: Sequence[Row]) -> dict[str, Any]:
    units = sum(row.bytes for row in rows)
    value = sum(sum(one.text) for one in score) / math.log(2) / units
    base = sum(sum(one.text) for one in original) / math.log(2) / units
    return {
        "value": value,
        "original": base,
        "more": value / base - 1,
        "difference": told(text_difference(score, original, rows)),
        "bytes": units,
    }


def _answers(
    score: Score, original: Score, rows: Sequence[Row], wanted: Callable[[Answer], bool]
) -> dict[str, Any] | None:
    tokens = _tokens(rows, wanted)
    some = tokens > 0
    if not some.any():
        return None
    right, base, asked = _right(score, rows, wanted), _right(original, rows, wanted), _asked(rows, wanted)
    difference = answer_difference(score, original, rows, wanted)
    assert difference is not None
    return {
        "questions": int(asked.sum()),
        "nats": float(_nats(score, rows, wanted).sum() / tokens.sum()),
        "original": float(_nats(original, rows, wanted).sum() / tokens.sum()),
        "difference": told(difference),
        "exact": int(right.sum()),
        "exact_original": int(base.sum()),
        "exact_difference": told(intervals.share_difference(right[some], base[some], asked[some])),
    }


def _parts(score: Score, rows: Sequence[Row]) -> list[float | None]:
    """Nats a token of the text in each part of the rows."""
    counts = np.sum([text_counts(row, 1) for row in rows], axis=0)
    nats = np.sum([one.text for one in score], axis=0)
    return [float(nats[i] / counts[i]) if counts[i] else None for i in range(PARTS)]


def _of_kind(kind: str) -> Callable[[Answer], bool]:
    return lambda one: one.kind == kind


def _in_band(band: int) -> Callable[[Answer], bool]:
    return lambda one: one.judged and min(int(one.depth * DEPTHS), DEPTHS - 1) == band


def _nats(score: Score, rows: Sequence[Row], wanted: Callable[[Answer], bool]) -> np.ndarray:
    return np.array(
        [
            sum(nats for nats, one in zip(mine.answers, row.answers, strict=True) if wanted(one))
            for mine, row in zip(score, rows, strict=True)
        ],
        dtype=np.float64,
    )


def _right(score: Score, rows: Sequence[Row], wanted: Callable[[Answer], bool]) -> np.ndarray:
    return np.array(
        [
            sum(right for right, one in zip(mine.right, row.answers, strict=True) if wanted(one))
            for mine, row in zip(score, rows, strict=True)
        ],
        dtype=np.float64,
    )


def _tokens(rows: Sequence[Row], wanted: Callable[[Answer], bool]) -> np.ndarray:
    return np.array([sum(one.stop - one.start for one in row.answers if wanted(one)) for row in rows], dtype=np.float64)


def _asked(rows: Sequence[Row], wanted: Callable[[Answer], bool]) -> np.ndarray:
    return np.array([sum(map(wanted, row.answers)) for row in rows], dtype=np.float64)


def told(interval: Interval) -> dict[str, Any]:
    """An interval for JSON: an end that is not known is null."""
    low, high = (end if math.isfinite(end) else None for end in (interval.low, interval.high))
    return {"value": interval.value, "low": low, "high": high, "n": interval.n}

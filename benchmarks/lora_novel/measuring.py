"""How well a model predicts chapters, and what has changed between two models.

A chapter is one draw: the windows of a chapter are alike. Each window of WINDOW tokens is read by itself, after the one
token before it; the first is read after the separator. So every token of a chapter is predicted, and counts its bytes.
Products are in bfloat16, before and after alike, as they are in training.

    ratio = nats after / nats before, sums over chapters: the share that is left of bits per byte

Its interval is that of a ratio of sums over the same chapters (miniwin/evaluation/intervals.py): a paired one.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

import torch

from miniwin.evaluation.intervals import Interval, loss, loss_difference
from miniwin.evaluation.streamed_loss import sequence_loss
from miniwin.inference import evaluating
from miniwin.language_model import LanguageModel

WINDOW = 512


def nats(model: LanguageModel, texts: Sequence[str]) -> list[float]:
    """The nats of each text, summed over its tokens."""
    tokenizer = model.tokenizer
    assert tokenizer is not None and tokenizer.separator is not None
    found = []
    with evaluating(model), torch.autocast(model.device.type, torch.bfloat16):
        for text in texts:
            ids = torch.tensor([tokenizer.separator, *tokenizer.encode(text)])
            windows = [ids[start : start + WINDOW + 1] for start in range(0, len(ids) - 1, WINDOW)]
            found.append(sum(float(sequence_loss(model, one.unsqueeze(0)).double().sum()) for one in windows))
    return found


def sizes(texts: Sequence[str]) -> list[int]:
    """The bytes of each text."""
    return [len(text.encode()) for text in texts]


def bits(nats: Sequence[float], units: Sequence[int]) -> Interval:
    """Bits per byte."""
    return loss(nats, units).through(lambda value: value / log(2))


def change(before: Sequence[float], after: Sequence[float], units: Sequence[int]) -> tuple[Interval, Interval]:
    """(bits per byte after minus before, the ratio after / before), with paired intervals over chapters."""
    return loss_difference(after, before, units).through(lambda value: value / log(2)), loss(after, before)


def verdict(ratio: Interval, bar: float) -> str:
    """Whether a ratio is at most `bar`, as far as its interval tells."""
    if ratio.high <= bar:
        return "holds"
    return "does not hold" if ratio.low > bar else "not shown: the interval holds the bar"


def record(texts: Sequence[str], before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    """What results.json keeps of a text that was measured twice."""
    rounded = [[round(one, 2) for one in side] for side in (before, after)]
    return {"bytes": sizes(texts), "before": rounded[0], "after": rounded[1]}

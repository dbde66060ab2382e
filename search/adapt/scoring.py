"""What a placement loses: nats of the text and of the answers, row by row.

    damage = text_weight * (text - original's text) + apart

both in nats per token. `apart` is KL(original || placement) over the tokens of answers: how far what is said differs,
over the whole vocabulary. The nats of the right tokens are reported, and they judge where no original says what to keep
(`widen`): there a placement may be better than the original. Answers of harder questions are scored, and do not count.

Shapes: N tokens of a row, V vocabulary, P tokens of its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from miniwin.search.adapt.layers import SharedLayers
from miniwin.search.adapt.plan import Placement
from miniwin.search.adapt.rows import Row

PARTS = 8  # of a row, for loss by position
AT_ONCE = 512  # tokens whose logits are in memory at once


@dataclass(frozen=True)
class RowScore:
    """text: nats of the scored tokens in each part of the row. answers: nats of each answer. right: whether greedy.
    apart: KL of each answer, summed over its tokens; empty where it was not asked for."""

    text: tuple[float, ...]
    answers: tuple[float, ...]
    right: tuple[bool, ...]
    apart: tuple[float, ...] = ()

    def to_list(self) -> list[Any]:
        more = [list(self.apart)] if self.apart else []
        return [list(self.text), list(self.answers), [int(one) for one in self.right], *more]

    @classmethod
    def from_list(cls, data: Sequence[Any]) -> RowScore:
        text, answers, right, *more = data
        apart = tuple(map(float, more[0])) if more else ()
        return cls(tuple(map(float, text)), tuple(map(float, answers)), tuple(map(bool, right)), apart)


Score = tuple[RowScore, ...]  # of all rows


def text_places(row: Row, every: int) -> tuple[int, ...]:
    """The tokens of the text that are scored."""
    return row.text[::every]


def part_of(place: int, row: Row) -> int:
    return min(place * PARTS // len(row.ids), PARTS - 1)


def text_counts(row: Row, every: int) -> list[int]:
    """How many tokens of the text are scored in each part of the row."""
    counts = [0] * PARTS
    for place in text_places(row, every):
        counts[part_of(place, row)] += 1
    return counts


def answer_places(row: Row) -> list[int]:
    return [place for one in row.answers for place in range(one.start, one.stop)]


def original_says(shared: SharedLayers, row: Row) -> Tensor:
    """What the original gives for the tokens of a row's answers: log-probabilities, (P, V)."""
    device = shared.decoder.embed_tokens.weight.device
    places = torch.tensor(answer_places(row), device=device, dtype=torch.long)
    with torch.no_grad():
        h = shared.hidden(shared.plan.original, torch.tensor([row.ids], device=device))[0]
        said: Tensor = shared.decoder.logits(h[places - 1]).log_softmax(-1)
    return said


def score_row(
    shared: SharedLayers,
    placement: Placement,
    row: Row,
    number: int | None,
    every: int,
    original: Tensor | None = None,
) -> RowScore:
    """number: of the row, for states that are kept. every: one of so many tokens of the text is scored. original: what
    `original_says` of the row, to tell how far apart the placement is."""
    device = shared.decoder.embed_tokens.weight.device
    ids = torch.tensor([row.ids], device=device)
    h = shared.hidden(placement, ids, number)[0]  # (N, C)
    text = text_places(row, every)
    places = [*text, *answer_places(row)]
    nats, right = _nats(shared, h, ids[0], places)
    parts = [0.0] * PARTS
    for place, cost in zip(text, nats, strict=False):
        parts[part_of(place, row)] += cost
    at, answers, hits = len(text), [], []
    for one in row.answers:
        stop = at + one.stop - one.start
        answers.append(sum(nats[at:stop]))
        hits.append(all(right[at:stop]))
        at = stop
    return RowScore(
        tuple(parts), tuple(answers), tuple(hits), () if original is None else _apart(shared, h, row, original)
    )


def _apart(shared: SharedLayers, h: Tensor, row: Row, original: Tensor) -> tuple[float, ...]:
    """KL(original || placement) of each answer, summed over its tokens."""
    places = torch.tensor(answer_places(row), device=h.device, dtype=torch.long)
    said = shared.decoder.logits(h[places - 1]).log_softmax(-1)
    each = (original.exp() * (original - said)).sum(-1).double().split([one.stop - one.start for one in row.answers])
    return tuple(float(some.sum()) for some in each)


def _nats(shared: SharedLayers, h: Tensor, ids: Tensor, places: Sequence[int]) -> tuple[list[float], list[bool]]:
    """-log p of the tokens at these places, and whether each was the most probable one."""
    nats: list[float] = []
    right: list[bool] = []
    for start in range(0, len(places), AT_ONCE):
        some = torch.tensor(places[start : start + AT_ONCE], device=h.device)
        logits = shared.decoder.logits(h[some - 1])  # (places, V)
        targets = ids[some]
        nats += F.cross_entropy(logits, targets, reduction="none").double().tolist()
        right += (logits.argmax(-1) == targets).tolist()
    return nats, right


def score_rows(
    shared: SharedLayers,
    placement: Placement,
    rows: Sequence[Row],
    every: int,
    *,
    keep: bool = True,
    advance: Callable[[], object] = lambda: None,
    originals: Sequence[Tensor] | None = None,
) -> Score:
    """keep: rows are those whose states may be kept. originals: what `original_says` of each row. On a CPU a thread
    takes a row, so no thread waits for another."""

    def one(number: int) -> RowScore:
        said = None if originals is None else originals[number]
        with torch.no_grad():  # is of each thread
            found = score_row(shared, placement, rows[number], number if keep else None, every, said)
        advance()
        return found

    threads = torch.get_num_threads()
    workers = min(threads, len(rows))
    if workers < 2 or shared.decoder.embed_tokens.weight.device.type != "cpu":
        return tuple(map(one, range(len(rows))))
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(workers) as pool:
            return tuple(pool.map(one, range(len(rows))))
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Damage:
    """text, answers: nats per token above the original's. exact: the share of answers that greedy decoding gives.
    apart: KL per token of the answers; None where `answers` judge."""

    text: float
    answers: float
    exact: float
    text_weight: float = 1.0
    apart: float | None = None

    @property
    def total(self) -> float:
        return self.text_weight * self.text + (self.answers if self.apart is None else self.apart)


def damage(score: Score, original: Score, rows: Sequence[Row], every: int, text_weight: float) -> Damage:
    tokens = sum(len(text_places(row, every)) for row in rows)
    text = sum(sum(a.text) - sum(b.text) for a, b in zip(score, original, strict=True)) / tokens
    nats, apart, count, right, asked = 0.0, 0.0, 0, 0, 0
    for mine, base, row in zip(score, original, rows, strict=True):
        for number, one in enumerate(row.answers):
            if one.judged:
                nats += mine.answers[number] - base.answers[number]
                apart += mine.apart[number] if mine.apart else 0.0
                count += one.stop - one.start
                right += mine.right[number]
                asked += 1
    judge = apart / max(count, 1) if all(one.apart for one in score) else None
    return Damage(text, nats / max(count, 1), right / max(asked, 1), text_weight, judge)

"""Long documents of a corpus: which there are, and their beginnings.

Shapes: T tokens of a split, S predicted tokens of a document.
"""

from __future__ import annotations

from random import Random

import numpy as np

from miniwin.data import Corpus
from miniwin.evaluation.intervals import FEWEST
from miniwin.evaluation.suite.part import Planned
from miniwin.specs import UserError

OWN_TEST = "loss.data keeps none back; set its test_fraction or test_paths, or take another split"
BLOCK = 1 << 24  # ids that are looked through at once


class Documents:
    """The documents of one split, in the model's tokens. Only their places are in memory."""

    def __init__(self, planned: Planned) -> None:
        suite, corpus, tokenizer = planned.suite, planned.corpus, planned.model.tokenizer
        assert corpus is not None and tokenizer is not None and tokenizer.separator is not None
        self.split = "valid" if suite.loss is None else suite.loss.split
        self.seed = suite.seed
        self.fingerprint = corpus.fingerprint
        self._found: list[tuple[np.ndarray, int, int]] = []  # of each document: its split, its start, its tokens
        for ids in _sides(corpus, self.split):
            starts, sizes = places(ids, tokenizer.separator)
            self._found += [(ids, start, size) for start, size in zip(starts, sizes, strict=True)]

    @classmethod
    def of(cls, planned: Planned) -> Documents | None:
        """The documents of a suite; None, and a problem, if its text has no such split."""
        try:
            return cls(planned)
        except UserError as error:
            loss = planned.suite.loss
            own = loss is not None and loss.data is not None
            planned.problem(("loss", "split"), f"got test, and {OWN_TEST}" if own else str(error))
            return None

    def count(self, tokens: int) -> int:
        """How many documents have so many predicted tokens."""
        return sum(size > tokens for _, _, size in self._found)

    def longest(self, lengths: list[int], wanted: int) -> int | None:
        """The longest of `lengths` that enough documents have for an interval; else the longest that any has."""
        for enough in (min(FEWEST, wanted), 1):
            if able := [length for length in lengths if self.count(length) >= enough]:
                return max(able)
        return None

    def beginnings(self, tokens: int, most: int) -> list[np.ndarray]:
        """The first tokens + 1 ids of at most `most` documents that are as long, drawn by the seed."""
        able = [number for number, (_, _, size) in enumerate(self._found) if size > tokens]
        drawn = sorted(Random(f"documents {self.seed}").sample(able, min(most, len(able))))
        return [ids[start : start + tokens + 1] for ids, start, _ in (self._found[number] for number in drawn)]

    def too_short(self, tokens: int) -> str:
        """Why nothing can be measured at a length."""
        most = max((size for _, _, size in self._found), default=0)
        return (
            f"no document of the {self.split} split has {tokens + 1:,} tokens, and the longest has {most:,}; choose "
            "shorter lengths, or name longer text with --data (data= in Python)"
        )

    def setting(self, count: int, tokens: int) -> dict[str, object]:
        """What says which text was read."""
        about = {"fingerprint": self.fingerprint, "split": self.split, "seed": self.seed}
        return {**about, "documents": count, "tokens": tokens}


def _sides(corpus: Corpus, split: str) -> list[np.ndarray]:
    """The ids of a split; of a mixture, those of each part that is text.

    Raises:
        UserError: the text has no test split.
    """
    if split != "all":
        return [text.ids for text in corpus.texts_of(split)]
    parts = [part for _, _, part in corpus.parts] or [corpus]
    return [ids for part in parts for ids in (part.train, part.valid, part.test) if ids is not None]


def places(ids: np.ndarray, separator: int) -> tuple[list[int], list[int]]:
    """(where each document starts, how many tokens it has). ids: (T,); a separator follows each document."""
    ends: list[int] = []
    for start in range(0, len(ids), BLOCK):
        ends += (np.flatnonzero(np.asarray(ids[start : start + BLOCK]) == separator) + start).tolist()
    starts = [0, *(end + 1 for end in ends[:-1])][: len(ends)]
    return starts, [end - start for start, end in zip(starts, ends, strict=True)]

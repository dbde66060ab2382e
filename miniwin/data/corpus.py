"""A corpus: what a run is trained on, and the text that its loss is measured on, valid and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from miniwin.chat.format import ChatFormat
from miniwin.data.batches import TextRows
from miniwin.data.chat_rows import ChatRows
from miniwin.data.rows import Rows
from miniwin.specs import UserError

NO_TEST = (
    "has no test split; set test_fraction or test_paths in the data of the train spec, and train again: text that was "
    "trained on tests nothing"
)


class Text(NamedTuple):
    """Text to measure on: ids (tokens,). weight: which share of the tokens it stands for; all together make 1.

    counted: (tokens,), 1 for the ids whose loss counts, which are the answers of chats; None where all do.
    """

    name: str
    weight: float
    ids: np.ndarray
    counted: np.ndarray | None = None


@dataclass(frozen=True)
class Corpus:
    """Token ids to train and to validate on, (tokens,) each. The tokenizer's separator follows each document.

    test: text for a last measurement, which neither training nor any choice has seen; None unless the spec asks for it.
    drawn: rows to train on that are no windows of a text, or not only. chat_format: that of its chats. counted: of
    chats, by split, which ids count (see Text). parts: of a mixture, the name, the weight and the corpus of each.
    """

    train: np.ndarray
    valid: np.ndarray
    fingerprint: str
    info: Mapping[str, Any]
    drawn: Rows | None = None
    parts: tuple[tuple[str, float, Corpus], ...] = ()
    test: np.ndarray | None = None
    chat_format: ChatFormat | None = None
    counted: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def rows(self) -> Rows:
        """What a run is trained on."""
        return TextRows(self.train) if self.drawn is None else self.drawn

    @property
    def has_text(self) -> bool:
        """Whether there is text to measure bits per byte on."""
        return bool(self.texts)

    @property
    def texts(self) -> tuple[Text, ...]:
        """The validation text: one, or of a mixture one for each part that is text."""
        return self.texts_of("valid")

    def texts_of(self, split: str) -> tuple[Text, ...]:
        """The text of `valid` or `test`.

        Raises:
            UserError: a text has no test split.
        """
        if self.drawn is None or len(self.valid):
            name = str(self.info.get("source"))
            ids = self.test if split == "test" else self.valid
            if ids is None:
                raise UserError(f"data: {name} {NO_TEST}")
            return (Text(name, 1.0, ids, self.counted.get(split)),)
        found = []
        for place, (name, weight, part) in enumerate(self.parts):
            if part.has_text and split == "test" and part.test is None:
                raise UserError(f"data.parts.{place}: {name} {NO_TEST}")
            found += [text._replace(name=name, weight=weight) for text in part.texts_of(split)]
        whole = sum(text.weight for text in found)
        return tuple(text._replace(weight=text.weight / whole) for text in found)

    @property
    def available(self) -> int:
        """How many tokens of each validation text can be predicted."""
        return min((len(text.ids) - 1 for text in self.texts), default=0)

    def too_long(self, lengths: Sequence[int]) -> dict[str, dict[str, int]]:
        """Of chats, for the lengths of rows that are too short for some: how many are cut, and how many left out."""
        chats = [self] if isinstance(self.drawn, ChatRows) else [part for _, _, part in self.parts]
        found: dict[str, dict[str, int]] = {}
        for rows in (one.drawn for one in chats):
            for length in lengths if isinstance(rows, ChatRows) else ():
                for what, count in rows.too_long(length).items():  # type: ignore[union-attr]
                    of_length = found.setdefault(str(length), {})
                    of_length[what] = of_length.get(what, 0) + count
        return {length: counts for length, counts in found.items() if any(counts.values())}

    def describe(self, lengths: Sequence[int] = ()) -> dict[str, Any]:
        """Plain facts for a run's record: source, files, bytes, tokens and fingerprint first. lengths: of its rows."""
        cut = self.too_long(lengths)
        return {**self.info, **({"too_long": cut} if cut else {}), "fingerprint": self.fingerprint}

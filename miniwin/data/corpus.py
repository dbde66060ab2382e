"""A corpus: what a run is trained on, and the text that its loss is measured on, valid and test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from miniwin.chat.format import ChatFormat
from miniwin.data.batches import TextRows
from miniwin.data.rows import Rows
from miniwin.specs import UserError

NO_TEST = (
    "has no test split; set test_fraction or test_paths in the data of the train spec, and train again: text that was "
    "trained on tests nothing"
)


class Text(NamedTuple):
    """Text to measure on: ids (tokens,). weight: which share of the tokens it stands for; all together make 1."""

    name: str
    weight: float
    ids: np.ndarray


@dataclass(frozen=True)
class Corpus:
    """Token ids to train and to validate on, (tokens,) each. The tokenizer's separator follows each document.

    test: text for a last measurement, which neither training nor any choice has seen; None unless the spec asks for it.
    drawn: rows to train on that are no windows of a text, or not only. chat_format: that of its chats.
    parts: of a mixture, the
    name, the weight and the corpus of each.
    """

    train: np.ndarray
    valid: np.ndarray
    fingerprint: str
    info: Mapping[str, Any]
    drawn: Rows | None = None
    parts: tuple[tuple[str, float, Corpus], ...] = ()
    test: np.ndarray | None = None
    chat_format: ChatFormat | None = None

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
            return (Text(name, 1.0, ids),)
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

    def describe(self) -> dict[str, Any]:
        """Plain facts for a run's record: source, files, bytes, tokens and fingerprint first."""
        return {**self.info, "fingerprint": self.fingerprint}

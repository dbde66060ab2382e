"""One token for each character of a task: a key that is merged with its neighbours could not be found."""

from __future__ import annotations

import numpy as np

from miniwin.specs import UserError
from miniwin.tokenizer.interface import Tokenizer


class Characters:
    """The ids of single ASCII characters. A byte-level model's are the bytes. task: for the message."""

    def __init__(self, tokenizer: Tokenizer | None, task: str) -> None:
        self.tokenizer, self.task = tokenizer, task
        bytewise = tokenizer is None or tokenizer.name == "byte"
        self.table = np.arange(256) if bytewise else np.full(256, -1, dtype=np.int64)  # (256,)

    def ids(self, text: np.ndarray) -> np.ndarray:
        """Characters (..., N) as uint8 -> ids (..., N) int64.

        Raises:
            UserError: the tokenizer has no single token for one of the characters.
        """
        found = self.table[text]
        if found.size and found.min() < 0:
            for code in np.unique(text[found < 0]):
                self.table[code] = self._id(chr(code))
            found = self.table[text]
        return found

    def _id(self, character: str) -> int:
        assert self.tokenizer is not None
        ids = self.tokenizer.encode(character)
        if len(ids) != 1 or self.tokenizer.decode(ids) != character:
            raise UserError(
                f"the tokenizer {self.tokenizer.name} has no single token for the character {character!r}, which "
                f"the task {self.task} is written in; use tokenizer: byte, or one that knows every byte"
            )
        return int(ids[0])

"""What the data, the engine and generation ask of a tokenizer, and the file that it is saved in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from miniwin.files.writing import said_if_unwritable, write_text

FILE = "tokenizer.json"


class Tokenizer(Protocol):
    """Text to token ids and back."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str:
        """Equal for two tokenizers exactly when they give the same ids for every text."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def rows(self) -> int:
        """How many ids a model has to know: `vocab_size` without the special tokens above all other ids."""

    @property
    def separator(self) -> int | None:
        """The id between documents; None where the vocabulary has none."""

    @property
    def prefix(self) -> tuple[int, ...]:
        """The ids in front of every text that the model reads; empty except for an imported model."""

    @property
    def special(self) -> tuple[str, ...]:
        """The special tokens: a text that is marked up with them has them as single tokens."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Special tokens written in it are text."""

    def encode_prompt(self, text: str, begins: bool = True) -> list[int]:
        """The ids of a prompt: those of `encode`, except for an imported model. begins: nothing comes before it."""

    def encode_marked(self, text: str) -> list[int]:
        """The ids of a text that is marked up with special tokens, such as a chat. Nothing is put around it."""

    def encode_marked_at(self, text: str) -> tuple[list[int], list[int]]:
        """The same ids, and the place of the character of `text` at which each begins."""

    def token_id(self, token: str) -> int | None:
        """The id of a token; None if the vocabulary has no such token."""

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of several texts, (tokens,) each."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids. Bytes that are not UTF-8 become U+FFFD."""

    def piece(self, token: int) -> bytes | None:
        """The bytes this id always decodes to; None where they depend on the ids around it."""

    def token_bytes(self, ids: np.ndarray) -> np.ndarray:
        """How many UTF-8 bytes of text each id stands for, int64, in the shape of `ids`."""

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`, which `load_tokenizer` reads back."""


def write_file(folder: Path, text: str) -> None:
    """Write `tokenizer.json` into a folder. A missing folder is made."""
    with said_if_unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FILE, text)

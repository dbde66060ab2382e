"""The byte tokenizer: 256 ids, id = byte."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from miniwin.tokenizer.interface import write_file
from miniwin.tokenizer.utf8 import joined, to_bytes


class ByteTokenizer:
    """Nothing to train, nothing out of vocabulary, and every text round-trips."""

    name = "byte"
    identity = "byte"
    vocab_size = rows = 256
    separator = 0
    prefix: tuple[int, ...] = ()
    special: tuple[str, ...] = ()

    def encode(self, text: str) -> list[int]:
        return list(to_bytes(text))

    def encode_prompt(self, text: str, begins: bool = True) -> list[int]:
        return self.encode(text)

    def encode_marked(self, text: str) -> list[int]:
        return self.encode(text)

    def encode_marked_at(self, text: str) -> tuple[list[int], list[int]]:
        return self.encode(text), [place for place, letter in enumerate(text) for _ in to_bytes(letter)]

    def token_id(self, token: str) -> int | None:
        ids = self.encode(token)
        return ids[0] if len(ids) == 1 else None

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(to_bytes(text), dtype=np.uint8) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return joined(self, ids)

    def piece(self, token: int) -> bytes:
        # A model may have more ids than there are bytes. Those stand for no text, as the byte 0xFF never does.
        return bytes([token]) if 0 <= token < 256 else b"\xff"

    def token_bytes(self, ids: np.ndarray) -> np.ndarray:
        return np.ones(np.shape(ids), dtype=np.int64)

    def save(self, folder: Path) -> None:
        write_file(folder, json.dumps({"type": "byte"}) + "\n")

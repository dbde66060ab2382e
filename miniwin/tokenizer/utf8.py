"""Text as UTF-8, and text from the bytes that token ids stand for."""

from __future__ import annotations

from collections.abc import Iterable

from miniwin.tokenizer.interface import Tokenizer


def to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")  # half a surrogate pair is no character: "?"


def sound(text: str) -> str:
    """The text as UTF-8 can hold it."""
    return to_bytes(text).decode("utf-8")


def joined(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
    """The text of the bytes of all ids, one after the other. Bytes that are not UTF-8 become U+FFFD."""
    return b"".join(tokenizer.piece(int(token)) or b"" for token in ids).decode("utf-8", "replace")

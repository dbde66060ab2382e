"""Decoding while a model still writes: text from ids that come one at a time."""

from __future__ import annotations

import codecs

from miniwin.tokenizer.interface import Tokenizer

CONTEXT = 16  # ids before new text that the decoder gets first: some tokenizers write the start of a text differently


class StreamDecoder:
    """Decodes ids one at a time, as a model makes them, and never lets out half a UTF-8 character.

    `"".join(push(i) for i in ids) + flush()` is `decode(ids)` wherever a token always stands for the same
    bytes.
    """

    HELD = 8  # ids held back at most: a UTF-8 character has at most 4 bytes, so these will never become one

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._ids: list[int] = []
        self._read = 0  # ids before this are context, and their text is out: a word at a start is written differently

    def push(self, token: int) -> str:
        """Add an id. Returns the text that is certain now."""
        piece = self._tokenizer.piece(int(token))
        if piece is not None:
            return self._utf8.decode(piece)
        self._ids.append(int(token))
        text = self._pending()
        if text.endswith("\ufffd") and len(self._ids) - self._read < self.HELD:
            return ""
        self._ids, self._read = self._ids[self._read :], len(self._ids) - self._read
        return text

    def flush(self) -> str:
        """The text that was held back. Called when nothing follows."""
        text = self._utf8.decode(b"", final=True) + self._pending()
        self._utf8.reset()
        self._ids, self._read = [], 0
        return text

    def _pending(self) -> str:
        shown = self._tokenizer.decode(self._ids[: self._read])
        return self._tokenizer.decode(self._ids)[len(shown) :]

"""One text as it is being written: its ids so far, what of its text is certain, and where it ends."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

import torch

from miniwin.generation.stop_strings import StopFilter
from miniwin.tokenizer.interface import Tokenizer
from miniwin.tokenizer.stream import CONTEXT, StreamDecoder


class Continuation:
    """Takes one drawn id after the other (`push`) until it has `ended`; draws come from its own generator."""

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        before: Sequence[int],
        most: int,
        stops: Sequence[str],
        seed: int | None,
        stream: Callable[[str], None] | None,
        ends: Sequence[int] = (),
    ) -> None:
        """before: ids that the text follows. most: ids to take. ends: those that end the text."""
        self.generator = torch.Generator()
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed)
        self.ids: list[int] = []
        self.ended: str | None = None
        self._most, self._stream = most, stream
        self._ends = frozenset(ends)
        self._decoder = None if tokenizer is None else StreamDecoder(tokenizer)
        if self._decoder is not None:
            for token in before[-CONTEXT:]:
                self._decoder.push(token)
        self._filter = StopFilter(stops)
        self._pieces: list[str] = []
        self._certain = [0]  # [i]: characters of text that the first i ids stand for

    def push(self, token: int) -> None:
        """Take the next id. Sets `ended` to separator, stop or length where it is the last."""
        if token in self._ends:
            self._end("separator")
            return
        self.ids.append(token)
        if self._decoder is not None:
            new = self._decoder.push(token)
            self._certain.append(self._certain[-1] + len(new))
            self._let_out(self._filter.push(new))
            if self._filter.stopped:
                self._end("stop")
                return
        if len(self.ids) == self._most:
            self._end("length")

    @property
    def text(self) -> str:
        """What has been let out."""
        return "".join(self._pieces)

    def shown_ids(self) -> list[int]:
        """The ids, those aside that a stop string cut off."""
        if self.ended != "stop":
            return self.ids
        # Whole characters only: the first bytes of the stop string's first character stand for no text yet.
        return self.ids[: self._certain.index(self._certain[bisect_right(self._certain, len(self.text)) - 1])]

    def _end(self, reason: str) -> None:
        if self._decoder is not None:
            # What an end in the middle of a character leaves is not text.
            self._let_out(self._filter.push(self._decoder.flush().rstrip("\ufffd")))
        self._let_out(self._filter.flush())
        self.ended = "stop" if self._filter.stopped else reason

    def _let_out(self, text: str) -> None:
        if text:
            self._pieces.append(text)
            if self._stream is not None:
                self._stream(text)

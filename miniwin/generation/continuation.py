"""One text while it is generated: its ids so far, the part of its text that is certain, and why it ended."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

import torch

from miniwin.generation.stop_strings import StopFilter
from miniwin.tokenizer.interface import Tokenizer
from miniwin.tokenizer.stream import CONTEXT, StreamDecoder


class Continuation:
    """Takes the drawn ids one by one (`push`) until `ended` is set. `generator` is for the draws of this text only."""

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
        """before: the ids before the text. most: how many ids to take. ends: the ids that end a text."""
        self.generator = torch.Generator()
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed)
        self.ids: list[int] = []
        self.ended: str | None = None
        self.most, self._stream = most, stream
        self._ends = frozenset(ends)
        self._decoder = None if tokenizer is None else StreamDecoder(tokenizer)
        if self._decoder is not None:
            for token in before[-CONTEXT:]:
                self._decoder.push(token)
        self._filter = StopFilter(stops)
        self._pieces: list[str] = []
        self._certain = [0]  # [i]: how many characters are certain after i ids

    def push(self, token: int) -> None:
        """Take the next id. If it is the last, `ended` becomes separator, stop or length; see `interrupt`."""
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
        if len(self.ids) == self.most:
            self._end("length")

    def let_out_to(self, stream: Callable[[str], None]) -> None:
        """Give each further piece of text to `stream`."""
        self._stream = stream

    def interrupt(self) -> None:
        """End the text here."""
        self._end("interrupted")

    @property
    def text(self) -> str:
        """The text that has been let out so far."""
        return "".join(self._pieces)

    def shown_ids(self) -> list[int]:
        """The ids without those that a stop string cut off."""
        return self.certain_ids() if self.ended == "stop" else self.ids

    def certain_ids(self) -> list[int]:
        """The ids of the text that has been let out so far."""
        # The fewest ids that give the text: one more may hold the first bytes of the stop string's first character.
        return self.ids[: self._certain.index(self._certain[bisect_right(self._certain, len(self.text)) - 1])]

    def _end(self, reason: str) -> None:
        if self._decoder is not None:
            # U+FFFD at the end stands for half a character, which is not text.
            self._let_out(self._filter.push(self._decoder.flush().rstrip("\ufffd")))
        self._let_out(self._filter.flush())
        self.ended = "stop" if self._filter.stopped else reason

    def _let_out(self, text: str) -> None:
        if text:
            self._pieces.append(text)
            if self._stream is not None:
                self._stream(text)

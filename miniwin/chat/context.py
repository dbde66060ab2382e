"""The tokens of a chat in a cache. Going on to other tokens reads only what the cache does not hold.

A chat usually goes on where it was. Where the next text differs from what is in the cache (a template may leave out
what a model thought, or trim an answer), the cache is taken back to the last token that both have. A growing cache can
be taken back to any token. A ring has lost what was written over, so each turn begins with a mark (blocks/cache/
rollback.py). Where no mark reaches, the context is read anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import torch

from miniwin.blocks.cache.rollback import Mark
from miniwin.inference import InferenceModel
from miniwin.sessions import new_session
from miniwin.specs import UserError
from miniwin.tokenizer.stream import CONTEXT


class Context:
    """ids: all tokens so far. session: the cache, and those of the ids that it does not hold yet."""

    def __init__(self, model: InferenceModel, cache_dtype: str | torch.dtype | None = None) -> None:
        self._model, self._cache_dtype = model, cache_dtype
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.ids: list[int] = []
        self.session = new_session(self._model, self._cache_dtype)
        self._mark: Mark | None = None

    def go_to(self, ids: Sequence[int], room: int) -> list[int]:
        """Take back what `ids` do not begin with. Returns those of them that the model has to read, at least one.

        room: how many tokens will follow the ids at most.
        """
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self.ids, ids, strict=False)))
        self._cut(min(same, len(ids) - 1))
        new = list(ids[len(self.ids) :])
        cache = self.session.cache
        self._mark = Mark(cache, len(self.session.pending) + len(new) + room)
        return new

    def took(self, ids: Sequence[int]) -> None:
        """The session got these ids."""
        self.ids += ids
        assert len(self.ids) == self.session.tokens, (len(self.ids), self.session.tokens)

    def undo(self) -> None:
        """After a call that failed: back to a state that can be continued, if need be an empty one."""
        assert self._mark is not None
        try:
            self._mark.rollback()
        except UserError:
            self.reset()
        else:
            self._holds(self._mark.length)

    def _cut(self, length: int) -> None:
        """Keep at most the first `length` ids, as many of them as the cache can give back."""
        cache, mark = self.session.cache, self._mark
        if length >= cache.length:
            self.session.pending = self.ids[cache.length : length]
            self._remember(length)
        elif not any(layer.overwritten(1) for layer in cache.layers):  # each token has a place of its own
            cache.set_length(length)
            self._holds(length)
        elif mark is None or length < mark.length:
            self.reset()
        else:
            try:
                mark.rollback(length - mark.length)
            except UserError:  # a window has lost some of the tokens to keep
                self.undo()
            else:
                self._holds(length)

    def _holds(self, length: int) -> None:
        """The cache holds the first `length` ids, and nothing else is known."""
        self.session.pending = []
        self._remember(length)

    def _remember(self, length: int) -> None:
        self.ids = self.ids[:length]
        self.session.tail = self.ids[-CONTEXT:]
        self.session.known = list(self.ids)

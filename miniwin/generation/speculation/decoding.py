"""The loop of speculative decoding, for one text.

A round: the last drawn token, which the cache does not hold yet, and the guesses after it go through the model in one
pass. The guesses are judged in order. The first wrong one is replaced, and the cache forgets it and what follows. If
all are right, the pass gives one more token. Every round gives at least the token that a plain step gives.

Shapes: K guesses, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from miniwin.blocks import Cache
from miniwin.blocks.cache.rollback import Mark
from miniwin.blocks.decode.graph_step import GraphStep
from miniwin.blocks.decode.native_step import NativeStep
from miniwin.generation.continuation import Continuation
from miniwin.generation.sampling import Sampling
from miniwin.generation.speculation.acceptance import next_token
from miniwin.generation.speculation.draft import Draft
from miniwin.generation.speculation.lookup import Lookup
from miniwin.generation.speculation.pace import AGAIN, EACH, Pace
from miniwin.generation.speculation.settings import Speculation, shortest_window
from miniwin.inference import InferenceModel
from miniwin.sessions import Session
from miniwin.specs import UserError


@dataclass
class Guesses:
    """What came of the guesses."""

    passes: int = 0  # of the model, for new tokens
    proposed: int = 0  # tokens that were guessed and checked
    accepted: int = 0  # of these, the right ones


class Speculator:
    """Decodes one text with guesses. `known`: the ids of the text so far, as far as they are known."""

    def __init__(
        self,
        model: InferenceModel,
        cache: Cache,
        fast: NativeStep | GraphStep | None,
        speculation: Speculation,
        known: list[int],
        sampling: Sampling,
        vocabulary: int,
        most: int,
    ) -> None:
        """vocabulary: ids that may be drawn. most: new tokens.

        Raises:
            UserError: a window is too short to take tokens back.
        """
        self.model, self.cache, self.sampling, self.vocabulary = model, cache, sampling, vocabulary
        self.fast = fast if isinstance(fast, NativeStep) else None
        self.known, self.guesses, self._rest = known, Guesses(), 0
        self.draft: Draft | None = None
        self.lookup: Lookup | None = None
        caches, each = [cache], EACH
        if speculation.looks_up:
            self.lookup = Lookup(known)
        else:
            self.draft = Draft(speculation.draft, sampling, vocabulary, len(known) + most + speculation.tokens)
            caches.append(self.draft.cache)
            each += speculation.draft.spec.active_parameters() / model.spec.active_parameters()
        window = shortest_window(caches)
        if window < 2:
            raise UserError("speculate: a layer has a window of 1 token, which cannot take tokens back; leave it out")
        self.pace = Pace(min(speculation.tokens, window - 1), each)

    def run(
        self, logits: Tensor, row: Continuation, most: int, session: Session | None, going_on: Callable[[], bool] | None
    ) -> None:
        """Draw until the text ends. logits (1, 1, V): after what the cache holds."""
        self._take(self._drawn(logits[0, -1], None, None, row), row, session, going_on)
        while not row.ended:
            self._round(row, most - len(row.ids), session, going_on)

    def _round(
        self, row: Continuation, left: int, session: Session | None, going_on: Callable[[], bool] | None
    ) -> None:
        """left: how many tokens may be drawn. A guess is of fewer, as a pass gives one token more."""
        last = self.known[-1]
        guessed, each, kind, shadow = self._guess(left - 1, row.generator)
        mark = Mark(self.cache, 1 + len(guessed)) if guessed else None
        length = self.cache.length
        try:
            logits = self._pass([last, *guessed])  # (1, 1 + K, V)
        except BaseException:
            if mark is not None:
                with suppress(UserError):
                    mark.rollback()  # as before the pass
            elif session is not None and self.cache.length > length:  # it came after the cache had taken the token
                session.consumed(1)
            raise
        self.guesses.passes += 1
        before, right = len(self.known), 0
        try:
            for place in range(1 + len(guessed)):
                guess = guessed[place] if place < len(guessed) else None
                token = self._drawn(logits[0, place], guess, each[place] if place < len(guessed) else None, row)
                right += token == guess
                self._take(token, row, session, going_on)
                if token != guess or row.ended:
                    break
        finally:  # now the cache holds all tokens but the last one
            held = max(len(self.known) - before, 1)
            if mark is not None:
                mark.rollback(held)
            if session is not None:
                session.consumed(held)
            if self.draft is not None and guessed:
                self.draft.keep(right)
        self.guesses.proposed += len(guessed)
        self.guesses.accepted += right
        if shadow is not None:  # a guess that was not checked: the token drawn judges it
            self.pace.learn(kind, int(token == shadow), token != shadow)
        elif guessed:
            self.pace.learn(kind, right, token != guess and right < len(guessed))

    def _guess(self, room: int, generator: torch.Generator) -> tuple[list[int], list[Tensor | None], int, int | None]:
        """(guesses, what each was drawn from, their kind, the first guess where it does not pay to check it)."""
        if self.lookup is not None:
            place, same = self.lookup.place()
            if not same:
                return [], [], 0, None
            kind = same.bit_length()
            count = self.pace.tokens(kind, room)
            if not count:
                return [], [], kind, self.lookup.guess(place, 1)[0]
            return self.lookup.guess(place, count), [None] * count, kind, None
        assert self.draft is not None
        count = self.pace.tokens(0, room)
        if not count and room > 0:
            self._rest += 1
            count = int(self._rest % AGAIN == 0)
        if not count:
            return [], [], 0, None
        tokens, each = self.draft.guess(self.known, count, generator)
        return tokens, each, 0, None

    def _drawn(self, logits: Tensor, guess: int | None, guessed_from: Tensor | None, row: Continuation) -> int:
        return next_token(logits[: self.vocabulary], guess, guessed_from, self.sampling, row.generator)

    def _take(
        self, token: int, row: Continuation, session: Session | None, going_on: Callable[[], bool] | None
    ) -> None:
        if session is not None:
            session.append([token])
        self.known.append(token)
        if self.lookup is not None:
            self.lookup.add([token])
        row.push(token)
        if going_on is not None and not row.ended and not going_on():
            row.interrupt()

    def _pass(self, ids: list[int]) -> Tensor:
        given = torch.tensor([ids], device=self.model.device)  # (1, N)
        if self.fast is None:
            return self.model(given, cache=self.cache)  # type: ignore[no-any-return]
        return self.fast.step(given) if len(ids) == 1 else self.fast.steps(given)

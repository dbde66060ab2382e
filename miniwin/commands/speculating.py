"""What `--speculate` and `--draft-tokens` ask for, and what came of it in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from miniwin.generation import Generation
    from miniwin.generation.speculation import Speculation


def speculation(draft: str | None, tokens: int | None) -> Speculation | None:
    """
    Raises:
        UserError: a number of tokens without a draft, or a number out of range.
    """
    from miniwin.generation.speculation.settings import TOKENS, Speculation
    from miniwin.specs import UserError

    if draft is None and tokens is not None:
        raise UserError("--draft-tokens: got it without --speculate; give --speculate lookup, or a draft model")
    return None if draft is None else Speculation(draft, TOKENS if tokens is None else tokens)


def guesses_in_words(result: Generation) -> str:
    """For a result without guesses: nothing."""
    found = result.guesses
    if found is None:
        return ""
    each = (result.new_tokens - 1) / found.passes if found.passes else 0.0
    return f", {found.accepted} of {found.proposed} guesses right, {each:.2f} tokens a pass"

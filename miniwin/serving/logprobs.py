"""Log-probabilities of drawn tokens, in the shapes of both APIs.

They are those of the model, before temperature, top-k, top-p and min-p.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from miniwin.serving.job import Drawn
from miniwin.tokenizer.interface import Tokenizer

LEAST = -9999.0  # JSON has no infinity


def of_chat(tokenizer: Tokenizer, drawn: Sequence[Drawn]) -> dict[str, Any]:
    def one(token: int, logprob: float) -> dict[str, Any]:
        raw = _bytes(tokenizer, token)
        text = raw.decode("utf-8", "replace")
        return {"token": text, "logprob": max(logprob, LEAST), "bytes": list(raw)}

    content = [{**one(d.token, d.logprob), "top_logprobs": [one(*pair) for pair in d.top]} for d in drawn]
    return {"content": content, "refusal": None}


def of_completion(tokenizer: Tokenizer, drawn: Sequence[Drawn], offset: int) -> tuple[dict[str, Any], int]:
    """offset: characters before. Returns the answer and the characters before what follows."""
    tokens, offsets = [], []
    for d in drawn:
        tokens.append(_text(tokenizer, d.token))
        offsets.append(offset)
        offset += len(tokens[-1])
    top = [{_text(tokenizer, token): max(value, LEAST) for token, value in reversed(d.top)} for d in drawn]
    found = {
        "tokens": tokens,
        "token_logprobs": [max(d.logprob, LEAST) for d in drawn],
        "top_logprobs": top,
        "text_offset": offsets,
    }
    return found, offset


def _text(tokenizer: Tokenizer, token: int) -> str:
    return _bytes(tokenizer, token).decode("utf-8", "replace")


def _bytes(tokenizer: Tokenizer, token: int) -> bytes:
    piece = tokenizer.piece(token)
    return tokenizer.decode([token]).encode("utf-8") if piece is None else piece

"""A million tokens through an all-local model, in chunks and then token by token: the far past leaves no trace, and
nothing drifts. The last logits are those of a fresh prefill of the tokens that they can depend on:

    L layers of window W reach back L (W - 1) tokens.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import enliven, largest

from miniwin.specs import parse_spec

TOKENS = 1_000_000
CHUNK = 8192
WINDOW, LAYERS = 16, 2

POSITIONS: list[dict[str, Any]] = [
    {"type": "p-rope", "period": 48, "harmonic": True},
    {"type": "rope", "rope_theta": 10000},
]


@pytest.mark.parametrize("position", POSITIONS, ids=lambda position: position["type"])
@torch.no_grad()
def test_a_million_tokens_end_as_a_fresh_prefill_of_the_last_ones(position: dict[str, Any]) -> None:
    attention = {"num_heads": 2, "num_kv_heads": 1, "window": WINDOW, "position": position}
    block = {"attention": attention, "mlp": {"type": "swiglu", "intermediate_size": 16}}
    data = {"kind": "model", "format": 1, "name": "local", "vocab_size": 32, "hidden_size": 16, "num_layers": LAYERS}
    spec = parse_spec({**data, "pattern": "S", "blocks": {"S": block}}, "model")
    torch.manual_seed(0)
    decoder = spec.build()
    enliven(decoder)
    ids = torch.randint(0, 32, (1, TOKENS), generator=torch.Generator().manual_seed(1))
    cache, steps = decoder.new_cache(), 5
    for start in range(0, TOKENS - steps, CHUNK):
        streamed = decoder(ids[:, start : min(start + CHUNK, TOKENS - steps)], cache=cache, logits_to_keep=1)
    held = cache.nbytes
    reach = LAYERS * (WINDOW - 1) + 1
    for end in range(TOKENS - steps, TOKENS + 1):
        fresh = decoder(ids[:, end - reach : end])[:, -1]
        assert largest(streamed[:, -1], fresh) < 1e-4, f"after {end} tokens"
        # The check can fail: with one token less of the past the answer differs.
        assert largest(decoder(ids[:, end - reach + WINDOW : end])[:, -1], fresh) > 1e-3
        if end < TOKENS:
            streamed = decoder(ids[:, end : end + 1], cache=cache)
    assert cache.length == TOKENS and cache.nbytes == held

"""How fast a model reads a prompt and writes a continuation: tokens per second, the median of a few repeats.

The prompt goes through the cache in chunks, as in generation; then single tokens are decoded at that context.
Batch size 1. One unmeasured round comes first: the first call of an operator is slow.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import torch

from miniwin.generation.decode_step import fastest_step
from miniwin.inference import InferenceModel, Task, chunk_for, evaluating, in_chunks


@dataclass(frozen=True)
class Speed:
    """Medians, for one sequence with a prompt of `length` tokens."""

    length: int
    prefill_tokens_per_second: float
    decode_tokens_per_second: float


def measure_speed(
    model: InferenceModel,
    length: int = 2048,
    *,
    decode_tokens: int = 32,
    repeats: int = 3,
    chunk: int | None = None,
    task: Task | None = None,
) -> Speed:
    """Speed with a prompt of `length` tokens. Any tokens will do: they are 0, 1, 2 and so on."""
    ids = torch.arange(length + decode_tokens, device=model.device).remainder(model.spec.vocab_size).unsqueeze(0)
    prefill, decode = [], []
    advance = None if task is None else task(f"speed at {length:,}", (repeats + 1) * (length + decode_tokens))
    with evaluating(model):
        for _ in range(repeats + 1):
            cache = model.new_cache(1)
            started = _now(model.device)
            for _ in in_chunks(model, ids[:, :length], cache, chunk or chunk_for(length), logits_to_keep=1):
                pass  # only the cache is filled
            read = _now(model.device)
            steps = fastest_step(model, cache, decode_tokens, keep=False)  # as in generation
            for at in range(length, length + decode_tokens):
                new = ids[:, at : at + 1]  # (1, 1)
                model(new, cache=cache, logits_to_keep=1) if steps is None else steps.step(new)
            written = _now(model.device)
            prefill.append(length / (read - started))
            decode.append(decode_tokens / (written - read))
            if advance is not None:
                advance(length + decode_tokens)
    return Speed(length, median(prefill[1:]), median(decode[1:]))


def _now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()

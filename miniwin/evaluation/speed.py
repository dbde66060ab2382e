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
from miniwin.inference import Advance, InferenceModel, Task, chunk_for, evaluating, in_chunks


@dataclass(frozen=True)
class Speed:
    """Medians, for one sequence with a prompt of `length` tokens."""

    length: int
    prefill_tokens_per_second: float
    decode_tokens_per_second: float


@dataclass(frozen=True)
class Timings:
    """Seconds of each repetition, for one sequence with a prompt of `length` tokens."""

    length: int
    prefill: list[float]  # of the whole prompt
    decode: list[float]  # of a token after it, the mean of some


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
    advance = None if task is None else task(f"speed at {length:,}", (repeats + 1) * (length + decode_tokens))
    found = timings(model, length, decode_tokens=decode_tokens, repeats=repeats, chunk=chunk, advance=advance)
    return Speed(
        length,
        median(length / seconds for seconds in found.prefill),
        median(1 / seconds for seconds in found.decode),
    )


def timings(
    model: InferenceModel,
    length: int,
    *,
    decode_tokens: int = 32,
    repeats: int = 3,
    chunk: int | None = None,
    advance: Advance | None = None,
) -> Timings:
    """The times behind `measure_speed`. advance: told how many tokens were read and written."""
    ids = torch.arange(length + decode_tokens, device=model.device).remainder(model.spec.vocab_size).unsqueeze(0)
    prefill, decode = [], []
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
            prefill.append(read - started)
            decode.append((written - read) / decode_tokens)
            if advance is not None:
                advance(length + decode_tokens)
    return Timings(length, prefill[1:], decode[1:])


def _now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()

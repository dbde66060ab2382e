"""Tokens a second in all: sessions at once, against the same sessions one after another."""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from openai import OpenAI

from benchmarks.serving.server import Server

SHORTEST, LONGEST = 20, 160  # characters of a prompt
Ask = Callable[[int, str], int]


def prompts(count: int, first: int) -> list[str]:
    """Pieces of the standard library's source, of different lengths. Each begins with a number, from `first` on."""
    source = Path(argparse.__file__).read_text(encoding="utf-8")
    step = (LONGEST - SHORTEST) // max(1, count - 1)
    return [f"# {first + i}\n{source[1000 * i : 1000 * i + SHORTEST + step * i]}" for i in range(count)]


def asking(client: OpenAI, model: str, tokens: int, stream: bool, temperature: float) -> Ask:
    """A function that asks for one text and returns how many tokens it got."""

    def ask(seed: int, prompt: str) -> int:
        given: dict[str, Any] = {"model": model, "prompt": prompt, "max_tokens": tokens, "seed": seed}
        given["temperature"] = temperature
        if not stream:
            answer = client.completions.create(**given)
            return int(answer.usage.completion_tokens)  # type: ignore[union-attr]
        got = 0
        for part in client.completions.create(**given, stream=True, stream_options={"include_usage": True}):
            if part.usage is not None:
                got = part.usage.completion_tokens
        return got

    return ask


def one_by_one(ask: Ask, texts: Sequence[str]) -> int:
    return sum(ask(i, text) for i, text in enumerate(texts))


def at_once(ask: Ask, texts: Sequence[str]) -> int:
    got: list[int] = []
    threads = [threading.Thread(target=lambda i=i, text=text: got.append(ask(i, text))) for i, text in enumerate(texts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(got) < len(texts):
        raise SystemExit(f"{len(texts) - len(got)} of {len(texts)} sessions failed")
    return sum(got)


def measure(model: str, sessions: int, tokens: int, repeats: int, stream: bool, temperature: float) -> dict[str, Any]:
    """Rates in tokens a second, and processor time of the server in seconds a token, of both ways in each repeat."""
    ways = {"one by one": one_by_one, "at once": at_once}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    numbers = itertools.count(step=sessions)
    with Server(model) as server, server.client() as client:
        ask = asking(client, server.model, tokens, stream, temperature)
        for way in ways.values():
            way(ask, prompts(sessions, next(numbers)))
        for repeat in range(repeats):
            for name, way in ways.items():
                texts, busy, began = prompts(sessions, next(numbers)), server.processor_seconds(), time.perf_counter()
                got = way(ask, texts)
                rates[name].append(got / (time.perf_counter() - began))
                costs[name].append((server.processor_seconds() - busy) / got)
            print(
                f"{repeat + 1}: {rates['one by one'][-1]:8.1f} and {rates['at once'][-1]:8.1f} tokens/s, "
                f"{rates['at once'][-1] / rates['one by one'][-1]:.2f}x",
                file=sys.stderr,
                flush=True,
            )
        memory = server.memory()
        name = server.model
    return {
        "model": name,
        "sessions": sessions,
        "tokens": tokens,
        "stream": stream,
        "temperature": temperature,
        "tokens_per_second": rates,
        "processor_seconds_per_token": costs,
        "ratio": spread(rates["at once"], rates["one by one"]),
        "processor_ratio": spread(costs["one by one"], costs["at once"]),
        "memory": memory,
    }


def spread(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """The median of the ratios of each repeat, and the least and the most."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    return {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}

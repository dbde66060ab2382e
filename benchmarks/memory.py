"""Peak memory: the most that was resident during the work, less what was resident before. Each side has its own
process.

The work itself is in `child.py`; the cases are here. Each case runs once, since memory hardly varies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.case import OURS, Case, Run, Work
from benchmarks.models import PIECE
from benchmarks.process import answer

MILLION = "million"


def attention_case(length: int, window: int, peers: Sequence[str] = (), budget: float = 60.0) -> Case:
    """Forward and backward of the attention operator, tensors of the inputs included."""
    series = f"memory/attention forward+backward/W={window}"
    asked = {"what": "attention", "length": length, "window": window}
    return Case(f"{series}/N={length}", series, length, lambda: work(asked, peers, budget), "bytes", budget=budget)


def prefill_case(model: str, length: int, peers: Sequence[str], budget: float = 120.0) -> Case:
    series = f"memory/prefill {model}"
    asked = {"what": "prefill", "model": model, "length": length}
    return Case(f"{series}/N={length}", series, length, lambda: work(asked, peers, budget), "bytes", budget=budget)


def decode_case(model: str, context: int, peers: Sequence[str], budget: float = 120.0, piece: int = PIECE) -> Case:
    """The cache, filled, and two tokens decoded on it."""
    series = f"memory/decode {model}"
    asked = {"what": "decode", "model": model, "length": context, "piece": piece}
    return Case(
        f"{series}/context={context}", series, context, lambda: work(asked, peers, budget), "bytes", budget=budget
    )


def million_case(model: str, tokens: int, budget: float) -> Case:
    """One pass of bits per byte: the peak of the whole process, Python and torch included."""
    asked = {"what": MILLION, "model": model, "length": tokens}
    name = f"memory/bits per byte of {model}"
    return Case(f"{name}/N={tokens}", name, tokens, lambda: work(asked, (), budget), "bytes", tokens, budget)


def work(asked: dict[str, Any], peers: Sequence[str], budget: float) -> Work:
    made = Work({}, gate="of another kind: the cases of the same name that measure time have it")

    def measured(side: str) -> Run:
        def run() -> float:
            found = answer("benchmarks.child", {**asked, "side": side, "threads": torch.get_num_threads()}, budget)
            if "note" in found:
                made.notes.append(f"{side}: {found['note']}")
            return float(found["bytes"])

        return run

    # A peer whose process fails is absent. Our side raises, and the case has failed.
    for name in (OURS, *peers):
        made.sides[name] = measured(name)
    return made

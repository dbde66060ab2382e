"""Where the global layers look: what share of their weight falls on events, and not on the filler between them.

An event is a write of the task last-write: four tokens, such as `\\nw=A`. The share is that of queries at the values of
writes, the mean over heads and writes. Filler grows with the length and events do not, so a layer that overlooks
filler keeps its share. `python -m benchmarks.claims --only filler` measures the models of `longer` and `champion`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.claims import results
from benchmarks.claims.experiments import EXPERIMENTS, LAST_WRITE
from benchmarks.claims.training import trained
from benchmarks.claims.variants import VARIANTS
from miniwin.blocks.attention.module import Attention
from miniwin.blocks.attention_ops import AttentionCall
from miniwin.evaluation.tasks import draw
from miniwin.language_model import LanguageModel
from miniwin.provenance import code_version, machine
from miniwin.specs import UserError

NAME = "filler"
MEASURED = ("longer", "champion")
LENGTHS = (128, 2048, 8192)
EXAMPLES = 16
WRITE = re.compile(rb"\n[a-z]=[A-Z]")


def measure(folder: Path = results.FOLDER) -> None:
    """Every model that has no result yet."""
    for name in MEASURED:
        experiment = EXPERIMENTS[name]
        for seed in range(experiment.seeds):
            if results.read(NAME, name, seed, folder) is not None:
                continue
            model, ended = trained(experiment, VARIANTS[experiment.variants[0]], seed)  # trains it only if need be
            if model is None:
                raise UserError(f"{name}, seed {seed}: the training diverged ({ended.reason}), so there is no model")
            rows = [row for length in LENGTHS for row in shares(model, length, EXAMPLES)]
            done = {"experiment": NAME, "variant": name, "seed": seed, "commit": code_version(), "shares": rows}
            print(results.write({**done, "machine": machine()["cpu"]}, folder), flush=True)


@torch.no_grad()
def shares(model: LanguageModel, length: int, examples: int) -> list[dict[str, Any]]:
    """For each global layer: the share on events at a length, the mean over heads, writes and examples."""
    found: dict[int, list[Tensor]] = {}
    for index in range(examples):
        text = draw(LAST_WRITE, length, seed=0, index=index, split="valid").text
        starts = [write.start() for write in WRITE.finditer(text)][: -LAST_WRITE.num_queries]  # questions look alike
        with _calls() as calls:
            model(torch.tensor([list(text)]))
        for layer, call in enumerate(calls):
            if call.window is None:
                found.setdefault(layer, []).extend(on_events(call, starts))
    return [
        {"layer": layer, "length": length, "share": round(float(torch.stack(values).mean()), 4)}
        for layer, values in found.items()
    ]


def on_events(call: AttentionCall, starts: list[int]) -> list[Tensor]:
    """For the query at each write's value: the weight on the tokens of all writes so far, (H,)."""
    events = torch.tensor([start + place for start in starts for place in range(4)])
    found = []
    for start in starts:
        at = start + 3
        scores = torch.einsum("hd,mhd->hm", call.q[0, at].float(), call.k[0, : at + 1].float()) * call.scale
        found.append(scores.softmax(-1)[:, events[events <= at]].sum(-1))
    return found


@contextmanager
def _calls() -> Iterator[list[AttentionCall]]:
    """The calls of all attention layers, in their order."""
    calls: list[AttentionCall] = []
    before = Attention.attend

    def attend(call: AttentionCall, *rest: Any, **named: Any) -> Tensor:
        calls.append(call)
        return before(call, *rest, **named)

    Attention.attend = staticmethod(attend)  # type: ignore[method-assign, assignment]
    try:
        yield calls
    finally:
        Attention.attend = staticmethod(before)  # type: ignore[method-assign, assignment]

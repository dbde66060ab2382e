"""How fast this machine trains: the constants of specs/speeds.py, from trainings of a few steps.

Models of different width, depth, windows and MLPs are each trained for a few steps of the same size. The constants are
those of the smallest sum of squared relative errors; none is negative. How good predictions are is known from leaving
out one model at a time.

On a CPU the time is that of the processor, on one thread, so that other programs hardly matter. Elsewhere it is that of
a clock.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from miniwin.evaluation.ranks import rank_correlation
from miniwin.provenance import machine
from miniwin.specs import ModelSpec, TrainSpec, parse_spec
from miniwin.specs.speeds import Speeds, terms
from miniwin.training.batch_loss import shares
from miniwin.training.distributed import Group
from miniwin.training.engine import Engine
from miniwin.training.optimizer import make_optimizer

WARM, MEASURED = 2, 8  # steps
VOCABULARY = 256

# hidden_size, layers, window (None: all keys), intermediate_size.
SHAPES = (
    (64, 8, 32, 160),
    (64, 8, None, 160),
    (64, 2, 16, 160),
    (64, 4, 8, 64),
    (64, 12, 16, 128),
    (64, 6, None, 512),
    (96, 4, 32, 256),
    (128, 2, 32, 256),
    (128, 4, None, 256),
    (128, 6, 64, 128),
    (160, 4, 128, 512),
    (192, 2, 32, 512),
    (192, 4, 16, 384),
    (256, 2, None, 512),
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """speeds: the constants. errors: of each model, how far its time is from what the others predict, as a share of it.
    rank: the rank correlation of these predictions with the times (Spearman)."""

    speeds: Speeds
    errors: list[float]
    rank: float


def calibrate(train: TrainSpec, device: torch.device, tell: Callable[[str], None] = lambda line: None) -> Calibration:
    """Measure how fast trainings as `train` says are. tell: is told of each model."""
    models = [shaped(*shape) for shape in SHAPES]
    before = torch.get_num_threads()
    times = []
    try:
        if device.type == "cpu":
            torch.set_num_threads(1)
        for model in models:
            times.append(seconds(model, train, device))
            tell(f"{model.layout}, hidden_size {model.hidden_size}: {times[-1] * 1e6:.1f} microseconds a token")
    finally:
        torch.set_num_threads(before)
    about = machine()
    where = f"{device}, one thread" if device.type == "cpu" else str(device)
    words = f"{about.get('cpu') or about.get('platform')}, {where}, {train.dtype}"
    return fitted(models, times, train, words)


def fitted(models: Sequence[ModelSpec], times: Sequence[float], train: TrainSpec, words: str) -> Calibration:
    """The constants from the seconds that a token of each model took."""
    tokens, length = train.batch_size * train.longest, train.longest
    rows = np.array([terms(model, length, tokens) for model in models])  # (M, 3)
    taken = np.array(times)
    left_out = np.array([rows[i] @ _solved(np.delete(rows, i, 0), np.delete(taken, i)) for i in range(len(taken))])
    rank = rank_correlation(left_out, taken)
    flop, score, layer = (float(f"{constant:.4g}") for constant in _solved(rows, taken))
    return Calibration(
        Speeds(machine=words, tokens=tokens, flop=flop, score=score, layer=layer),
        [float(error) for error in left_out / taken - 1],
        math.nan if rank is None else rank.value,
    )


def _solved(rows: Array, times: Array) -> Array:
    """The constants x >= 0 that make the sum of (rows x / times - 1)^2 least: the best of all choices of those above
    0."""
    scaled, found = rows / times[:, None], np.zeros(rows.shape[1])
    least = float("inf")
    for chosen in _choices(rows.shape[1]):
        x, *_ = np.linalg.lstsq(scaled[:, chosen], np.ones(len(times)), rcond=None)
        error = float(((scaled[:, chosen] @ x - 1) ** 2).sum())
        if (x >= 0).all() and error < least:
            least, found = error, np.zeros(rows.shape[1])
            found[chosen] = x
    return found


def _choices(count: int) -> Iterator[list[int]]:
    for size in range(1, count + 1):
        yield from map(list, itertools.combinations(range(count), size))


def shaped(hidden_size: int, num_layers: int, window: int | None, intermediate_size: int) -> ModelSpec:
    """A model of these sizes. With a window every other layer is local."""
    attention = {"num_heads": 4, "num_kv_heads": 2}
    mlp = {"type": "swiglu", "intermediate_size": intermediate_size}
    blocks = {"G": {"attention": {**attention, "window": None, "position": {"type": "nope"}}, "mlp": mlp}}
    if window is not None:
        position = {"type": "p-rope", "period": 2 * window, "harmonic": True}
        blocks["S"] = {"attention": {**attention, "window": window, "position": position}, "mlp": mlp}
    spec = {"kind": "model", "format": 1, "name": "calibration", "vocab_size": VOCABULARY, "blocks": blocks}
    spec |= {"hidden_size": hidden_size, "num_layers": num_layers, "pattern": "G" if window is None else "SG"}
    found = parse_spec(spec, "model")
    assert isinstance(found, ModelSpec)
    return found


def seconds(model: ModelSpec, train: TrainSpec, device: torch.device) -> float:
    """Of training a token: the median of a few steps."""
    engine = Engine(model, train, Group(), device, None)
    optimizer = make_optimizer(engine.decoder, train.optimizer)
    parameters = list(engine.decoder.parameters())
    ids = torch.arange(train.batch_size * (train.longest + 1), device=device).remainder(model.vocab_size)
    rows = ids.view(train.batch_size, -1)  # (B, N + 1)
    inputs, targets = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
    own, found = shares(engine.group, targets, [train.batch_size]), []
    engine.decoder.train()
    for _ in range(WARM + MEASURED):
        began = _now(device)
        for parameter in parameters:
            parameter.grad = None
        with torch.autocast(device.type, torch.bfloat16, enabled=train.dtype == "bfloat16"):
            loss = engine.one_pass(inputs, targets, None, own)[0]
        loss.backward()
        engine.clip(parameters, train.clip_grad_norm)
        optimizer.step()
        found.append(_now(device) - began)
    return median(found[WARM:]) / targets.numel()


def _now(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize(device)
    return time.perf_counter()

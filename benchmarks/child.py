"""`python -m benchmarks.child JSON`: do one piece of work and print its peak memory, as JSON.

On Linux the kernel's high-water mark is reset before the work, so that the import of torch does not hide the work's
peak. Elsewhere getrusage gives the maximum of the whole process. For small work that is too large.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.case import OURS

Prepared = Callable[[], object]


def main(asked: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(asked["threads"])
    prepare = {"attention": attention, "prefill": prefill, "decode": decode, "million": million}[asked["what"]]
    run = prepare(asked)
    answer: dict[str, Any] = {}
    before = 0 if asked["what"] == "million" else _status("VmRSS")
    _forget_peak()
    began = time.perf_counter()
    note = run()
    answer["seconds"] = time.perf_counter() - began
    answer["bytes"] = _peak() - before
    if isinstance(note, str):
        answer["note"] = f"{note} in {answer['seconds']:.0f} s"
    return answer


def attention(asked: dict[str, Any]) -> Prepared:
    """Warmed up on a few tokens, so that the kernels' own buffers are not counted."""
    from benchmarks import attention as ops
    from benchmarks.peers import attention as peers
    from miniwin.blocks import AttentionCall, attend

    window = asked["window"]

    def step(length: int) -> None:
        q, k, v = (
            torch.randn(1, length, heads, ops.HEAD_DIM, requires_grad=True)
            for heads in (ops.HEADS, ops.KV_HEADS, ops.KV_HEADS)
        )
        if asked["side"] == OURS:
            out = attend(AttentionCall(q, k, v, scale=ops.HEAD_DIM**-0.5, window=window))
        else:
            build = {ops.MASKED: peers.masked, ops.LOCAL: peers.local_attention}[asked["side"]]
            out = build(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), window)()
        out.backward(torch.ones_like(out))

    step(2 * window)
    return lambda: step(asked["length"])


def prefill(asked: dict[str, Any]) -> Prepared:
    from benchmarks.models import side
    from benchmarks.prefill import token_ids
    from miniwin.specs import load_model_spec

    spec = load_model_spec(asked["model"])
    model = side(asked["side"], spec)
    model.module.eval()
    ids = token_ids(spec, asked["length"])

    @torch.no_grad()
    def run() -> None:
        model.prefill(ids)

    with torch.no_grad():
        model.prefill(ids[:, :32])
    return run


def decode(asked: dict[str, Any]) -> Prepared:
    from benchmarks.models import random_piece, side
    from miniwin.specs import load_model_spec

    spec = load_model_spec(asked["model"])
    model = side(asked["side"], spec)
    model.module.eval()
    piece = random_piece(spec, asked["piece"])
    token = torch.zeros(1, 1, dtype=torch.int64)

    @torch.no_grad()
    def run() -> None:
        decoding = model.decoder(piece, asked["length"])
        decoding.step(token)
        decoding.step(token)

    with torch.no_grad():
        model.decoder(piece, asked["piece"]).step(token)
    return run


def million(asked: dict[str, Any]) -> Prepared:
    """Random bytes: their values do not matter, and no file has to be read."""
    import numpy as np

    from miniwin.evaluation.streamed_loss import position_losses
    from miniwin.language_model import LanguageModel
    from miniwin.machine.matmul_choice import settle
    from miniwin.specs import load_model_spec
    from miniwin.tokenizer import ByteTokenizer

    spec = load_model_spec(asked["model"])
    torch.manual_seed(0)
    decoder = spec.build()
    settle(decoder, torch.device("cpu"))
    model = LanguageModel(decoder, spec, ByteTokenizer(), asked["model"])
    n = asked["length"]
    ids = np.random.default_rng(0).integers(0, 256, n + 1)

    def run() -> str:
        losses = position_losses(model, ids, n, n)
        return f"{losses.nats_per_byte / math.log(2):.3f} bits per byte of random bytes, {n:,} tokens"

    return run


def _status(field: str) -> int:
    """Bytes, from /proc/self/status; 0 where there is none."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak() -> int:
    found = _status("VmHWM")
    if found:
        return found
    if sys.platform == "win32":  # which has no module for it
        return 0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))

"""Time against length: how long a prompt takes to read, and a token to write, at each length.

Weights do not matter for time: they are random. One result file is one round over all variants and lengths, so that a
machine that is busy for a while disturbs all of them. Run it alone: `python -m benchmarks.claims --only speed`.
"""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.claims import results
from benchmarks.claims.variants import VARIANTS
from miniwin import build
from miniwin.evaluation.speed import measure_speed
from miniwin.provenance import code_version, machine
from miniwin.specs import parse_spec

NAME = "speed"
SPEED_VARIANTS = ("published", "no-global", "minimind")
LENGTHS = (4096, 8192, 16384, 32768, 65536)
ROUNDS = 5


def measure(folder: Path = results.FOLDER) -> None:
    """Every round that has no result yet."""
    for number in range(ROUNDS):
        if results.read(NAME, SPEED_VARIANTS[-1], number, folder) is not None:
            continue
        for variant in SPEED_VARIANTS:
            torch.manual_seed(0)
            spec = parse_spec(VARIANTS[variant].spec(), "model")
            model = build(spec)
            speeds = [measure_speed(model, length, repeats=1) for length in LENGTHS]
            rows = [
                {
                    "length": speed.length,
                    "prefill_seconds": speed.length / speed.prefill_tokens_per_second,
                    "decode_seconds": 1 / speed.decode_tokens_per_second,
                    "forward_flops": spec.forward_flops(speed.length) * speed.length,
                }
                for speed in speeds
            ]
            done = {"experiment": NAME, "variant": variant, "seed": number, "commit": code_version(), "speeds": rows}
            print(results.write({**done, "machine": machine()["cpu"], "threads": torch.get_num_threads()}, folder))

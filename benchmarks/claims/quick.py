"""The quick check: three variants, two seeds, half of the tokens. Does the order of recall come out as on the page?

At 16 times the trained length: NoPE with log scaling above full attention with RoPE, and above no global layer, the
worse seed above the better. Runs and results go into a temporary folder; the committed ones are not touched.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.claims import figures
from benchmarks.claims.experiments import EXPERIMENTS
from benchmarks.claims.running import run
from miniwin.specs import UserError

LENGTH = 2048


def quick() -> int:
    """Run it and print the table. 0: the order is as expected; 1: it is not."""
    experiment, began = EXPERIMENTS["quick"], time.monotonic()
    with tempfile.TemporaryDirectory() as given:
        folder = Path(given)
        for seed in range(experiment.seeds):
            for variant in experiment.variants:
                path = run(experiment, variant, seed, folder / "results", work=folder / "work")
                if seed not in figures.shares("quick", variant, LENGTH, "recall", folder / "results"):
                    raise UserError(f"{path.stem}: the training diverged, so there is no order; run it again")
        print("recall, mean of two seeds" + "".join(f"{length:>10,}" for length, _ in experiment.lengths))
        for variant in experiment.variants:
            found = [
                figures.shares("quick", variant, length, "recall", folder / "results")
                for length, _ in experiment.lengths
            ]
            print(f"{variant:<25}" + "".join(f"{sum(one.values()) / len(one):>10.3f}" for one in found))
        ours, baseline, without = (
            figures.shares("quick", variant, LENGTH, "recall", folder / "results") for variant in experiment.variants
        )
    expected = min(ours.values()) > max(baseline.values()) and min(ours.values()) > max(without.values())
    said = "as expected" if expected else "NOT as expected"
    print(f"the order at {LENGTH:,} is {said}; {time.monotonic() - began:.0f} s")
    return 0 if expected else 1

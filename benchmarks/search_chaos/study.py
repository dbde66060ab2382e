"""The two searches: the one that is disturbed, and the same without disturbance or early stopping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

STEPS = 192  # of a training
CHECKPOINT_SECONDS = 0.1  # and at each rung
SEARCH: dict[str, Any] = {
    # 40 assignments: 28 architectures, 7 more that are the same as another, and 5 that break the constraint.
    "variables": {
        "ratio": {"int": [1, 4]},  # of 4 layers, the last of which is global: 4 is 3
        "window": {"choice": [4, 8, 12, 16, 32]},
        "factor": {"choice": [1, 2]},
    },
    "constraints": ["window * factor <= 32"],
    "sampler": {"type": "grid"},
    "objectives": ["minimize loss@64", "minimize cache_bytes@4096"],
    "rungs": [0.25, 0.5],
    "budget": {"trials": 28},  # each architecture; with more, those that wait would go on
}
HALVING = {"type": "halving", "reduction": 2}


def write_specs(folder: Path, steps: int = STEPS, **changes: Any) -> tuple[Path, Path]:
    """Write the specs of both. Returns the paths of the disturbed search, and of the undisturbed one."""
    from search_helpers import write_search  # of tests/support

    found = []
    for name, pruner in ("disturbed", HALVING), ("undisturbed", None):
        (folder / name).mkdir(parents=True)
        train = {"tokens": 128 * steps, "checkpoint_seconds": CHECKPOINT_SECONDS}
        found.append(write_search(folder / name, train, **{**SEARCH, "pruner": pruner, **changes}))
    return found[0], found[1]

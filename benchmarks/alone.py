"""Each case that is timed has a process of its own: alone or after other cases, its figure is the same.

Otherwise cases leave a heap behind from which later ones are served without page faults. That flatters sides that take
much memory anew in every step, as plain training steps do; a user's run begins in a fresh process. Besides, a case that
crashes, or is killed for memory, takes no other case with it.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

from benchmarks import process
from benchmarks.case import Case
from benchmarks.plan import PLANS
from benchmarks.runner import failed, run_case


def run_alone(kind: str, case: Case, repeats: int, *, steady: float) -> dict[str, Any]:
    """`run_case` of a case of that plan, elsewhere. Cases of memory have a process for each side already."""
    if case.unit == "bytes":
        return run_case(case, repeats, steady)
    began = time.monotonic()
    asked = {"kind": kind, "name": case.name, "repeats": repeats, "steady": steady, "threads": torch.get_num_threads()}
    try:
        return process.answer("benchmarks.alone", asked)
    except Exception as error:
        return failed(case, error, began)


def main(asked: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(asked["threads"])
    (case,) = (case for case in PLANS[asked["kind"]]().cases if case.name == asked["name"])
    return run_case(case, asked["repeats"], asked["steady"])


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))

"""A process for each case that is timed, so that its figure does not depend on the cases before it.

In a shared process, a case leaves a heap behind, and later cases get memory from it without page faults. That flatters
sides that take much new memory in every step, as plain training steps do. A user's run begins in a fresh process. Also,
a case that crashes, or is killed for memory, ends no other case.
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
    """`run_case` in another process. Cases of memory have a process for each side already."""
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

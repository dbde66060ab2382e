"""`python benchmarks/compare.py OLD.json NEW.json`: what got slower (or needs more memory) beyond the noise.

    change = ours new / ours old
    drift  = the median of the peers' new / old: the machine, or torch, not us (without peers, those of all cases)
        noise  = the root of the sum of the squares of all four spreads, at least FLOOR

Slower: change / drift > 1 + noise. Faster: change / drift < 1 / (1 + noise). The exit code is 1 if anything is slower
or no longer measured.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__":  # run as a file, it is not found in its package
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.case import OURS
from benchmarks.report import HARDWARE

FLOOR = 0.05  # of the value: what a quiet machine varies by from one process to the next
FORMAT = 1

Verdict = Literal["slower", "faster", "same", "gone", "new"]


@dataclass(frozen=True)
class Change:
    case: str
    verdict: Verdict
    change: float = 1.0  # new over old, the drift taken out
    noise: float = 0.0
    drift: float = 1.0

    def __str__(self) -> str:
        if self.verdict in ("gone", "new"):
            return f"{self.verdict:>7}  {self.case}"
        told = f"{self.change:.2f}x the old, noise {self.noise:.0%}, drift of the peers {self.drift:.2f}x"
        return f"{self.verdict:>7}  {self.case}: {told}"


def compare(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """One change for each case of either result and each of our sides, the slower ones first."""
    before, after = _measured(old), _measured(new)
    shared = [name for name in before if name in after]
    everywhere = [ratio for name in shared for ratio, _ in _peers(before[name], after[name])]
    changes = []
    for name in {**before, **after}:
        sides = [_ours(cases[name]) if name in cases else {} for cases in (before, after)]
        peers = _peers(before[name], after[name]) if name in shared else []
        # Memory does not drift with the machine's load.
        ratios = [] if {**before, **after}[name]["unit"] == "bytes" else [ratio for ratio, _ in peers] or everywhere
        drift = statistics.median(ratios) if ratios else 1.0
        for side in {**sides[0], **sides[1]}:
            told = name if side == OURS else f"{name}, {side}"
            if side not in sides[1] or side not in sides[0]:
                changes.append(Change(told, "gone" if side in sides[0] else "new"))
                continue
            old_side, new_side = (each[side] for each in sides)
            change = new_side["median"] / old_side["median"] / drift
            squares = sum(_spread(each) ** 2 for each in (old_side, new_side))
            if ratios and peers:
                squares += statistics.median(spread for _, spread in peers) ** 2
            noise = max(FLOOR, math.sqrt(squares))
            verdict: Verdict = "slower" if change > 1 + noise else "faster" if change < 1 / (1 + noise) else "same"
            changes.append(Change(told, verdict, change, noise, drift))
    order = ["slower", "gone", "faster", "new", "same"]
    return sorted(changes, key=lambda each: (order.index(each.verdict), -each.change))


def _measured(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {case["name"]: case for case in result["cases"] if case["status"] == "ok" and OURS in case["sides"]}


def _ours(case: dict[str, Any]) -> dict[str, Any]:
    return {name: side for name, side in case["sides"].items() if name.startswith(OURS)}


def _peers(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[float, float]]:
    """(new over old, spread of both) of each peer that both have."""
    found = []
    for name, side in old["sides"].items():
        if not name.startswith(OURS) and name in new["sides"]:
            other = new["sides"][name]
            found.append((other["median"] / side["median"], math.hypot(_spread(side), _spread(other))))
    return found


def _spread(side: dict[str, Any]) -> float:
    """The middle half of the runs, as a share of the median."""
    return float((side["high"] - side["low"]) / side["median"])


def read(path: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path}: cannot be read as a result: {error}") from None
    if result.get("format") != FORMAT:
        got = result.get("format", "none")
        raise SystemExit(f"{path}: got format {got}; expected {FORMAT}: measure again with `python -m benchmarks`")
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/compare.py", description="What got slower, beyond noise.")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args(arguments)
    old, new = read(options.old), read(options.new)
    both = HARDWARE & old["machine"].keys() & new["machine"].keys()  # older results say less
    differing = sorted(key for key in both if old["machine"][key] != new["machine"][key])
    if differing:
        print(f"the machines differ in {', '.join(differing)}: only the ratios to the peers mean something")
    changes = compare(old, new)
    for change in changes:
        if change.verdict != "same":
            print(change)
    same = sum(change.verdict == "same" for change in changes)
    bad = sum(change.verdict in ("slower", "gone") for change in changes)
    print(f"{bad} slower or gone, {same} the same within the noise, of {len(changes)} figures")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

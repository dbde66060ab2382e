"""`python -m benchmarks [--repeats N] [--out DIR]`: every case, as a table and as JSON named by hardware and date."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
from pathlib import Path

import torch
from rich.progress import track

from benchmarks.cases import cases
from benchmarks.timing import interleaved
from miniwin.provenance import machine


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="timed runs of each side (default 9)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results")
    options = parser.parse_args()
    rows = []
    for case in track(list(cases()), description="benchmarks"):
        timings = interleaved(case.sides, options.repeats)
        ours = timings[case.ours].median
        for side, timing in timings.items():
            rows.append(
                {
                    "case": case.name,
                    "side": side,
                    "milliseconds": round(timing.median * 1e3, 3),
                    "spread_milliseconds": round(timing.spread * 1e3, 3),
                    "times_ours": round(timing.median / ours, 2),
                }
            )
    table = _markdown(rows)
    print(table)
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / f"{_hardware()}-{datetime.date.today().isoformat()}"
    facts = {"machine": machine(), "torch": torch.__version__, "repeats": options.repeats, "rows": rows}
    stem.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(table + "\n", encoding="utf-8")
    print(f"written to {stem}.md and {stem.name}.json")


def _markdown(rows: list[dict[str, object]]) -> str:
    lines = ["| case | side | ms (median) | spread | time / ours |", "|---|---|---:|---:|---:|"]
    for row in rows:
        lines.append(
            f"| {row['case']} | {row['side']} | {row['milliseconds']} | {row['spread_milliseconds']} "
            f"| {row['times_ours']} |"
        )
    return "\n".join(lines)


def _hardware() -> str:
    name = re.sub(r"[^a-z0-9]+", "-", str(machine().get("cpu") or platform.machine()).lower()).strip("-")
    return f"{name}-{torch.get_num_threads()}threads"


if __name__ == "__main__":
    main()

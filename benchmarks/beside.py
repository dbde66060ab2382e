"""`python benchmarks/beside.py [--write docs/benchmarks.md]`: the newest quick result of each machine side by side.

A ratio compares sides of one run on one machine, so ratios of several machines may stand side by side. Seconds may not,
and are left out. --write puts the table between the two marks in that file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file, it is not found in its package
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.compare import read
from benchmarks.report import bars_beside
from miniwin.runs import write_text

RESULTS = Path(__file__).parent / "results"
FROM, TO = "<!-- benchmark: from -->", "<!-- benchmark: to -->"
Found = tuple[Path, dict[str, Any]]


def newest(files: Sequence[Path]) -> list[Found]:
    """Of each machine the last result of a whole quick run, the newest first."""
    found: dict[object, Found] = {}
    for path in sorted(files):
        result = read(path)
        key = machine_key(result["machine"])
        whole = result["kind"] == "quick" and result["date"] + ".json" in path.name  # not of --only
        if whole and (key not in found or result["date"] >= found[key][1]["date"]):
            found[key] = path, result
    return sorted(found.values(), key=lambda each: (each[1]["date"], each[0].name), reverse=True)


def machine_key(machine: dict[str, Any]) -> tuple[object, ...]:
    """Clouds give several kinds of processors one name: instruction sets tell them apart. Older results name AMX
    alone."""
    return machine["cpu"], machine["threads"], machine["instructions"], machine["amx"], machine.get("gpu")


def markdown(found: Sequence[Found]) -> str:
    """What stands between the marks, in a page of docs/."""
    lines = ["What it printed, machine by machine (everything else is in the results):", ""]
    for i, (path, result) in enumerate(found):
        machine = result["machine"]
        facts = [f"{machine['threads']} threads", f"torch {machine['torch']}"]
        if "sets" in machine:
            facts += [machine["sets"], f"products of {machine['products']}"]
        else:
            facts.append(machine["instructions"] + (" and AMX" if machine["amx"] else ""))
        head = f"{'ABCDEFGHIJKLMNOPQRSTUVWXYZ'[i % 26]}: {machine['cpu']}, {'; '.join(facts)}"
        lines.append(f"- {head}; [{result['date']}](../benchmarks/results/{path.stem}.md)")
    lines += ["", *bars_beside([result for _, result in found]), ""]
    for path, _ in found[:1]:
        lines.append(f"![tokens per second by length, prefill and decoding](../benchmarks/results/{path.stem}.svg)")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python benchmarks/beside.py", description="Results of machines side by side."
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help=f"put it between {FROM} and {TO} there")
    parser.add_argument("files", type=Path, nargs="*", help="results (default: those in benchmarks/results)")
    options = parser.parse_args(arguments)
    text = markdown(newest(options.files or list(RESULTS.glob("*.json"))))
    if options.write is None:
        print(text)
        return 0
    before, start, rest = options.write.read_text(encoding="utf-8").partition(FROM)
    _, end, after = rest.partition(TO)
    if not start or not end:
        raise SystemExit(f"{options.write}: got no {FROM} with {TO} after it; expected both")
    write_text(options.write, f"{before}{FROM}\n{text}\n\n{TO}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

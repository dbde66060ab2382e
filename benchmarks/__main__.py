"""`python -m benchmarks [--full] [--only NAME] [--repeats N] [--out DIR]`: Markdown, JSON, a plot, and the bars.

The files are named by hardware and date. `--only` takes the cases whose names contain it (several: any of them), and
writes files only where --out is given.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.case import Case
from benchmarks.machine import stem
from benchmarks.plan import PLANS
from benchmarks.plot import svg
from benchmarks.report import bars_table, markdown
from benchmarks.runner import run_all

RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--full", action="store_true", help="every length, dtype and peer, and a million tokens: hours")
    kinds.add_argument("--tiny", action="store_true", help="sizes that take no time: that it runs, not how fast")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="cases whose names contain this; may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="name the cases and do nothing")
    parser.add_argument("--repeats", type=int, help="runs of each side at most (the budget of a case may allow fewer)")
    parser.add_argument("--minutes", type=float, help="begin no case later than that (quick: 20; full: no limit)")
    parser.add_argument("--out", type=Path, help="folder for the results (default benchmarks/results)")
    options = parser.parse_args(arguments)
    kind = "full" if options.full else "tiny" if options.tiny else "quick"
    plan = PLANS[kind]()
    cases = _chosen(plan.cases, options.only)
    if options.list:
        print("\n".join(case.name for case in cases))
        return 0
    repeats = plan.repeats if options.repeats is None else options.repeats
    if repeats < 1:
        raise SystemExit(f"--repeats: got {repeats}; expected at least 1")
    minutes = plan.minutes if options.minutes is None else options.minutes
    result = run_all(cases, repeats, kind, _say, plan.peak_size, minutes, plan.steady)
    print("\n".join(bars_table(result)))
    if options.out is None and (options.only or options.tiny):
        return 0
    folder = options.out or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    name = stem(kind)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.svg").write_text(svg(result), encoding="utf-8")
    (folder / f"{name}.md").write_text(markdown(result, f"{name}.svg"), encoding="utf-8")
    print(f"written: {name}.md, .json and .svg")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _chosen(cases: tuple[Case, ...], only: list[str] | None) -> list[Case]:
    found = [case for case in cases if only is None or any(name in case.name for name in only)]
    if not found:
        raise SystemExit(f"--only {' '.join(only or [])}: no case has this in its name; `--list` names them")
    return found


if __name__ == "__main__":
    sys.exit(main())

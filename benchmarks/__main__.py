"""`python -m benchmarks [--full] [--only NAME] [--repeats N] [--out DIR]`: Markdown, JSON, a plot, and the bars.

Files are named by hardware, date and --only. --only takes the cases whose names contain it; several may be given. With
--only, files are written only if --out is given. The JSON is written after every case. `--continue FILE.json` goes on
with a run that was killed: it keeps what was measured, does the rest, and writes to that file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.alone import run_alone
from benchmarks.case import Case
from benchmarks.continued import begun
from benchmarks.machine import stem
from benchmarks.plan import PLANS
from benchmarks.plot import svg
from benchmarks.report import bars_table, markdown
from benchmarks.runner import run_all
from miniwin.files.writing import write_text
from miniwin.specs import user_path

RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--full", action="store_true", help="every length, dtype and peer, and a million tokens: hours")
    kinds.add_argument("--gpu", action="store_true", help="what only a GPU can show: minutes, on one")
    kinds.add_argument("--tiny", action="store_true", help="sizes that take no time: that it runs, not how fast")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="cases whose names contain this; may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="name the cases and do nothing")
    parser.add_argument("--repeats", type=int, help="runs of each side at most (the budget of a case may allow fewer)")
    parser.add_argument("--minutes", type=float, help="begin no case later than that (quick: 20; full: no limit)")
    places = parser.add_mutually_exclusive_group()
    places.add_argument("--out", type=user_path, help="folder for the results (default benchmarks/results)")
    places.add_argument(
        "--continue", dest="begun", type=user_path, metavar="FILE", help="go on with what it has measured"
    )
    options = parser.parse_args(arguments)
    kind = next((kind for kind in ("full", "gpu", "tiny") if getattr(options, kind)), "quick")
    if kind == "gpu" and not (options.list or torch.cuda.is_available()):
        parser.error("--gpu: this machine has no CUDA device; expected one")
    plan = PLANS[kind]()
    cases = _chosen(plan.cases, options.only)
    if options.list:
        print("\n".join(case.name for case in cases))
        return 0
    repeats = plan.repeats if options.repeats is None else options.repeats
    if repeats < 1:
        raise SystemExit(f"--repeats: got {repeats}; expected at least 1")
    minutes = plan.minutes if options.minutes is None else options.minutes
    before, file = None, None
    if options.begun is not None:
        before, file = begun(options.begun, kind), options.begun
    elif options.out is not None or not (options.only or options.tiny):
        file = (options.out or RESULTS) / f"{stem(kind, options.only)}.json"
    alone = partial(run_alone, kind, steady=plan.steady)
    result = run_all(cases, repeats, kind, _say, plan.peak_size, minutes, before, _writer(file), alone)
    print("\n".join(bars_table(result)))
    if file is not None:
        file.with_suffix(".svg").write_text(svg(result), encoding="utf-8")
        file.with_suffix(".md").write_text(markdown(result, f"{file.stem}.svg"), encoding="utf-8")
        print(f"written: {file.stem}.md, .json and .svg")
    return 0


def _writer(file: Path | None) -> Callable[[dict[str, Any]], None]:
    """Writes a result there, whole or not at all."""

    def write(result: dict[str, Any]) -> None:
        if file is None:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(result, indent=1) + "\n")

    return write


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _chosen(cases: tuple[Case, ...], only: list[str] | None) -> list[Case]:
    found = [case for case in cases if only is None or any(name in case.name for name in only)]
    if not found:
        raise SystemExit(f"--only {' '.join(only or [])}: no case has this in its name; `--list` names them")
    return found


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks.zoo_pulls`: see the package's docstring."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests" / "support")]

from benchmarks.checks import Check  # noqa: E402
from benchmarks.machine import described  # noqa: E402
from benchmarks.zoo_pulls import __doc__ as usage  # noqa: E402
from benchmarks.zoo_pulls.kills import kills  # noqa: E402
from benchmarks.zoo_pulls.page import FILE, write_page  # noqa: E402
from benchmarks.zoo_pulls.pulls import pulls  # noqa: E402
from benchmarks.zoo_pulls.server import Server  # noqa: E402
from benchmarks.zoo_pulls.site import make_entry, make_site  # noqa: E402
from benchmarks.zoo_pulls.together import together  # noqa: E402
from miniwin.files.writing import write_json  # noqa: E402

HIDDEN_SIZE = 256  # of the model: 2.4 MB of weights, more than a download reads at once


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.zoo_pulls",
        description=usage,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pulls", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=4, help="pulls that go on side by side, of different users")
    parser.add_argument("--processes", type=int, default=10, help="that pull one model at once")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the faults, and of the moments of the kills")
    parser.add_argument("--write", action="store_true", help="write results.json and README.md beside this file")
    parser.add_argument("--page", action="store_true", help="write README.md anew, and nothing else")
    options = parser.parse_args(arguments)
    if options.page:
        print(write_page())
        return 0
    with tempfile.TemporaryDirectory() as folder:
        results, checks = measured(Path(folder), options)
    if options.write:
        write_json(FILE, results)
        print(write_page())
    return int(any(one.wrong for one in checks))


def measured(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], list[Check]]:
    entry = make_entry(folder, HIDDEN_SIZE)
    contents = make_site(entry, folder / "site")
    with Server() as server:
        asked = pulls(folder, entry, contents, server, count=options.pulls, seed=options.seed, at_once=options.at_once)
        print(f"{asked.succeeded} of {options.pulls} pulls succeeded at once, {asked.refused} ended with an error")
        print(*asked.checks(), sep="\n", flush=True)
        race = together(folder, entry, contents, server, options.processes)
        print(*race, sep="\n", flush=True)
        killed = kills(folder, entry, contents, server, options.kills, options.seed)
        print(f"{sum(killed.killed.values())} kills: {dict(killed.killed)}")
        print(*killed.checks(), sep="\n", flush=True)
    files = [data for path, data in contents.items() if path != "index.json"]
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": described(),
        "seed": options.seed,
        "bytes": sum(map(len, files)),
        "files": len(files),
        "pulls": {**vars(asked), "wrong": None, "count": options.pulls, "checks": _said(asked.checks())},
        "together": {"processes": options.processes, "checks": _said(race)},
        "kills": {**vars(killed), "wrong": None, "checks": _said(killed.checks())},
    }
    return about, [*asked.checks(), *race, *killed.checks()]


def _said(checks: list[Check]) -> list[dict[str, Any]]:
    return [asdict(one) for one in checks]


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks.search_ladder --study FOLDER --workers 2`"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.search_ladder.running import HERE, cost, keep, run
from miniwin.search.live_table import summary


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_ladder", description=__doc__)
    parser.add_argument("--study", type=Path, default=Path("runs/searches/search-ladder"), help="the study folder")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--to", type=Path, default=HERE, help="where the page and its files go")
    options = parser.parse_args()
    for line in summary(run(options.study, options.workers)):
        print(line)
    print(cost(options.study))
    for path in keep(options.study, options.to):
        print(f"written: {path}")


if __name__ == "__main__":
    main()

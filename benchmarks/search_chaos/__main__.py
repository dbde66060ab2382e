"""`python -m benchmarks.search_chaos`: see the package's docstring."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests" / "support")]

from benchmarks.search_chaos import __doc__ as usage  # noqa: E402
from benchmarks.search_chaos.running import chaos  # noqa: E402
from benchmarks.search_chaos.study import STEPS  # noqa: E402
from miniwin.provenance import code_version  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search_chaos",
        description=usage,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--journal", action="store_true", help="in a journal file, not in PostgreSQL")
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=STEPS, help="of each training")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    parser.add_argument("--folder", type=Path, help="work here, and leave it; otherwise a temporary folder")
    options = parser.parse_args(arguments)
    from postgres import missing, running_postgres  # of tests/support

    if not options.journal and (reason := missing()):
        parser.error(f"{reason}: apt-get install postgresql and pip install 'miniwin[postgres]', or --journal")
    print(f"commit {code_version()}", flush=True)
    with (
        tempfile.TemporaryDirectory() if options.folder is None else nullcontext(options.folder) as folder,
        nullcontext() if options.journal else running_postgres() as server,
    ):
        wanted = {name: getattr(options, name) for name in ("kills", "workers", "steps", "seed")}
        checks = chaos(Path(folder), server, **wanted)
    print(*checks, sep="\n")
    return int(any(one.wrong for one in checks))


if __name__ == "__main__":
    sys.exit(main())

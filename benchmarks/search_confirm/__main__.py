"""`python -m benchmarks.search_confirm`: see the package's docstring."""

from __future__ import annotations

import argparse
import sys

from benchmarks.search_confirm import __doc__ as usage
from benchmarks.search_confirm.documents import FILE, load, take
from benchmarks.search_confirm.page import write_page
from benchmarks.search_grid.grid import SPACE
from benchmarks.search_grid.table import TABLE
from benchmarks.search_regret.__main__ import problem_of
from benchmarks.search_regret.cases import QUESTIONS
from miniwin.specs import UserError, user_path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search_confirm",
        description=usage,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--take", type=user_path, metavar="STUDY", help="write documents.json from the confirmation of this study"
    )
    parser.add_argument("--length", type=int, metavar="TOKENS", help="with --take: the length; default: the longest")
    options = parser.parse_args(arguments)
    try:
        if options.take:
            take(options.take, options.length)
            print(FILE)
        else:
            print(write_page(problem_of(TABLE, SPACE, QUESTIONS[0]), load()))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

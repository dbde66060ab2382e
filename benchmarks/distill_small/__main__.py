"""`python -m benchmarks.distill_small`: see the package's docstring."""

from __future__ import annotations

import argparse
import sys

from benchmarks.distill_small import __doc__ as usage
from benchmarks.distill_small.page import FILE, write_page
from benchmarks.distill_small.plan import ARMS
from benchmarks.distill_small.running import Places, arm_of, results, states
from miniwin.files.writing import write_json
from miniwin.specs import UserError, user_path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.distill_small",
        description=usage,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--teacher", type=user_path, metavar="IMPORT", help="what `miniwin import` made of SmolLM2")
    parser.add_argument("--corpora", type=user_path, metavar="FOLDER", help="where the novels are")
    parser.add_argument("--work", type=user_path, metavar="FOLDER", help="for runs and the teacher's states")
    parser.add_argument("--only", choices=(*ARMS, "states"), help="a part of the work")
    parser.add_argument("--page", action="store_true", help="write README.md anew, and nothing else")
    options = parser.parse_args(arguments)
    try:
        if options.page:
            print(write_page())
            return 0
        if not (options.teacher and options.corpora and options.work):
            parser.error("--teacher, --corpora and --work have to be given")
        places = Places(options.teacher.resolve(), options.corpora.resolve(), options.work.resolve())
        if options.only == "states":
            states(places)
            return 0
        for arm in ARMS if options.only is None else (options.only,):
            arm_of(arm, places)
        if options.only is None:
            write_json(FILE, results(places))
            print(write_page())
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks.adapt`: see the package's docstring."""

from __future__ import annotations

import argparse
import sys

from benchmarks.adapt import __doc__ as usage
from benchmarks.adapt.keeping import take, time_decoding
from benchmarks.adapt.page import write_page
from miniwin.specs import UserError, user_path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.adapt", description=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--take", type=user_path, metavar="DIR", help="keep the adapt.json of this folder")
    parser.add_argument("--time", nargs=2, metavar=("MODEL", "DIR"), help="decode with the original and with DIR")
    parser.add_argument("--length", type=int, default=8192, help="with --time: tokens in the cache")
    parser.add_argument("--repeats", type=int, default=5, help="with --time")
    options = parser.parse_args(arguments)
    try:
        if options.take:
            print(take(options.take))
        if options.time:
            model, folder = options.time
            print(time_decoding(model, user_path(folder), options.length, options.repeats))
        if not options.take and not options.time:
            print(write_page())
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

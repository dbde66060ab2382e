"""`python -m benchmarks.search_grid`: see the package's docstring."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.search_grid import __doc__ as usage
from benchmarks.search_grid import results
from benchmarks.search_grid.grid import of_shard, shard
from miniwin.specs import UserError, user_path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search_grid", description=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="name the runs and say which are done")
    parser.add_argument("--table", action="store_true", help="write grid.parquet and README.md from the result files")
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="the I-th of N processes that share the runs")
    parser.add_argument("--most", type=int, metavar="RUNS", help="stop after so many new results")
    parser.add_argument("--dirty", action="store_true", help="run although the checkout has changes")
    parser.add_argument("--results", type=user_path, help="folder of the result files; default: in the user's cache")
    options = parser.parse_args(arguments)
    try:
        folder = options.results or results.default_folder()
        if options.table:
            from benchmarks.search_grid.card import write_table_and_card

            for path in write_table_and_card(folder):
                print(path)
            return 0
        which = shard(options.shard)
        if options.list:
            for run in of_shard(which):
                found = results.read(run, folder)
                print(f"{run.name}  {run.described}  {'to do' if found is None else found['status']}")
            return 0
        return _run(which, folder, options.most, options.dirty)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _run(which: tuple[int, int], folder: Path, most: int | None, dirty: bool) -> int:
    import torch

    from benchmarks.search_grid.running import measured
    from miniwin.provenance import code_version

    if code_version().endswith(".dirty") and not dirty:
        raise UserError(
            "the checkout has changes, so that its commit would not say what made the results: commit them, or say "
            "--dirty"
        )
    torch.set_num_threads(1)
    done = 0
    for run in of_shard(which):
        if results.read(run, folder) is not None:
            continue
        if most is not None and done >= most:
            break
        result = measured(run, folder / "work" / run.name)
        results.write(run, result, folder)
        done += 1
        print(f"{run.name}  {run.described}  {result['status']}{_shown(result)}", flush=True)
    return 0


def _shown(result: dict[str, object]) -> str:
    rungs = result["rungs"]
    if not isinstance(rungs, list) or not rungs:
        return f": {result['reason']}"
    last = rungs[-1]
    seconds = last["train_seconds"] + sum(rung["evaluation_seconds"] for rung in rungs)
    return f", {seconds:.1f} s: " + ", ".join(f"{name} {value}" for name, value in last["metrics"].items())


if __name__ == "__main__":
    sys.exit(main())

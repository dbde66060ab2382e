"""`python -m benchmarks.search_regret`: see the package's docstring."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.search_grid.grid import SPACE
from benchmarks.search_grid.table import TABLE, Table
from benchmarks.search_regret import __doc__ as usage
from benchmarks.search_regret import results
from benchmarks.search_regret.cases import QUESTIONS, Question, cases
from benchmarks.search_regret.problem import Problem
from miniwin.search.space import Space
from miniwin.specs import UserError, load_model_spec, load_search_spec, load_train_spec, user_path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search_regret",
        description=usage,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="name the cases and say which are done")
    parser.add_argument("--page", action="store_true", help="write README.md and its plot from the result files")
    parser.add_argument("--placements", action="store_true", help="which coding of placements suits TPE; two minutes")
    parser.add_argument("--only", default="", metavar="NAME", help="only cases whose names begin so")
    parser.add_argument("--seeds", type=int, metavar="N", help="searches of each case, if fewer than usual")
    parser.add_argument(
        "--table", type=user_path, default=TABLE, help="a table in the format of benchmarks.search_grid"
    )
    parser.add_argument("--space", type=user_path, default=SPACE, help="the search spec whose variables it has")
    parser.add_argument("--results", type=user_path, default=results.FOLDER, help="folder of the result files")
    options = parser.parse_args(arguments)
    try:
        if options.page:
            from benchmarks.search_regret.page import write_page

            for path in write_page(options.table, options.space, options.results):
                print(path)
            return 0
        if options.placements:
            from benchmarks.search_regret.placements import write

            print(write(options.results))
            return 0
        _run(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace) -> None:
    import optuna

    from benchmarks.search_regret.curves import found
    from benchmarks.search_regret.truth import truth

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    mark = results.fingerprint(options.table) if options.table.is_file() else ""
    for question in QUESTIONS:
        problem = problem_of(options.table, options.space, question)
        known = truth(problem)
        for case in cases(problem, (question,)):
            if not case.name.startswith(options.only):
                continue
            seeds = min(case.sampler.seeds, options.seeds or case.sampler.seeds)
            before = results.read(case, mark, options.results)
            done = before is not None and len(before["searches"]) >= seeds
            if options.list:
                print(f"{case.name}  {'done' if done else 'to do'}")
            elif not done:
                began = time.monotonic()
                searches = [found(problem, known, case, seed, whole_curve=case.whole_curve) for seed in range(seeds)]
                results.write(case, mark, searches, options.results)
                took = (time.monotonic() - began) / sum(one.trials for one in searches)
                print(f"{case.name}  {seeds} searches, {1000 * took:.1f} ms a trial", flush=True)


def problem_of(table: Path, space: Path, question: Question) -> Problem:
    spec, folder = load_search_spec(space), space.resolve().parent
    made = Space(spec, load_model_spec(folder / spec.base), load_train_spec(folder / spec.train))
    return Problem(Table.load(table), made, question.parsed)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks.claims`: see the package's docstring."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.claims import __doc__ as usage
from benchmarks.claims import filler, results, speed
from benchmarks.claims.experiments import EXPERIMENTS, trained_as
from miniwin.specs import UserError, user_path

OTHER = {filler.NAME: filler, speed.NAME: speed}  # measured by themselves, when nothing else runs


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.claims", description=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the experiment quick, and whether the order came out")
    parser.add_argument("--only", choices=[*sorted(EXPERIMENTS), *OTHER], help="one experiment")
    parser.add_argument("--variant", action="append", help="one variant; may be repeated")
    parser.add_argument("--seed", type=int, action="append", help="one seed, from 0; may be repeated")
    parser.add_argument("--list", action="store_true", help="name the runs and say which are done")
    parser.add_argument("--page", action="store_true", help="write README.md and the plots from the result files")
    parser.add_argument("--choose", action="store_true", help="score the champion's seeds on validation, name the best")
    parser.add_argument("--results", type=user_path, default=results.FOLDER, help="folder of the result files")
    options = parser.parse_args(arguments)
    try:
        if options.page:
            from benchmarks.claims.page import write_page

            print(write_page(options.results))
            return 0
        if options.quick:
            from benchmarks.claims.quick import quick

            return quick()
        if options.choose:
            from benchmarks.claims.choosing import choose

            choose(EXPERIMENTS[options.only or "champion"], folder=options.results)
            return 0
        if options.only in OTHER:
            refused = [f"--{name}" for name in ("list", "variant", "seed") if getattr(options, name)]
            if refused:
                raise UserError(f"--only {options.only} measures all of it; expected no {', '.join(refused)}")
            OTHER[options.only].measure(options.results)
            return 0
        return _runs(options.only, options.variant, options.seed, options.list, options.results)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _runs(only: str | None, variants: list[str] | None, seeds: list[int] | None, listed: bool, folder: Path) -> int:
    from benchmarks.claims.running import is_done, run
    from benchmarks.claims.tuning import sweep

    # Seed by seed, so that whatever is there when a run is stopped compares all variants.
    wanted = [
        (experiment, variant, seed)
        for experiment in EXPERIMENTS.values()
        if (only is None and experiment.name != "quick") or experiment.name == only
        for seed in range(experiment.seeds)
        for variant in experiment.variants
        if (variants is None or variant in variants) and (seeds is None or seed in seeds)
    ]
    if not wanted:
        asked = f"--only {only}" if only else "the experiments"
        known = sorted(
            {variant for one in EXPERIMENTS.values() if only in (None, one.name) for variant in one.variants}
        )
        raise UserError(f"{asked}: no run of variant {variants} and seed {seeds}; variants: {', '.join(known)}")
    for experiment, variant, seed in wanted:
        if listed:
            said = "done" if is_done(experiment, variant, seed, folder) else "to do"
            print(f"{experiment.name}  {variant}  seed {seed}  {said}")
            continue
        if trained_as(experiment).tuned:
            sweep(trained_as(experiment), variant, folder)
        if not is_done(experiment, variant, seed, folder):
            print(run(experiment, variant, seed, folder), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

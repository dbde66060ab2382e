"""`python benchmarks/search_overhead.py`: what a search costs beside training and evaluating.

    looking    seconds of `search status`, `report` and `export` of a study with thousands of trials
    no-op      trials a second of many workers whose trials end at once, in PostgreSQL (the tests' throwaway server) or
               in a journal file
    trials     seconds that a worker spends on a trial beside training and evaluating it, as a share of 20 s

Each figure has the processor time beside the wall time: on a machine that has other work only the former says much. The
processor time of no-op trials is that of the workers, without the server.
The share of a trial is what is left of the wall time of a worker, from its first claim to its end, when the seconds of
its trials are taken off. Their models are tiny: what is left does not depend on the length of training.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from miniwin.search.study import Study

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # run as a file, it finds neither its package nor the tests' server
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

OBJECTIVES = ("loss@64", "cache_bytes@64")
VARIABLES = {"ratio": (1, 3), "window": (2, 900), "factor": (1, 900)}
TRIAL_SECONDS = 20.0  # of the trial that the overhead is a share of
WAIT_SECONDS = 600.0


def make_study(folder: Path, trials: int, url: str | None = None, **changes: Any) -> Study:
    """A study of the tests' small search, with a space that is large enough."""
    from search_helpers import make

    changes = {
        "variables": {name: {"int": list(ends)} for name, ends in VARIABLES.items()},
        "constraints": [],
        "objectives": [f"minimize {name}" for name in OBJECTIVES],
        "budget": {"trials": trials},
    } | changes
    folder.mkdir(parents=True, exist_ok=True)
    return make(folder, url, **changes)


def fill(study: Study) -> None:
    """Write as many trials as the study is to have, half of them pruned, as a search would have left them."""
    import optuna
    from optuna.distributions import IntDistribution
    from optuna.trial import TrialState, create_trial

    from miniwin.search.outcome import Outcome

    draw, seen, told = random.Random(0), set(), []
    distributions = {name: IntDistribution(*ends) for name, ends in VARIABLES.items()}
    while len(told) < study.spec.budget.trials:
        params = {name: draw.randint(*ends) for name, ends in VARIABLES.items()}
        assignment = study.space.assign(params)
        candidate = assignment.candidate
        if candidate is None or candidate.hash in seen:
            continue
        seen.add(candidate.hash)
        outcome = Outcome.begin(len(told), assignment, candidate)
        outcome.tokens, outcome.seconds = 1536, TRIAL_SECONDS
        outcome.losses = {length: draw.gauss(2, 0.1) for length in (32, 64, 128, 256, 512)}
        values = {"loss@64": outcome.losses[64], "cache_bytes@64": float(10 * params["window"])}
        outcome.rungs = [{"tokens": tokens, "values": values} for tokens in (384, 768)]
        complete = draw.random() < 0.5
        if complete:
            outcome.values = values
        outcome.end("complete" if complete else "pruned", None if complete else "behind the others")
        with patch("os.fsync"):  # of thousands of files
            outcome.write(study.trial_folder(candidate.hash))
        attributes = {"state": outcome.state, "hash": candidate.hash, "layout": outcome.layout}
        told.append(
            create_trial(
                state=TrialState.COMPLETE if complete else TrialState.PRUNED,
                values=list(values.values()) if complete else None,
                params=params,
                distributions=distributions,
                user_attrs=attributes,
            )
        )
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study.optuna.add_trials(told)


def looking(trials: int) -> list[dict[str, Any]]:
    """Wall and processor seconds of the commands that look at a study, each in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        study = make_study(Path(name), trials)
        fill(study)
        rows = []
        for command in ("status", "report", "export"):
            more = ["--to", str(Path(name) / "trials.csv")] if command == "export" else []
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            subprocess.run(
                [sys.executable, "-m", "miniwin", "search", command, str(study.folder), *more],
                check=True,
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
            )
            wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            rows.append({"what": f"{command} of {trials:,} trials", "wall_seconds": wall, "cpu_seconds": spent})
        return rows


def no_op(trials: int, workers: int, postgres: bool) -> list[dict[str, Any]]:
    """Trials a second of workers that only claim and finish."""
    from postgres import running_postgres  # of tests/support

    with tempfile.TemporaryDirectory() as name, running_postgres() if postgres else nullcontext() as server:
        folder = Path(name)
        url = None if server is None else server.database("studies")
        study = make_study(folder, trials, url)
        environment = {**os.environ, "MINIWIN_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        if url is not None:
            environment |= {"MINIWIN_STORAGE_URL": url, "MINIWIN_STORAGE_PASSWORD": url.split("@")[0].split(":")[-1]}
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", str(study.folder)]
        running = [subprocess.Popen([*command, str(number)], env=environment) for number in range(workers)]
        deadline = time.monotonic() + WAIT_SECONDS
        while len(list(folder.glob("study/ready-*"))) < workers:
            assert time.monotonic() < deadline and all(one.poll() is None for one in running), "a worker failed"
            time.sleep(0.05)
        (study.folder / "go").touch()
        for process in running:
            assert process.wait() == 0, "a worker failed"
        spans = [json.loads(path.read_text()) for path in folder.glob("study/span-*")]
        wall = max(span["end"] for span in spans) - min(span["begin"] for span in spans)
        spent = sum(span["cpu"] for span in spans)
        return [
            {
                "what": f"{trials:,} no-op trials, {workers} workers, {'PostgreSQL' if postgres else 'journal'}",
                "wall_seconds": wall,
                "cpu_seconds": spent,
                "trials_per_second": trials / wall,
                "cpu_seconds_per_trial": spent / trials,
            }
        ]


def work_at_nothing(folder: Path, worker: str) -> None:
    """Claim trials and end them at once, until there are none left."""
    from miniwin.search.claims import Claim, finish, take_work
    from miniwin.search.leases import Holding
    from miniwin.search.study import Study

    study, draw = Study(folder), random.Random(worker)
    _ = study.optuna, study.space
    (folder / f"ready-{worker}").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    begin, before = time.time(), time.process_time()
    while True:
        claim = take_work(study, worker)
        if isinstance(claim, Claim):
            with Holding(claim.entry, claim.lease) as holding:
                claim.outcome.values = {name: draw.gauss(2, 0.1) for name in OBJECTIVES}
                claim.outcome.end("complete")
                holding.end()
                finish(study, claim)
                holding.given_up = study.stored
        elif claim.over:
            break
        else:
            time.sleep(0.05)
    span = {"begin": begin, "end": time.time(), "cpu": time.process_time() - before}
    (folder / f"span-{worker}").write_text(json.dumps(span))


def trials(count: int) -> list[dict[str, Any]]:
    """Seconds of one worker beside training and evaluating, for a trial."""
    from miniwin.search import read_study
    from miniwin.search.worker import DONE, work

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work(make_study(folder / "first", 1).folder, "0")  # imports, and the tokenised text in the cache
        study = make_study(folder / "second", count)
        began, before = time.monotonic(), time.process_time()
        assert work(study.folder, "0") == DONE
        wall, spent = time.monotonic() - began, time.process_time() - before
        counted = sum(trial.seconds for trial in read_study(study.folder).trained)
        beside = (wall - counted) / count
        return [
            {
                "what": f"a trial beside training and evaluating, of {count}",
                "wall_seconds": beside,
                "cpu_seconds": spent * (wall - counted) / wall / count,
                "share_of_20_s": beside / TRIAL_SECONDS,
            }
        ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What a search costs beside training and evaluating.")
    parts = ("looking", "no-op", "trials")
    # A default that is one of the choices: argparse refuses an empty list.
    parser.add_argument("parts", nargs="*", choices=[*parts, "all"], default="all", metavar="PART", help="default: all")
    parser.add_argument("--looked-at", type=int, default=5000, help="trials of the study that is looked at")
    parser.add_argument("--claimed", type=int, default=1000, help="no-op trials")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--trained", type=int, default=20, help="real trials")
    parser.add_argument("--journal", action="store_true", help="no-op trials in a journal file, not in PostgreSQL")
    parser.add_argument("--json", type=Path, help="also write the figures here, with the commit and the machine")
    options = parser.parse_args(arguments)
    wanted = parts if "all" in options.parts else options.parts
    rows: list[dict[str, Any]] = []
    if "looking" in wanted:
        rows += looking(options.looked_at)
    if "no-op" in wanted:
        rows += no_op(options.claimed, options.workers, not options.journal)
    if "trials" in wanted:
        rows += trials(options.trained)
    for row in rows:
        figures = ", ".join(f"{value:.4g} {name.replace('_', ' ')}" for name, value in row.items() if name != "what")
        print(f"{row['what']}: {figures}")
    if options.json:
        about = {"command": " ".join(["benchmarks/search_overhead.py", *(arguments or sys.argv[1:])])}
        from benchmarks.machine import described, load

        found = {**about, "machine": described(), "load_at_the_end": load(), "rows": rows}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work_at_nothing(Path(sys.argv[2]), sys.argv[3])
    else:
        main()

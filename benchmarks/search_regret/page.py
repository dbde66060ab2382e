"""README.md: how many tokens each sampler and pruner needs. No figure is typed by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from benchmarks.search_regret import placements, results
from benchmarks.search_regret.cases import PRUNERS, QUESTIONS, SAMPLERS, Question
from benchmarks.search_regret.curves import POINTS, SHARE
from benchmarks.search_regret.plot import write_plot
from benchmarks.search_regret.problem import REDUCTION, Problem
from benchmarks.search_regret.summary import Summary, all_summaries
from benchmarks.search_regret.truth import WITHIN, Truth, truth
from miniwin.files.writing import write_text
from miniwin.search.samplers.ways import FEW
from miniwin.specs import UserError

DEFAULT = ("tpe-ordinal", "halving")
UNPRUNED = ("tpe-ordinal", "none")  # the default where something else than loss is measured, too
AIMS = {"random": Fraction(1, 8), "tpe": Fraction(1, 2), "grid": Fraction(1, 10)}
FOLDER = Path(__file__).parent
Found = Mapping[tuple[str, str], Summary]

HEAD = f"""# How many tokens a search needs

`python -m benchmarks.search_regret --page` writes this page from the result files of
`python -m benchmarks.search_regret`. No figure is typed by hand. Searches are replayed over [a grid of small
architectures](../search_grid/README.md): nothing is trained, samplers and pruners are those of real searches, and the
clock counts the tokens of all workers.

The unit is a *training*: the tokens of one architecture trained to the end. A table's cells are the median over seeds,
with 10 and 90 percent of them in brackets: trainings until the aim is reached. `halving` and `hyperband` reduce by
{REDUCTION}. Few architectures, one data set and seconds of training: the order of samplers may differ where yours do.

- With one objective the aim is an architecture within {WITHIN:.0%} of the best, once the noise of seeds is taken off
  (truth.py). What a search has found is the architecture with the best *measured* value.
- With several objectives the aim is {SHARE:.0%} of the hypervolume of all architectures, up to the worst value of each.
- `tpe` and `gp` know a placement letter by letter, `tpe-ordinal` and `gp-ordinal` by its rank.

A search that names no sampler and no pruner is `{DEFAULT[0]}` with `{DEFAULT[1]}` where all that it measures is loss,
and `{UNPRUNED[0]}` without pruning where it also measures recall. With one objective its aims are at most
{AIMS["random"]} of the tokens of random search without pruning, and {AIMS["tpe"]} of those of plain TPE; with several,
{SHARE:.0%} of the hypervolume at {AIMS["grid"]} of the grid's tokens. Where an aim is missed with several workers: they
begin trials before those beside them have reached a rung, so these tokens are spent in the dark. Recall is learnt in a
late jump that the early rungs do not foretell: halving would stop the wrong trials, so nothing stops any.

![regret and hypervolume against tokens](plot.svg)
"""

PLACEMENTS = f"""## Ranks or letters

`python -m benchmarks.search_regret --placements`: a search chooses some layers of a number of layers, and the loss is
made up: a sum over the chosen layers and their pairs. The figures are the best loss after {placements.TRIALS} trials
minus that of random search, means over {placements.SEEDS} seeds; less is better. A search with TPE uses ranks where a
placement has at most {FEW} values, and letters where it has more.

"""


def write_page(table: Path, space: Path, folder: Path, out: Path = FOLDER) -> list[Path]:
    """README.md and plot.svg.

    Raises:
        UserError: there is no table, or no result of it.
    """
    from benchmarks.search_regret.__main__ import problem_of

    problems = {question: problem_of(table, space, question) for question in QUESTIONS}
    mark = results.fingerprint(table)
    found = {question: all_summaries(question, mark, folder) for question in QUESTIONS}
    if not any(cases for by_workers in found.values() for cases in by_workers.values()):
        raise UserError(f"{folder}: has no result of this table; python -m benchmarks.search_regret makes them")
    parts = [HEAD, _made(folder)]
    for question, problem in problems.items():
        parts.append(_question(question, problem, truth(problem), found[question]))
    if (coded := folder / placements.FILE).exists():
        parts.append(PLACEMENTS + coded.read_text(encoding="utf-8"))
    plot = write_plot({question: by_workers[1] for question, by_workers in found.items()}, out / "plot.svg")
    write_text(out / "README.md", "\n".join(parts))
    return [out / "README.md", plot]


def _made(folder: Path) -> str:
    commits = sorted({json.loads(path.read_text(encoding="utf-8"))["commit"] for path in folder.glob("*.json")})
    return f"Results by commit {', '.join(commits)}.\n"


def _question(question: Question, problem: Problem, known: Truth, found: Mapping[int, Found]) -> str:
    lines = [f"## {', '.join(question.objectives)}", "", _facts(question, problem, known), ""]
    for workers, cases in found.items():
        if cases:
            lines += [f"With {workers} worker{'s' if workers > 1 else ''}:", "", *_table(question, cases), ""]
            lines += [*_verdicts(question, cases, len(known.values)), ""]
    return "\n".join(lines)


def _facts(question: Question, problem: Problem, known: Truth) -> str:
    near = sum(known.near(entry.row) for entry in problem.entries.values() if entry.complete)
    noise = ", ".join(f"{one.name} {value:.2g}" for one, value in zip(problem.objectives, known.noise, strict=True))
    said = f"{len(known.values)} architectures; a seed moves {noise}."
    return said if len(question.objectives) > 1 else f"{said} {near} are within {WITHIN:.0%} of the best."


def _table(question: Question, cases: Found) -> list[str]:
    pruners = [pruner for pruner in PRUNERS if any(pruner == one for _, one in cases)]
    lines = ["| sampler | seeds | " + " | ".join(pruners) + " |", "|---" * (len(pruners) + 2) + "|"]
    for sampler in SAMPLERS:
        row = [cases.get((sampler.name, pruner)) for pruner in pruners]
        if any(row):
            seeds = min(one.seeds for one in row if one)
            lines.append(f"| {sampler.name} | {seeds} | " + " | ".join(map(_cell, row)) + " |")
    return lines


def _cell(found: Summary | None) -> str:
    if found is None:
        return "-"
    low, middle, high = map(_number, found.trainings)
    missed = found.seeds - found.reached
    return f"{middle} [{low}, {high}]" + (f", {missed} never" if missed else "")


def _number(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "never"


def _verdicts(question: Question, cases: Found, architectures: int) -> list[str]:
    """What the search of today is compared with."""
    by_loss = all(one.row.how == "text" for one in question.parsed if one.measured)
    default = DEFAULT if by_loss else UNPRUNED
    own = cases.get(default)
    if own is None:
        return []
    lines, name = [], f"{default[0]} {'without pruning' if default[1] == 'none' else 'with ' + default[1]}"
    for other in (("random", "none"), ("tpe", "none")):
        if other in cases:
            least = AIMS[other[0]]
            ratio = own.trainings[1] / cases[other].trainings[1] if math.isfinite(own.trainings[1]) else math.inf
            aim = f"; aim {least}: {_met(ratio <= least)}" if len(question.objectives) == 1 else ""
            lines.append(f"- {name} needs {ratio:.2f} of the tokens of {other[0]} without pruning (medians{aim}).")
    if len(question.objectives) > 1 and own.curve is not None:
        tenth = max(place for place, point in enumerate(POINTS) if point <= architectures * AIMS["grid"])
        lines.append(
            f"- {name} has {own.curve[1][tenth]:.1%} of the hypervolume after {POINTS[tenth]:.1f} "
            f"trainings, {POINTS[tenth] / architectures:.0%} of the grid's tokens (median; aim {SHARE:.0%}: "
            f"{_met(own.curve[1][tenth] >= SHARE)})."
        )
    return lines


def _met(whether: bool) -> str:
    return "met" if whether else "missed"

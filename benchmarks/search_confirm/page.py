"""README.md: what the simulated confirmations say. No figure is typed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.search_confirm.documents import Documents
from benchmarks.search_confirm.simulation import Kept, confirmations, kept
from benchmarks.search_regret.problem import Problem
from benchmarks.search_regret.truth import truth
from miniwin.evaluation.intervals import Interval
from miniwin.files.writing import write_text

FOLDER = Path(__file__).parent
COUNT = 4000
SEEDS = (2, 3, 5)
TRIED = (12, 40)

HEAD = """# How far the interval of a confirmation can be trusted

`python -m benchmarks.search_confirm` writes this page. No figure is typed by hand. Searches and their confirmations
are simulated over [a grid of small architectures](../search_grid/README.md), where the truth is known: `simulation.py`
says how. The interval is that of `miniwin search confirm`, and should hold the truth in 95 % of all confirmations.
"""

WORDS = """
- *holds the truth*: how often the interval did, with 95 % intervals of the share itself.
- *better*: how often the confirmation said that the winner is better. *wrong sign*: how often what it said was wrong.
- *search alone*: what the search's own two values say, without a confirmation: how often their order is wrong, and how
  far their difference lies from the truth on average. It flatters the winner, which was chosen by its luck too.
"""


def write_page(problem: Problem, documents: Documents, out: Path = FOLDER) -> Path:
    write_text(out / "README.md", page(problem, documents))
    return out / "README.md"


def page(problem: Problem, documents: Documents) -> str:
    known = truth(problem)
    noise = f"{known.noise[0]:.2g} nats per byte"
    facts = (
        f"{COUNT:,} confirmations a line; {len(known.values)} architectures, {problem.objectives[0].name}, a "
        f"seed moves a run by {noise}. Documents: {len(documents.units)} {documents.of['draws']} of the "
        f"confirmation of {documents.of['study']}, at {documents.of['length']:,} tokens, with "
        f"{len(documents.nats)} variants and {documents.nats.shape[1]} seeds."
    )
    names = ("trials", "seeds", "holds the truth", "width", "better", "wrong sign", "off by")
    lines = [HEAD, facts, WORDS, _row(*names, "search alone: wrong", "off by"), "|---" * 9 + "|"]
    for tried in TRIED:
        for seeds in SEEDS:
            lines.append(_line(tried, seeds, kept(confirmations(problem, known, documents, seeds, tried, COUNT))))
    if said := documents.of.get("confirmed"):
        lines += _confirmation(documents.of["study"], said)
    return "\n".join([*lines, ""])


def _confirmation(study: str, said: dict[str, Any]) -> list[str]:
    """The confirmation that the documents come from: what was asked, each training, and the verdicts."""
    seeds = len(said["variants"][0]) - 3
    tokens = f"{said['tokens']:.0e}".replace("e+0", "e")
    confirm = f'"confirm={{top: {len(said["variants"]) - 1}, seeds: {seeds}}}"'
    return [
        f"\n## The confirmation of {study}\n",
        f"`miniwin search run {study} --workers 2 --set budget.tokens_per_trial={tokens} --set {confirm}`, then",
        "`python -m benchmarks.search_confirm --take STUDY`. "
        f"After {said['trials']} trials, {seeds} new seeds each: {said['tokens']:,} tokens a training, "
        f"{said['tested']:,} tokens of the test split at each length. They trained for {said['minutes']} minutes in "
        f"all (code {', '.join(said['code'])}). The columns are {said['by']}, in nats per byte, seed by seed.\n",
        _row("variant", "layout", "variables", *(f"seed {number + 1}" for number in range(seeds))),
        "|---" * (3 + seeds) + "|",
        *(_row(*variant) for variant in said["variants"]),
        "",
        *(f"- {verdict}" for verdict in said["verdicts"]),
    ]


def _line(tried: int, seeds: int, found: Kept) -> str:
    search, confirmed = (f"{value:+.4f}" for value in found.bias)
    shares = (_percent(one) for one in (found.better, found.wrong))
    return _row(
        tried,
        seeds,
        _percent(found.held),
        f"{found.width:.4f}",
        *shares,
        confirmed,
        _percent(found.search_wrong),
        search,
    )


def _percent(found: Interval) -> str:
    return f"{100 * found.value:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"

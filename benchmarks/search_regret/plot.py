"""The plot of the page: how good what was found is against tokens, a panel for each question. Median and 10 to 90
percent of the seeds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.search_regret.cases import SHOWN, Question
from benchmarks.search_regret.curves import POINTS
from benchmarks.search_regret.summary import Summary
from miniwin.files.writing import write_text
from miniwin.specs import UserError

COLOURS = ("#7f8c8d", "#2c6fbb", "#2e8b57", "#c0392b", "#8e44ad", "#b8860b")


def write_plot(found: Mapping[Question, Mapping[tuple[str, str], Summary]], path: Path) -> Path:
    """UserError if matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise UserError("the plot needs matplotlib, which is not installed: pip install matplotlib") from None
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "search regret"  # the same file for the same figures
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(found), figsize=(5 * len(found), 3.8), squeeze=False, layout="constrained")
    for axis, (question, cases) in zip(axes[0], found.items(), strict=True):
        _panel(axis, question, cases)
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    lines = path.read_text(encoding="utf-8").splitlines()
    write_text(path, "\n".join(line.rstrip() for line in lines) + "\n")
    return path


def _panel(axis: Any, question: Question, cases: Mapping[tuple[str, str], Summary]) -> None:
    one = len(question.objectives) == 1
    for colour, name in zip(COLOURS, SHOWN, strict=True):
        if name in cases and (curve := cases[name].curve) is not None:
            low, middle, high = 100 * curve
            axis.plot(POINTS, middle, color=colour, label=f"{name[0]}, {name[1]}")
            axis.fill_between(POINTS, low, high, color=colour, alpha=0.15, lw=0)
    axis.axhline(1 if one else 95, color="#555555", lw=0.8, ls="--")
    axis.set_xscale("log")
    if one:
        axis.set_yscale("symlog", linthresh=1)
    axis.set_title(", ".join(question.objectives), fontsize=9)
    axis.set_xlabel("tokens of all workers, in whole trainings", fontsize=9)
    axis.set_ylabel("% worse than the best" if one else "% of the hypervolume of all", fontsize=9)
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=7)

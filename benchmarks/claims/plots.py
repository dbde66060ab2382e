"""The plots of the page, one for each kind of claim, as SVG: mean over seeds with its 95 % interval, against length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.claims import figures
from benchmarks.claims.experiments import EXPERIMENTS
from benchmarks.claims.speed import LENGTHS, SPEED_VARIANTS
from benchmarks.claims.variants import VARIANTS
from miniwin.evaluation.intervals import Interval, mean

COLOURS = ("#c0392b", "#2c6fbb", "#2e8b57", "#8e44ad", "#b8860b", "#16808c", "#d35400", "#7f8c8d", "#34495e", "#e84393")
SHOWN = ("harmonic-log", "harmonic", "published", "global-rope", "minimind", "minimind-yarn", "no-global", "alibi")


def write_plots(folder: Path, out: Path) -> list[Path]:
    """Write the plots of text, recall, order and speed into `out`, and return their paths."""
    out.mkdir(parents=True, exist_ok=True)
    recall = ("recall",)
    order = ("last-write", "which-first")
    return [
        _text(folder, out / "text.svg"),
        _tasks(folder, recall, out / "recall.svg"),
        _tasks(folder, order, out / "order.svg"),
        _speed(folder, out / "speed.svg"),
    ]


def _figure(panels: int) -> tuple[Any, list[Any]]:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "claims"  # the same file for the same figures
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, panels, figsize=(1 + 4.5 * panels, 3.6), squeeze=False, layout="constrained")
    return figure, list(axes[0])


def _saved(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    path.write_text(
        "\n".join(line.rstrip() for line in path.read_text(encoding="utf-8").splitlines()) + "\n", encoding="utf-8"
    )
    return path


def _line(axis: Any, name: str, colour: str, lengths: Sequence[int], found: Sequence[Interval]) -> None:
    axis.plot(lengths, [one.value for one in found], color=colour, label=name, marker="o", markersize=3)
    known = [
        one if np.isfinite([one.low, one.high]).all() else Interval(one.value, one.value, one.value, 1) for one in found
    ]
    axis.fill_between(lengths, [one.low for one in known], [one.high for one in known], color=colour, alpha=0.15, lw=0)


def _axis(axis: Any, lengths: Sequence[int], title: str, label: str) -> None:
    axis.set_xscale("log", base=2)
    axis.set_xticks(lengths, [f"{n:,}" for n in lengths], fontsize=8)
    axis.minorticks_off()
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("tokens of context", fontsize=9)
    axis.set_ylabel(label, fontsize=9)
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=7)


def _tasks(folder: Path, tasks: Sequence[str], path: Path) -> Path:
    experiment = EXPERIMENTS["tasks"]
    lengths = [length for length, _ in experiment.lengths]
    chances = {task.type: task.chance for task in experiment.tasks}
    figure, axes = _figure(len(tasks))
    for axis, task in zip(axes, tasks, strict=True):
        for colour, variant in zip(COLOURS, (*SHOWN, "harmonic-test-log"), strict=False):
            found = [figures.share("tasks", variant, task, length, folder) for length in lengths]
            known = [(length, one[0]) for length, one in zip(lengths, found, strict=True) if one is not None]
            if known:
                _line(axis, variant, colour, [n for n, _ in known], [one for _, one in known])
        axis.axhline(chances[task], color="#555555", lw=0.8, ls="--")
        axis.set_ylim(-0.02, 1.02)
        _axis(axis, lengths, f"{task} (dashed: chance)", "share right")
    return _saved(figure, path)


def _speed(folder: Path, path: Path) -> Path:
    figure, axes = _figure(2)
    for axis, what in zip(axes, ("prefill_seconds", "decode_seconds"), strict=True):
        for colour, variant in zip(COLOURS, SPEED_VARIANTS, strict=False):
            found = figures.times(variant, what, folder)
            if found:
                _line(axis, variant, colour, list(found), [mean(values) for values in found.values()])
        axis.set_yscale("log")
        _axis(
            axis, LENGTHS, what.replace("_seconds", ""), "seconds" if what.startswith("prefill") else "seconds a token"
        )
    return _saved(figure, path)


def _text(folder: Path, path: Path) -> Path:
    lengths = list(EXPERIMENTS["text"].text)
    figure, axes = _figure(2)
    for axis, top in zip(axes, (None, 0.25), strict=True):
        lowest = []
        for colour, variant in zip(COLOURS, EXPERIMENTS["text"].variants, strict=True):
            assert variant in VARIANTS
            values = [list(figures.bits(variant, length, folder).values()) for length in lengths]
            known = [(length, mean(found)) for length, found in zip(lengths, values, strict=True) if found]
            if known:
                _line(axis, variant, colour, [n for n, _ in known], [one for _, one in known])
                lowest.append(min(one.value for _, one in known))
        if top is not None and lowest:
            axis.set_ylim(min(lowest) - 0.02, min(lowest) + top)
        _axis(axis, lengths, "all" if top is None else "the best of them, larger", "bits per byte")
    return _saved(figure, path)

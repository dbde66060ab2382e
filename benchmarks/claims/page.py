"""README.md of the claims, from the result files: a section for each claim, then every variant at every length."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.claims import figures, filler, results
from benchmarks.claims.experiments import EXPERIMENTS, Experiment, trained_as
from benchmarks.claims.plots import write_plots
from benchmarks.claims.published_claims import Finding, findings, layouts
from benchmarks.claims.tuning import chosen, swept
from benchmarks.claims.variants import VARIANTS
from miniwin.evaluation.intervals import mean
from miniwin.files.writing import write_text

HEAD = """# What this family promises, and what it keeps

This page is written by `python -m benchmarks.claims --page` from the files in `results/`. No figure in its tables is
typed by hand. `python -m benchmarks.claims` makes the files, and with `--only speed` and `--only filler` those two; it
goes on where it was stopped.

In the experiments `tasks`, `position` and `text` all variants have the same size (0.197 M parameters, within 0.3 %),
data, number of tokens, optimizer and schedule. Each has the learning rate that was best for it in steps of 2: the same
sweep for all, one run each with half of the tokens, a seed that no result uses, and data that no result is measured on.
The optimizer, the initial weights and the head width were chosen on `harmonic-log`, with other seeds; for the others
they may not be the best. `longer` and `champion` have more tokens and are not tuned, and `champion` has more layers.
`recipe` has other optimizers and initial weights, and the same sweep of rates for each.

The model of the zoo has a history. With two global layers (`longer`) one of five seeds missed the bar at 64 times the
length. Six layers with narrower MLPs and with further, sparser questions did not learn recall in the two seeds that
were tried; these results were not kept. `champion` is the third design. All three were looked at on the same test
examples. `confirm` asks `champion` others.

Intervals are 95 %, over seeds; they say nothing of other texts. Tasks are measured on examples that occur in no
training data, and text on the validation part of the standard library: its files joined, as many as fill the length.

A verdict follows from the interval: **holds** if all of it agrees with the claim, **does not hold** if none of it does,
else **not distinguishable**.
"""


def write_page(folder: Path = results.FOLDER) -> Path:
    """README.md and the plots, beside the folder of the results."""
    out = folder.parent
    write_plots(folder, out / "plots")
    found = findings(folder)
    parts = [HEAD, _summary(found), _layouts(folder), *map(_section, found)]
    for experiment in EXPERIMENTS.values():
        if experiment.name != "quick":
            parts.append(_table(experiment, folder))
    parts.append(_filler(folder))
    write_text(out / "README.md", "\n".join(parts))
    return out / "README.md"


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _summary(found: list[Finding]) -> str:
    lines = ["## The verdicts", "", _row(["claim", "figure", "verdict"]), "|---|---|---|"]
    return "\n".join([*lines, *(_row([one.claim, one.figure, f"**{one.verdict}**"]) for one in found), ""])


def _layouts(folder: Path) -> str:
    tasks = EXPERIMENTS["tasks"].tasks
    columns = [f"{task.type}: {what}" for task in tasks for what in ("learnt", "kept at 16x")]
    lines = [
        "## The verdict on each layout",
        "",
        "Learnt: at least 0.9 is right at the trained length. Kept: at most 0.05 less is right at 16 times this",
        "length; only what was learnt is asked. The tokens of the experiment `tasks` may be too few for some.",
        "",
        _row(["variant", *columns]),
        "|---" * (1 + len(columns)) + "|",
        *(_row([variant, *cells]) for variant, cells in layouts(folder)),
    ]
    return "\n".join([*lines, ""])


def _section(one: Finding) -> str:
    lines = [f"## {one.claim}", "", f"- Test: {one.test}", f"- Figure: {one.figure}", f"- Verdict: **{one.verdict}**"]
    if one.detail:
        lines.append(f"- Besides: {one.detail}")
    return "\n".join([*lines, "", f"![{one.plot}](plots/{one.plot}.svg)", ""])


def _table(experiment: Experiment, folder: Path) -> str:
    made = list(results.of_experiment(experiment.name, experiment.variants, experiment.seeds, folder))
    lines = [f"## All variants: {experiment.name}", "", f"{experiment.what[0].upper()}{experiment.what[1:]}.", ""]
    if not made:
        return "\n".join([*lines, "Not measured yet.", ""])
    commits = sorted({result["commit"] for result in made})
    steps = {result["steps"] for result in made}
    hours = sum(result["seconds"] for result in made) / 3600
    wanted = len(experiment.variants) * experiment.seeds
    lines += [
        f"{len(made)} of {wanted} runs, {', '.join(map(str, sorted(steps)))} steps, {hours:.1f} hours in "
        f"all. Code: {', '.join(commits)}.",
        "",
    ]
    for task in experiment.tasks:
        lines += [f"### {task.type}", "", f"`{task.model_dump_json()}`; chance {task.chance:.3f}.", ""]
        lines += ["Mean over seeds [95 % interval], worst seed.", ""]
        head = [f"{n:,} ({n // experiment.trained_length}x; {examples} examples)" for n, examples in experiment.lengths]
        lines += [_row(["variant", "seeds", *head]), "|---" * (2 + len(head)) + "|"]
        for variant in experiment.variants:
            shares = [figures.share(experiment.name, variant, task.type, n, folder) for n, _ in experiment.lengths]
            cells = [
                "-" if s is None else f"{s[0].value:.3f} [{s[0].low:.2f}, {s[0].high:.2f}], {s[1].value:.3f}"
                for s in shares
            ]
            lines.append(
                _row([_named(experiment, variant, folder), max((s[0].n for s in shares if s), default=0), *cells])
            )
        lines.append("")
    if experiment.text:
        size = f"{experiment.text_bytes:,} bytes"
        lines += [f"Bits per byte of the same {size} in windows of a length: mean over seeds [95 % interval].", ""]
        lines += [
            _row(["variant", "seeds", *(f"{n:,}" for n in experiment.text)]),
            "|---" * (2 + len(experiment.text)) + "|",
        ]
        for variant in experiment.variants:
            values = [list(figures.bits(variant, n, folder, experiment.name).values()) for n in experiment.text]
            means = [mean(v) if v else None for v in values]
            cells = ["-" if m is None else f"{m.value:.4f} [{m.low:.3f}, {m.high:.3f}]" for m in means]
            lines.append(_row([_named(experiment, variant, folder), max(map(len, values)), *cells]))
        lines.append("")
    if experiment.tuned:
        lines += _tuning(experiment, folder)
    if experiment.ablation:
        lines += _ablations(experiment, made)
    lines += ["What the variants are:", "", *(f"- `{name}`: {VARIANTS[name].what}" for name in experiment.variants), ""]
    return "\n".join(lines)


def _named(experiment: Experiment, variant: str, folder: Path) -> str:
    """The variant, and whether it still waits for its tuning: until then it has the rate of all untuned ones."""
    source = trained_as(experiment)
    waits = source.tuned and chosen(source, variant, folder) is None
    return f"{variant} (not tuned yet)" if waits else variant


def _filler(folder: Path) -> str:
    """What share of the weight of each global layer falls on events, by length."""
    lines = [
        "## What the global layers look at",
        "",
        "The share of a global layer's weight that falls on writes, and not on the filler between them, in the task",
        "last-write: mean over seeds, and the least. Filler grows with the length, and writes do not.",
        "",
        _row(["experiment", "layer", *(f"{n:,}" for n in filler.LENGTHS)]),
        "|---" * (2 + len(filler.LENGTHS)) + "|",
    ]
    for name in filler.MEASURED:
        made = list(results.of_experiment(filler.NAME, (name,), EXPERIMENTS[name].seeds, folder))
        rows = [row for result in made for row in result["shares"]]
        for layer in sorted({row["layer"] for row in rows}):
            found = [[r["share"] for r in rows if (r["layer"], r["length"]) == (layer, n)] for n in filler.LENGTHS]
            cells = [f"{sum(shares) / len(shares):.2f}, {min(shares):.2f}" for shares in found]
            lines.append(_row([f"{name}, {len(made)} seeds", layer, *cells]))
    return "\n".join([*lines, ""])


def _tuning(experiment: Experiment, folder: Path) -> list[str]:
    """What the sweep found for each variant that is trained."""
    swept_by = {n: swept(experiment, n, folder) for n in experiment.variants if VARIANTS[n].weights_of is None}
    rates = sorted({rate for found in swept_by.values() for rate in found})
    lines = [
        "### Learning rates",
        "",
        f"Nats {'of an answer' if experiment.tasks else 'of a byte'} after half of the tokens; the best rate is taken.",
        "",
        _row(["variant", *(f"{rate:g}" for rate in rates)]),
        "|---" * (1 + len(rates)) + "|",
    ]
    for variant, found in swept_by.items():
        best = min(found.values(), default=0.0)
        cells = [f"{found[rate]:.4f}" if rate in found else "-" for rate in rates]
        cells = [f"**{cell}**" if found.get(rate) == best else cell for rate, cell in zip(rates, cells, strict=True)]
        lines.append(_row([variant, *cells]))
    return [*lines, ""]


def _ablations(experiment: Experiment, made: list[dict[str, Any]]) -> list[str]:
    """One row for each silenced head: what is right without it, the mean and the range over seeds."""
    found = [row for result in made for row in result["ablations"]]
    columns = sorted({(row["task"], row["length"]) for row in found})
    lines = [
        "### Without one head",
        "",
        "The share right when one head writes nothing: the mean over seeds, the least and the most. Seeds may",
        "give the same work to different heads.",
        "",
        _row(["head", *(f"{task} at {length:,}" for task, length in columns)]),
        "|---" * (1 + len(columns)) + "|",
    ]
    for layer, kind, head in sorted({(row["layer"], row["kind"], row["head"]) for row in found}):
        cells = []
        for task, length in columns:
            shares = [
                row["share"]
                for row in found
                if (row["layer"], row["head"], row["task"], row["length"]) == (layer, head, task, length)
            ]
            cells.append(f"{sum(shares) / len(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})")
        lines.append(_row([f"layer {layer} ({kind}), head {head}", *cells]))
    return [*lines, ""]

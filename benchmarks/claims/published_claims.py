"""What was claimed of this family (arXiv 2605.27980 and what was written about it): a test, a figure, a verdict each.

A verdict follows from the interval alone. `holds`: all of the interval agrees with the claim. `does not hold`: none of
it does. `not distinguishable`: some of it does. Where nothing was measured yet, the verdict says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.claims import figures
from benchmarks.claims.experiments import EXPERIMENTS
from miniwin.evaluation.intervals import Interval

NOT_MEASURED = "not measured yet"
TOO_FEW = "too few seeds yet"
FAR = 65536  # tokens


@dataclass(frozen=True)
class Finding:
    """plot: the name of the plot that shows it. detail: what else one should know."""

    claim: str
    test: str
    figure: str
    verdict: str
    plot: str
    detail: str = ""


def judged(interval: Interval | None, low: float, high: float) -> str:
    """Whether an interval lies within what was claimed, from low to high."""
    if interval is None:
        return NOT_MEASURED
    if interval.n < 2:
        return TOO_FEW
    if low <= interval.low and interval.high <= high:
        return "holds"
    return "does not hold" if interval.high < low or interval.low > high else "not distinguishable"


def text(interval: Interval | None, form: Callable[[float], str], of: str = "seeds") -> str:
    if interval is None:
        return "-"
    if math.isinf(interval.low):
        return f"{form(interval.value)} (one seed: no interval)"
    return f"{form(interval.value)} [{form(interval.low)}, {form(interval.high)}], {interval.n} {of}"


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def below(value: float) -> str:
    return f"{100 * (value - 1):+.1f} %"


def bits(value: float) -> str:
    return f"{value:+.4f} bits"


def exponent(value: float) -> str:
    return f"{value:.2f}"


def findings(folder: Path) -> list[Finding]:
    """Every claim, in the order in which they are told."""
    return [
        _perplexity(folder),
        _variance(folder),
        _smooth(folder),
        _latency(folder),
        _order(folder, "last-write", 5 / 9, "what looking up the key and knowing the newest write of all gives"),
        _order(folder, "which-first", 2 / 3, "what knowing only the newest of six marks gives"),
        _globals_for_recall(folder),
        _globals_for_text(folder),
        _no_extrapolation_text(folder),
        _no_extrapolation_recall(folder),
        _scaling(folder),
        *(_kept(folder, task.type) for task in EXPERIMENTS["confirm"].tasks),
    ]


def _perplexity(folder: Path) -> Finding:
    ratio = figures.perplexity_ratio("published", "minimind", FAR, folder)
    near = figures.perplexity_ratio("published", "minimind", 256, folder)
    yarn = figures.perplexity_ratio("published", "minimind-yarn", FAR, folder)
    ours = figures.perplexity_ratio("harmonic-log", "published", FAR, folder)
    return Finding(
        "Perplexity is 15 to 20 % below MiniMind's beyond 64k tokens.",
        f"Perplexity per byte at {FAR:,} tokens, 256 times the trained length: at least 15 % below MiniMind's.",
        text(ratio, below),
        judged(ratio, 0.0, 0.85),
        "text",
        f"At the trained length: {text(near, below)}. Against MiniMind with YaRN at test time: {text(yarn, below)}. "
        f"The recommended variant, harmonic-log, against the published one: {text(ours, below)}.",
    )


def _variance(folder: Path) -> Finding:
    ratio = figures.variance_ratio("published", "minimind", FAR, folder)
    near = figures.variance_ratio("published", "minimind", 4096, folder)
    return Finding(
        "The variance of the loss is 30 % lower.",
        f"Variance of the bits per byte of pieces of 1,024 tokens in one window of {FAR:,}, divided by MiniMind's.",
        text(ratio, below),
        judged(ratio, 0.0, 0.7),
        "text",
        f"In a window of 4,096 tokens: {text(near, below)}.",
    )


def _smooth(folder: Path) -> Finding:
    near, far = EXPERIMENTS["far"].text
    change, ours, local = (
        figures.bits_change(name, far, near, folder, "far") for name in ("published", "harmonic-log", "no-global")
    )
    return Finding(
        "The loss is smooth from 8k to 256k tokens.",
        f"Bits per byte of the same text at {far:,} tokens minus those at {near:,}; smooth means at most 0.01.",
        text(change, bits),
        judged(change, -math.inf, 0.01),
        "text",
        f"harmonic-log: {text(ours, bits)}. Without global layers: {text(local, bits)}.",
    )


def _latency(folder: Path) -> Finding:
    found = figures.exponent("published", "prefill_seconds", folder)
    flops = figures.exponent("published", "forward_flops", folder)
    others = [figures.exponent(name, "prefill_seconds", folder) for name in ("no-global", "minimind")]
    return Finding(
        "Latency is linear in the number of tokens.",
        "The exponent of the time to read a prompt of 4,096 to 65,536 tokens: the slope of log time over log length; "
        "linear means at most 1.1.",
        text(found, exponent, "rounds"),
        judged(found, 0.0, 1.1),
        "speed",
        f"Counted in FLOPs: {'-' if flops is None else exponent(flops.value)}. Without global layers: "
        f"{text(others[0], exponent, 'rounds')}. MiniMind: {text(others[1], exponent, 'rounds')}. Global layers are "
        "quadratic, whatever share of the layers they are.",
    )


def _order(folder: Path, task: str, bound: float, why: str) -> Finding:
    found = figures.share("tasks", "published", task, 2048, folder)
    ours, longer = (figures.share(name, "harmonic-log", task, 2048, folder) for name in ("tasks", "longer"))
    interval = None if found is None else found[0]
    return Finding(
        f"Order is kept across windows: {task}.",
        f"Share right at 16 times the trained length: above {bound:.3f}, {why}.",
        text(interval, percent),
        judged(interval, bound, 1.0),
        "order",
        f"harmonic-log: {text(ours and ours[0], percent)}; trained for longer: {text(longer and longer[0], percent)}. "
        f"How the zoo's model does it: see `champion` below.",
    )


def _globals_for_recall(folder: Path) -> Finding:
    lost = figures.share_difference("tasks", ("no-global", 512), ("harmonic-log", 512), "recall", folder)
    every = figures.share("tasks", "nope-log", "recall", 512, folder)
    return Finding(
        "Global layers are needed: for recall.",
        "Recall at 4 times the trained length without any global layer minus that of harmonic-log: at most -0.5.",
        text(lost, percent),
        judged(lost, -1.0, -0.5),
        "recall",
        f"Recall with global layers alone (`nope-log`): {text(every and every[0], percent)}.",
    )


def _globals_for_text(folder: Path) -> Finding:
    ratio = figures.perplexity_ratio("no-global", "harmonic-log", FAR, folder)
    return Finding(
        "Global layers are needed: for the loss of text.",
        f"Perplexity per byte at {FAR:,} tokens without any global layer, divided by that with them.",
        text(ratio, below),
        judged(ratio, 1.0, math.inf),
        "text",
    )


def _no_extrapolation_text(folder: Path) -> Finding:
    change = figures.bits_change("published", FAR, 256, folder)
    return Finding(
        "Nothing has to extrapolate: the loss of text stays.",
        f"Bits per byte of the same text at {FAR:,} minus those at the trained length: not above 0.",
        text(change, bits),
        judged(change, -math.inf, 0.0),
        "text",
    )


def _no_extrapolation_recall(folder: Path) -> Finding:
    return _recall_stays(folder, "published", "Nothing has to extrapolate: recall stays.")


def _scaling(folder: Path) -> Finding:
    found = _recall_stays(
        folder, "harmonic-log", "With log scaling of the global layers recall stays (this project's claim)."
    )
    test_time = figures.share_fall("tasks", "harmonic-test-log", "recall", 2048, 128, folder)
    return replace(found, detail=f"{found.detail} Scaling at test time alone: {text(test_time, percent)}.")


def _recall_stays(folder: Path, variant: str, claim: str) -> Finding:
    learnt = figures.share("tasks", variant, "recall", 128, folder)
    fall = figures.share_fall("tasks", variant, "recall", 2048, 128, folder)
    return Finding(
        claim,
        f"Share of recall of {variant} at the trained length minus that at 16 times: at most 0.05.",
        text(fall, percent),
        _kept_or_not(learnt and learnt[0], fall),
        "recall",
        f"At the trained length: {text(learnt and learnt[0], percent)}.",
    )


def _kept_or_not(learnt: Interval | None, fall: Interval | None) -> str:
    """Only what was learnt can be kept: at least 0.9 at the trained length. Kept: at most 0.05 less is right."""
    found = judged(learnt, 0.9, 1.0)
    return judged(fall, -1.0, 0.05) if found == "holds" else "not learnt" if found == "does not hold" else found


def _kept(folder: Path, task: str) -> Finding:
    (variant,) = EXPERIMENTS["confirm"].variants
    near, far = (figures.share("confirm", variant, task, n, folder) for n in (2048, 8192))
    interval = None if far is None else far[0]
    worst = "" if near is None or far is None else f"{percent(near[1].value)} and {percent(far[1].value)}"
    return Finding(
        f"The zoo's model keeps {task} (this project's claim).",
        "Share right at 64 times the trained length: at least 0.95, on examples that nothing was decided by.",
        text(interval, percent),
        judged(interval, 0.95, 1.0),
        "recall" if task == "recall" else "order",
        f"At 16 times: {text(near and near[0], percent)}. The worst seed at 16 and 64 times: {worst or '-'}.",
    )


def layouts(folder: Path) -> list[tuple[str, list[str]]]:
    """For each variant of `tasks` and each of its tasks: whether it was learnt, and whether it was kept at 16 times.

    Learnt: at least 0.9 is right at the trained length. Kept: at most 0.05 less is right at 16 times.
    """
    experiment = EXPERIMENTS["tasks"]
    near, far = experiment.trained_length, 16 * experiment.trained_length
    found = []
    for variant in experiment.variants:
        cells = []
        for task in experiment.tasks:
            share = figures.share(experiment.name, variant, task.type, near, folder)
            learnt = judged(share and share[0], 0.9, 1.0)
            fall = figures.share_fall(experiment.name, variant, task.type, far, near, folder)
            cells += [learnt, _kept_or_not(share and share[0], fall) if learnt == "holds" else "-"]
        found.append((variant, cells))
    return found

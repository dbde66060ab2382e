"""README.md from results.json. No figure is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.distill_small.plan import ARMS, BATCH, DISTILL, LENGTH, NOVELS, SEEDS, UNSEEN, model
from miniwin.evaluation.intervals import Interval, mean, verdict
from miniwin.files.writing import write_text

FOLDER = Path(__file__).parent
FILE = FOLDER / "results.json"
TEXTS = {"test": "ends of the novels", "unseen": "another novel"}


def write_page() -> Path:
    write_text(FOLDER / "README.md", page(json.loads(FILE.read_text(encoding="utf-8"))))
    return FOLDER / "README.md"


def page(results: dict[str, Any]) -> str:
    machine, runs = results["machine"], results["runs"]
    parameters = runs[0]["parameters"]
    lines = [
        "# Does a small model learn more from SmolLM2's logits than from the text alone?",
        "",
        "`python -m benchmarks.distill_small` writes this page. No figure is typed by hand.",
        "",
        f"{model().name}: {parameters / 1e6:.1f} M parameters, {model().layout}, the vocabulary of SmolLM2 135M "
        f"Instruct. Each run reads {runs[0]['tokens']:,} tokens of {_novel(NOVELS[0])} and {_novel(NOVELS[1])}, in "
        f"rows of {LENGTH}, {BATCH} a step, with random weights at first. "
        f"`text` learns from the text alone; `kl` from the teacher too: weight {DISTILL['weight']:g}, temperature "
        f"{DISTILL['temperature']:g}. The two have the same rows, seed by seed.",
        "",
        "## Bits per byte on text that nothing was chosen by",
        "",
        f"Windows of {LENGTH} tokens, {results['measured']:,} tokens of each text, {len(SEEDS)} seeds. The "
        "difference is paired by seed, with a 95 % interval by Student's t.",
        "",
        "| text | text | kl | kl - text | | teacher |",
        "|---|---:|---:|---:|---|---:|",
    ]
    for name, said in TEXTS.items():
        own = {arm: [_found(results, arm, seed)[name] for seed in SEEDS] for arm in ARMS}
        apart = mean([one - other for one, other in zip(own["kl"], own["text"], strict=True)])
        teacher = results["teacher"]["bits_per_byte"][name]
        means = " | ".join(f"{sum(own[arm]) / len(SEEDS):.4f}" for arm in ARMS)
        words = f"kl is {verdict(apart, lower_is_better=True)}"
        lines.append(
            f"| {said if name == 'test' else _novel(UNSEEN)} | {means} | {_shown(apart)} | {words} | {teacher:.4f} |"
        )
    lines += [
        "",
        "## Learning rates",
        "",
        "Each arm tries the same rates with the first seed, and more beyond the ends while the best is at an end. Bits "
        "per byte on validation text; the chosen one in bold.",
        "",
        "| rate | " + " | ".join(ARMS) + " |",
        "|---:|---:|---:|",
    ]
    for rate in sorted({run["rate"] for run in runs if run["seed"] == SEEDS[0]}):
        cells = [_cell(results, arm, rate) for arm in ARMS]
        lines.append(f"| {rate:g} | " + " | ".join(cells) + " |")
    seconds = {arm: _mean([run["cpu_seconds"] for run in runs if run["arm"] == arm]) for arm in ARMS}
    codes = ", ".join(sorted({run["code"] for run in runs}))
    if landed := results.get("landed"):  # the runs were made before their commit was put on top of others
        codes += f" (this benchmark and distillation as in {landed})"
    lines += [
        "",
        "## Where and when",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} thread a run, torch {machine['torch']}, "
        f"bfloat16, miniwin {codes}, {runs[0]['started'][:10]}. A run of `text` took {seconds['text']:.0f} s of a "
        f"processor, one of `kl` {seconds['kl']:.0f} s on average, with most of the teacher's states from the disk. "
        f"Weights of the teacher: sha256 {results['teacher']['sha256'][:16]}.",
        "",
        "A budget of a few hundred thousand tokens is small: the models have not read the novels once. What a longer "
        "run, another weight or another temperature would give, this does not say.",
        "",
    ]
    return "\n".join(lines)


def _found(results: dict[str, Any], arm: str, seed: int) -> dict[str, float]:
    rate = results["rates"][arm]
    (run,) = [run for run in results["runs"] if (run["arm"], run["rate"], run["seed"]) == (arm, rate, seed)]
    return dict(run["bits_per_byte"])


def _cell(results: dict[str, Any], arm: str, rate: float) -> str:
    runs = [run for run in results["runs"] if (run["arm"], run["rate"], run["seed"]) == (arm, rate, SEEDS[0])]
    if not runs:
        return ""
    found = runs[0]["bits_per_byte"]
    text = runs[0]["status"] if found is None else f"{found['valid']:.4f}"
    return f"**{text}**" if rate == results["rates"][arm] else text


def _shown(found: Interval) -> str:
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def _novel(name: str) -> str:
    words = name.removesuffix(".txt").split("-")[2:]
    return " ".join(words).capitalize()


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)

"""A result as Markdown: the machine, the bars, a table for each family, growth, and what could not be measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.case import OURS

TITLES = {
    "attention": "Attention of a local layer",
    "prefill": "Prefill",
    "train": "Training step",
    "decode": "Decoding",
    "rotary": "Into the cache",
    "memory": "Peak memory",
}
HARDWARE = {"cpu", "cores", "threads", "instructions", "amx", "sets", "products", "memory_gb", "gpu"}


def markdown(result: dict[str, Any], plot: str | None = None) -> str:
    """plot: file name of the picture beside it."""
    machine = result["machine"]
    facts = [f"{key.replace('_', ' ')} {value}" for key, value in machine.items() if value is not None]
    peak = ", ".join(f"{dtype} {_rates(result, dtype)}" for dtype in result["matmul_peak"])
    products = f"Matrix products: {peak} GFLOP/s. " if peak else ""
    busy = " and ".join("unknown" if each is None else f"{each:g}" for each in result["load"])
    lines = [
        f"# Benchmark, {result['kind']}, {result['date']}",
        "",
        f"{'; '.join(facts)}.",
        f"{products}{result['minutes']:g} minutes; load at the start and the end: {busy}.",
        "",
        "Interleaved runs (A, B, A, B, ...), medians; in brackets the middle half of the runs, or of the ratios in "
        f"each round. `times ours`: the side's median over that of {OURS}.",
        "",
        "## Bars",
        "",
        *bars_table(result),
    ]
    if plot is not None:
        lines += ["", f"![tokens per second by length]({plot})"]
    for family, title in TITLES.items():
        cases = [case for case in result["cases"] if case["family"] == family]
        if cases:
            lines += ["", f"## {title}", "", *_table(cases)]
    if result["growth"]:
        lines += ["", "## Growth with length", "", *_growth(result["growth"])]
    missing = _missing(result["cases"])
    if missing:
        lines += ["", "## Not measured", "", *missing]
    gates = sorted({f"- {case['family']}: {case['gate']}" for case in result["cases"] if case["status"] == "ok"})
    return "\n".join([*lines, "", "## Checked before any figure", "", *gates, ""])


def _rates(result: dict[str, Any], dtype: str) -> str:
    """In 10^9 a second, for each library if there are several. Old results have only the best."""
    rates = result.get("products", {}).get(dtype, {})
    if len(rates) < 2:
        return f"{result['matmul_peak'][dtype]['median'] / 1e9:,.0f}"
    return " and ".join(f"{found['median'] / 1e9:,.0f} ({name})" for name, found in rates.items())


def bars_table(result: dict[str, Any]) -> list[str]:
    lines = ["| case | bar | measured | verdict |", "|---|---:|---:|---|"]
    for row in result["bars"]:
        measured = (
            "" if row["measured"] is None else _with_spread(row["measured"], row["low"], row["high"], row["unit"])
        )
        lines.append(
            f"| {row['bar']} | {row['wanted'].replace('>=', '≥').replace('<=', '≤')} | {measured} | {row['verdict']} |"
        )
    return lines


def bars_beside(results: Sequence[dict[str, Any]]) -> list[str]:
    """A row for each bar, a column for each result, called A, B, C, ... A missed bar says so. A bar without a limit is
    for information."""
    wanted = {row["bar"]: row["wanted"] for result in reversed(results) for row in result["bars"]}
    order = list(dict.fromkeys(row["bar"] for result in results for row in result["bars"]))
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(results)]
    lines = [f"| case | bar | {' | '.join(letters)} |", "|---|---:|" + "---:|" * len(results)]
    for bar in order:
        cells = []
        for result in results:
            row = next((row for row in result["bars"] if row["bar"] == bar), None)
            cells.append("" if row is None else _cell(row))
        lines.append(f"| {bar} | {wanted[bar].replace('>=', '≥').replace('<=', '≤')} | {' | '.join(cells)} |")
    return lines


def _cell(row: dict[str, Any]) -> str:
    if row["measured"] is None:
        return str(row["verdict"])
    measured = _with_spread(row["measured"], row["low"], row["high"], row["unit"])
    return f"{measured}, {row['verdict']}" if row["verdict"] in ("met", "missed") else measured


def _with_spread(value: float, low: float, high: float, unit: str) -> str:
    text = f"{value:.3g}{unit}" if value < 100 else f"{value:.0f}{unit}"
    return text if low == high else f"{text} [{low:.3g}, {high:.3g}]"


def _table(cases: list[dict[str, Any]]) -> list[str]:
    unit = cases[0]["unit"]
    head = ("ms", "tokens/s") if unit == "seconds" else ("MiB", "")
    lines = [f"| case | side | {head[0]} | {head[1]} | times ours | runs |", "|---|---|---:|---:|---:|---:|"]
    for case in cases:
        ours = case["sides"].get(OURS, {}).get("median")
        for side, found in case["sides"].items():
            scale = 1e3 if unit == "seconds" else 2**-20
            value, low, high = (scale * found[key] for key in ("median", "low", "high"))
            speed = f"{found['tokens_per_second']:,.0f}" if "tokens_per_second" in found else ""
            times = f"{found['median'] / ours:.2f}" if ours else ""
            if "flops_per_second" in found:
                speed = f"{found['flops_per_second'] / 1e9:,.0f} GFLOP/s" if not speed or side != OURS else speed
                times = "" if side != OURS else times
            spread = f" [{low:.4g}, {high:.4g}]" if low != high else ""
            name = case["name"].partition("/")[2]
            lines.append(f"| {name} | {side} | {value:.4g}{spread} | {speed} | {times} | {len(found['values'])} |")
    return lines


def _growth(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| series | side | from | to | exponent |", "|---|---|---:|---:|---:|"]
    for row in rows:
        what = "time" if row["unit"] == "seconds" else "memory"
        first, last = row["lengths"][0], row["lengths"][-1]
        lines.append(f"| {row['series']}, {what} | {row['side']} | {first:,} | {last:,} | {row['exponent']:.2f} |")
    return lines


def _missing(cases: list[dict[str, Any]]) -> list[str]:
    lines = []
    for case in cases:
        if case["status"] != "ok":
            lines.append(f"- **{case['name']}** failed: {case['reason']}")
        lines += [f"- {case['name']}, {side}: {why}" for side, why in case["absent"].items()]
        lines += [f"- {case['name']}: {note}" for note in case.get("notes", ())]
    return lines

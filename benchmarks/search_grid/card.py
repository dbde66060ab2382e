"""README.md, the data card: what the table holds, how it was made, and how far to trust it. No figure is typed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.search_grid.grid import EVERY, FOLDER, RUNGS, runs, space
from benchmarks.search_grid.making import COSTS, made
from benchmarks.search_grid.noise import (
    between,
    metrics,
    rung_correlation,
    rung_count,
    seed_correlation,
    seed_noise,
    whole,
)
from benchmarks.search_grid.running import EXAMPLES, TEXT, TEXT_LENGTHS
from benchmarks.search_grid.table import TABLE, Row, Table
from benchmarks.search_grid.table_file import save
from miniwin.evaluation.intervals import Interval
from miniwin.files.writing import write_text

BEST = 8  # architectures shown for a metric

HEAD = """# A grid of small architectures, every rung of every run

`python -m benchmarks.search_grid --table` writes this page and `grid.parquet` from the result files of
`python -m benchmarks.search_grid`. No figure is typed by hand. A search can be replayed over the table in milliseconds:

```python
from benchmarks.search_grid.table import Table

table = Table.load()
row = table.rows[0]  # or table.row(values, seed=0)
print(row.values, row.value("loss@2048"), row.value("cache_bytes@2048"))
print([rung.metrics["loss@2048"] for rung in row.rungs])
```
"""


def write_table_and_card(folder: Path, out: Path = FOLDER) -> list[Path]:
    """grid.parquet and README.md, from a folder of result files.

    Raises:
        UserError: there is no result, or one is damaged.
    """
    table = made(folder)
    path = out / TABLE.name
    save(table, path)
    write_text(out / "README.md", card(table))
    return [path, out / "README.md"]


def card(table: Table) -> str:
    parts = [HEAD, _what(table), _columns(table), _noise(table), _rungs(table), _effects(table), _best(table)]
    return "\n".join(parts)


def _what(table: Table) -> str:
    train = runs()[0].candidate.train
    sizes = [row.value("parameters") for row in table.rows]
    ended = {status: sum(row.status == status for row in table.rows) for status in ("complete", "diverged", "failed")}
    seconds = [row.rungs[-1].train_seconds for row in whole(table)] or [0.0]
    measuring = [sum(rung.evaluation_seconds for rung in row.rungs) for row in whole(table)] or [0.0]
    second = sum(row.seed == 1 for row in table.rows)
    variables = [
        f"- `{name}`: {json.dumps(variable.model_dump(mode='json', exclude_defaults=True))}"
        for name, variable in space().spec.variables.items()
    ]
    shares = ", ".join(f"{round(share * train.tokens):,}" for share in RUNGS)
    return "\n".join(
        [
            "## What it holds",
            "",
            f"{len(table.rows)} of {table.planned} runs: {len(table.of_seed(0))} architectures with seed 0, and "
            f"{second} of them with seed 1, one of {EVERY}. {ended['complete']} came to the end, {ended['diverged']} "
            f"diverged, {ended['failed']} failed; those have a row with the reason.",
            "",
            f"The space is [space.yaml](space.yaml), {space().variables.size:,.0f} assignments without a hole; "
            f"{min(sizes):,.0f} to {max(sizes):,.0f} parameters:",
            "",
            *variables,
            "",
            f"All are trained as [train.yaml](train.yaml) says, {train.steps:,} steps of {train.tokens_per_step:,} "
            f"tokens: the source of Python's standard library and recall in turn, at lengths "
            f"{' and '.join(map(str, train.lengths))}. Rungs are at {shares} tokens of one schedule over all of "
            "them, so that the value of a rung is that of an unfinished schedule, as in a search.",
            "",
            f"At each rung all are measured on the same text and examples of the validation split: {TEXT:,} bytes of "
            f"text in windows of {', '.join(f'{length:,}' for length in TEXT_LENGTHS)}, and of recall "
            + ", ".join(f"{count} examples of {length:,} tokens" for length, count in EXAMPLES.items())
            + ".",
            "",
            f"A run took {median(seconds):.1f} s of training and {median(measuring):.1f} s of measuring (medians, in "
            f"seconds of the processor, {' or '.join(table.facts['threads'])} thread).",
            "",
            "Made by: "
            + "; ".join(f"{name} {', '.join(table.facts[name])}" for name in ("commit", "machine", "python", "torch"))
            + f"; text with the fingerprint {', '.join(one[:12] for one in table.facts['text'])}.",
            "",
            "The architectures are small and trained for seconds. The table is for comparing ways to search, not for "
            "choosing an architecture.",
            "",
        ]
    )


def _columns(table: Table) -> str:
    lines = [
        "## Columns",
        "",
        "One line for each rung of each run; one without a rung for a run that reached none.",
        "",
        "- the variables; what is neither a number, text, true nor false is JSON",
        "- `seed`, `status` (complete, diverged, failed), `reason`, `rung` (0, 1, ...), `tokens`",
        "- `train_seconds`: to this rung, without measuring; `evaluation_seconds`: of measuring at this rung alone",
        f"- known before training: {_code(COSTS)}",
        f"- measured: {_code(metrics(table))}. `loss` is in nats per byte, `recall` is the share of right answers, "
        "`recall-nats` is in nats of an answer; behind the @ stands the length in tokens",
        "",
    ]
    return "\n".join(lines)


def _noise(table: Table) -> str:
    last = rung_count(table) - 1
    lines = [
        "## Noise",
        "",
        "Standard deviations with 95 % intervals: `seed` is what the seed does to one architecture against others, "
        f"from {len(table.pairs())} architectures with two seeds; `architectures` is between all of seed 0. The last "
        "column is the rank correlation between the two seeds at the end, which no rung can be expected to exceed.",
        "",
        _row(["metric", *(f"seed, rung {rung}" for rung in range(last + 1)), "architectures, end", "seeds' ranks"]),
        "|---" * (last + 4) + "|",
    ]
    for metric in metrics(table):
        each = [_said(seed_noise(table, metric, rung)) for rung in range(last + 1)]
        lines.append(
            _row([metric, *each, _said(between(table, metric)), _said(seed_correlation(table, metric), signed=True)])
        )
    return "\n".join([*lines, ""])


def _rungs(table: Table) -> str:
    last = rung_count(table) - 1
    lines = [
        "## What a rung says of the end",
        "",
        "Rank correlation of each metric at a rung with itself at the end, over the architectures of seed 0.",
        "",
        _row(["metric", *(f"rung {rung}" for rung in range(last))]),
        "|---" * (last + 1) + "|",
    ]
    for metric in metrics(table):
        lines.append(
            _row([metric, *(_said(rung_correlation(table, metric, rung), signed=True) for rung in range(last))])
        )
    return "\n".join([*lines, ""])


def _effects(table: Table) -> str:
    shown = [name for name in metrics(table) if not name.startswith("recall-nats")]
    lines = [
        "## Means of each value",
        "",
        "Over the architectures of seed 0 that came to the end.",
        "",
        _row(["variable", "value", "runs", *shown]),
        "|---" * (3 + len(shown)) + "|",
    ]
    rows = whole(table)
    for name in table.variables:
        values = {json.dumps(row.values[name], sort_keys=True): row.values[name] for row in rows}
        for key in sorted(values):
            those = [row for row in rows if row.values[name] == values[key]]
            means = [f"{fmean(row.value(metric) for row in those):.4f}" for metric in shown]
            lines.append(_row([name, _plain(values[key]), len(those), *means]))
    return "\n".join([*lines, ""])


def _best(table: Table) -> str:
    longest = max(TEXT_LENGTHS)
    lines = ["## The best", ""]
    for metric in (f"loss@{longest}", f"recall-nats@{longest}"):
        rows = sorted(whole(table), key=partial(Row.value, name=metric))[:BEST]
        shown = (f"loss@{longest}", f"recall@{longest}", f"recall-nats@{longest}", f"cache_bytes@{longest}")
        lines += [
            f"By `{metric}`, seed 0; the noise above says how far the order can be trusted.",
            "",
            _row([*table.variables, *shown]),
            "|---" * (len(table.variables) + len(shown)) + "|",
            *(_row([*_values(row), *(f"{row.value(name):,.4g}" for name in shown)]) for row in rows),
            "",
        ]
    return "\n".join(lines)


def _values(row: Row) -> list[str]:
    return [_plain(value) for value in row.values.values()]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else f"`{json.dumps(value)}`"


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _said(found: Interval | None, signed: bool = False) -> str:
    if found is None:
        return "-"
    digits = "+.2f" if signed else ".4f"
    return f"{found.value:{digits}} [{found.low:{digits}}, {found.high:{digits}}]"


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

"""The table, made of the result files and of what the specs say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.search_grid import results
from benchmarks.search_grid.grid import Run, runs
from benchmarks.search_grid.table import Row, Rung, Table
from miniwin.search.objectives import cost
from miniwin.specs import UserError

COSTS = (
    "parameters",
    *(f"cache_bytes@{length}" for length in (128, 2048, 131072)),
    *(f"forward_flops@{length}" for length in (128, 2048, 131072)),
    "training_flops@128",
)


def made(folder: Path) -> Table:
    """The table of all results that there are.

    Raises:
        UserError: there is none, one is damaged, or they are of different text and cannot be compared.
    """
    found = [(run, result) for run in runs() if (result := results.read(run, folder)) is not None]
    if not found:
        raise UserError(f"{folder}: has no result yet; python -m benchmarks.search_grid makes them")
    text = {result["text"][:12]: results.path_of(run, folder).name for run, result in found}
    if len(text) > 1:
        said = ", ".join(f"{fingerprint} of {name}" for fingerprint, name in text.items())
        raise UserError(
            f"{folder}: results of different text cannot be compared (fingerprints {said}): it is the standard library "
            "of the Python that trains, so make all results with one Python"
        )
    facts = {
        name: sorted({str(result[name]) for _, result in found})
        for name in ("commit", "machine", "python", "torch", "threads", "text")
    }
    trained = found[0][0].candidate.train.longest
    rows = tuple(_row(run, result, trained) for run, result in found)
    return Table(rows, tuple(found[0][0].values), len(runs()), trained, facts)


def _row(run: Run, result: dict[str, Any], trained: int) -> Row:
    rungs = tuple(
        Rung(
            rung["tokens"],
            rung["train_seconds"],
            rung["evaluation_seconds"],
            {name: value for name, value in rung["metrics"].items() if value is not None},
        )
        for rung in result["rungs"]
    )
    costs = {name: cost(name, run.candidate.model, trained) for name in COSTS}
    return Row(run.values, run.seed, result["status"], result["reason"], costs, rungs, trained)

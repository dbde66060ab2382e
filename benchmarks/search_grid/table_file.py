"""The table as a Parquet file: a line for each rung of each run, and one for a run that reached none.

Columns: the variables, seed, status, reason, rung (0, 1, ...), tokens, seconds, a column for each metric and each cost.
A value that is neither a number, text, true nor false is written as JSON; the file's own metadata say which columns.
pyarrow is the extra `parquet`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.search_grid.table import Row, Rung, Table
from miniwin.files.writing import replacing
from miniwin.specs import UserError

FORMAT = 1
META = b"miniwin.search_grid"
FIXED = ("seed", "status", "reason", "rung", "tokens", "train_seconds", "evaluation_seconds")


def save(table: Table, path: Path) -> None:
    """Write the file, or leave the old one as it was."""
    pyarrow, parquet = _pyarrow()
    metrics = list(dict.fromkeys(name for row in table.rows for rung in row.rungs for name in rung.metrics))
    costs = list(dict.fromkeys(name for row in table.rows for name in row.costs))
    kinds = {name: {type(row.values[name]) for row in table.rows} for name in table.variables}
    as_json = [name for name, found in kinds.items() if len(found) > 1 or not found <= {bool, int, float, str}]
    lines = [_line(row, place, as_json) for row in table.rows for place in range(max(1, len(row.rungs)))]
    columns = [*table.variables, *FIXED, *metrics, *costs]
    about = {
        "format": FORMAT,
        "variables": table.variables,
        "as_json": as_json,
        "metrics": metrics,
        "costs": costs,
        "planned": table.planned,
        "trained": table.trained,
        "facts": dict(table.facts),
    }
    data = pyarrow.table({name: [line.get(name) for line in lines] for name in columns})
    data = data.replace_schema_metadata({META: json.dumps(about)})
    with replacing(path) as temporary:
        parquet.write_table(data, temporary, compression="zstd")


def _line(row: Row, place: int, as_json: Sequence[str]) -> dict[str, Any]:
    values = {name: json.dumps(value) if name in as_json else value for name, value in row.values.items()}
    line = {**values, "seed": row.seed, "status": row.status, "reason": row.reason, **row.costs}
    if row.rungs:
        rung = row.rungs[place]
        line |= {
            "rung": place,
            "tokens": rung.tokens,
            "train_seconds": rung.train_seconds,
            "evaluation_seconds": rung.evaluation_seconds,
            **rung.metrics,
        }
    return line


def load(path: Path) -> Table:
    """See `Table.load`."""
    pyarrow, parquet = _pyarrow()
    if not path.is_file():
        raise UserError(f"{path}: there is no such table; python -m benchmarks.search_grid --table makes it")
    try:
        data = parquet.read_table(path)
        about = json.loads((data.schema.metadata or {})[META])
        if about["format"] != FORMAT:
            raise UserError(f"{path}: got format {about['format']!r}; expected {FORMAT}")
        lines = data.to_pylist()
        return Table(
            tuple(_rows(lines, about)), tuple(about["variables"]), about["planned"], about["trained"], about["facts"]
        )
    except (pyarrow.ArrowException, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: is no table of the grid, or damaged ({said}); get it again") from None


def _rows(lines: Iterable[dict[str, Any]], about: dict[str, Any]) -> list[Row]:
    grouped: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in lines:
        grouped.setdefault((*(line[name] for name in about["variables"]), line["seed"]), []).append(line)
    found = []
    for group in grouped.values():
        first = group[0]
        values = {
            name: json.loads(first[name]) if name in about["as_json"] else first[name] for name in about["variables"]
        }
        rungs = tuple(
            Rung(
                line["tokens"],
                line["train_seconds"],
                line["evaluation_seconds"],
                {name: line[name] for name in about["metrics"] if line[name] is not None},
            )
            for line in sorted((line for line in group if line["rung"] is not None), key=lambda line: line["rung"])
        )
        costs = {name: first[name] for name in about["costs"]}
        found.append(
            Row(values, first["seed"], first["status"], first["reason"], costs, rungs, trained=about["trained"])
        )
    return found


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise UserError("the table needs pyarrow, which is not installed: pip install 'miniwin[parquet]'") from None
    return pyarrow, parquet

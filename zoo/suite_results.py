"""The result of a suite in an entry: is it of these weights, and what does the card say of it?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from miniwin.evaluation.suite.result import SuiteResult
from miniwin.evaluation.suite.result_table import cells
from miniwin.evaluation.suite.store import weights_hash
from miniwin.evaluation.suite.units import unit_of
from miniwin.language_model import LanguageModel
from miniwin.specs import ModelSpec
from miniwin.weights import put_weights, read_weights
from miniwin.zoo.errors import ZooError

HEADER = ("Measure", "Length", "Times the training length", "Value", "95 % interval", "n", "of", "Chance", "Blind")


def check_suite(result: SuiteResult, weights: Path, spec: ModelSpec, dtype: str | None = None) -> None:
    """Raise ZooError unless the result is of these weights and this architecture.

    dtype: what the weights were rounded to for the entry, if they were; for the message.
    """
    measured = result.model
    if measured.hash != spec.hash:
        raise ZooError(
            f"the result of suite {result.suite} is of architecture {measured.hash[:12]}... ({measured.ref}), and this "
            f"model is {spec.hash[:12]}...; measure this one: miniwin eval MODEL --suite NAME"
        )
    with torch.device("meta"):
        decoder = spec.build()
    put_weights(decoder, read_weights(weights, torch.device("cpu")), weights)
    found = weights_hash(LanguageModel(decoder, spec, None))
    if measured.weights != found:
        how = "measure these, as they were saved, without --dtype and --quantize"
        if dtype is not None:
            how = f"measure these, rounded to {dtype} as well: miniwin eval MODEL --suite NAME --dtype {dtype}"
        raise ZooError(
            f"the result of suite {result.suite} is of weights {measured.weights[:12]}... ({measured.ref}), and these "
            f"are {found[:12]}...; {how}"
        )


def index_results(result: SuiteResult) -> list[dict[str, Any]]:
    """The scores as the `metrics` of a model-index."""
    return [
        {
            "type": row.measure,
            "name": row.measure.replace("_", " ") + (f" at {row.length} tokens" if row.length is not None else ""),
            "value": row.value,
            "args": {
                key: value
                for key in ("length", "n", "low", "high", "chance", "blind", "unit")
                if (value := getattr(row, key)) is not None
            },
        }
        for row in result.rows
        if row.value is not None and not unit_of(row.unit).aside
    ]


def card_rows(result: SuiteResult) -> list[tuple[str, ...]]:
    """The rows of a table on the card, below HEADER. What another row says already is left to suite.json."""
    rows = [tuple(cells(row)) for row in result.rows if not unit_of(row.unit).aside]
    assert all(len(row) == len(HEADER) for row in rows)
    return rows


def left_out(result: SuiteResult) -> list[str]:
    """Why rows have no value."""
    notes = dict.fromkeys(row.note for row in result.rows if row.note)
    return [f"{', '.join(row.key for row in result.rows if row.note == note)}: {note}" for note in notes]

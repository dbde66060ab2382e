"""The values of metrics.json and provenance.json that the card and the list show, read and checked.

Anybody may have written these files. A value may have any type, a length may not have been measured (null), and JSON
turns lengths, which are keys, into text. What the card and the list do not show is not checked.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from miniwin.specs.yaml_scalars import shown
from miniwin.zoo.confirmation import climbed, confirmed
from miniwin.zoo.errors import ZooError

if TYPE_CHECKING:
    from miniwin.evaluation.tasks import Task

LENGTHS = ("bits_per_byte", "recall", "cache_bytes")  # numbers by length
SPEEDS = ("prefill_tokens_per_second", "decode_tokens_per_second")


def by_length(metrics: dict[str, Any], key: str) -> dict[int, Any]:
    """`{"512": 2.1, "2048": None}` -> `{512: 2.1}`, in order of length. Raises ZooError on anything else."""
    values = _mapping(metrics, key)
    for length, value in values.items():
        if not (length.isascii() and length.isdecimal() and len(length) < 16):
            raise ZooError(f"{key}: got the length {shown(length)}; expected whole numbers, such as 512")
        _number(value, f"{key}.{length}")
    return {int(n): values[n] for n in sorted(values, key=int) if values[n] is not None}


def training_lengths(provenance: dict[str, Any]) -> list[int]:
    """`seq_len` of the training spec that the run recorded: one or several; empty where it says none.

    Raises ZooError where a length is no whole number.
    """
    said = _mapping(_mapping(provenance, "run"), "train").get("seq_len")
    lengths = said if isinstance(said, list) else [] if said is None else [said]
    if any(type(length) is not int or not 0 < length < 1 << 62 for length in lengths):
        raise ZooError(f"run.train.seq_len: got {shown(said)}; expected a whole number, or a list of them")
    return lengths


def training_length(provenance: dict[str, Any]) -> int | None:
    """The longest of `training_lengths`."""
    return max(training_lengths(provenance), default=None)


def trained_tasks(provenance: dict[str, Any]) -> list[Task]:
    """The tasks of a model that was trained on tasks and on nothing else; empty for any other."""
    from miniwin.specs.data import tasks_alone  # imports every task, and loading a model needs none

    try:
        data = _data_specs().validate_python(_mapping(_mapping(provenance, "run"), "train").get("data"))
    except ValidationError:  # a record of another version, or by hand
        return []
    return tasks_alone(data)


@cache
def _data_specs() -> TypeAdapter[Any]:
    """Made once: that takes a tenth of a second."""
    from miniwin.specs.data import DataSpec

    return TypeAdapter(DataSpec)


def check_metrics(metrics: dict[str, Any]) -> None:
    """Raise ZooError where a card could not show these metrics."""
    for key in LENGTHS:
        by_length(metrics, key)
    for span, value in _mapping(metrics, "by_position").items():
        _number(value, f"by_position.{span}")
    for key in SPEEDS:
        _number(metrics.get(key), key)
    _mapping(metrics, "data")


def check_provenance(provenance: dict[str, Any]) -> None:
    """Raise ZooError where a card could not show this provenance."""
    training_lengths(provenance)
    confirmed(provenance)
    climbed(provenance)
    run = _mapping(provenance, "run")
    for key in ("data", "machine"):
        _mapping(run, key)
    for key in ("tokens", "seconds"):
        _number(run.get(key), f"run.{key}")


def _mapping(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ZooError(f"{key}: got {shown(value)}; expected a mapping")
    return value


def _number(value: Any, where: str) -> None:
    if value is None or (type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)):
        return
    raise ZooError(f"{where}: got {shown(value)}; expected a number")

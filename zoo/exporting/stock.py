"""Which stock architecture of transformers, if any, computes exactly what a spec says.

Every family that can be imported is asked for a config that expresses the spec. The config is read back as an import
would read it, and is taken only if that gives the same architecture. So a field of the spec that a family overlooked
shows as a difference here, not in somebody's logits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from miniwin.specs import ModelSpec, UserError, parse_spec
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.converting import FROM_SETTINGS
from miniwin.zoo.importing.families import FAMILIES
from miniwin.zoo.importing.family import CannotSay, Family
from miniwin.zoo.importing.initializer import said_init, with_init


@dataclass(frozen=True)
class Stock:
    """A family, its model_type, and the config.json that expresses the spec."""

    family: Family
    model_type: str
    config: dict[str, Any]


@dataclass(frozen=True)
class Refusal:
    """Why the config of a family cannot express a spec: the first field that stands in the way."""

    model_type: str
    field: str
    why: str

    def __str__(self) -> str:
        return f"{self.model_type}: {self.field}: {self.why}"


def find_stock(spec: ModelSpec, only: str | None = None) -> tuple[Stock | None, list[Refusal]]:
    """The first family that expresses the spec, and the refusals of those before. only: ask this model_type alone."""
    refusals: list[Refusal] = []
    for model_type, family in FAMILIES.items():
        if model_type in FROM_SETTINGS or (only is not None and model_type != only):
            continue
        try:
            config = {**family.config(spec), **said_init(spec)}
            if config["model_type"] != model_type:
                continue  # a family with several model_types answers once
            prove(spec, family, config)
        except CannotSay as error:
            refusals.append(Refusal(model_type, error.field, error.why))
            continue
        return Stock(family, model_type, config), refusals
    return None, refusals


def prove(spec: ModelSpec, family: Family, config: dict[str, Any]) -> None:
    """Read the config back. Raises CannotSay with the first field that does not come back as it was."""
    try:
        data = with_init(family.spec(config, spec.name, Asked({})), config)
        back: ModelSpec = parse_spec(data, "model")
    except UserError as error:
        raise CannotSay("config", f"the config that says most of it cannot be read back: {error}") from None
    for path, ours, theirs in differences(spec.canonical(), back.canonical()):
        raise CannotSay(path, f"got {ours}; the nearest config means {theirs}")


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two canonical specs differ: path, ours, theirs."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in [*ours, *(name for name in theirs if name not in ours)]:
            yield from differences(ours.get(name), theirs.get(name), f"{path}.{name}" if path else name)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(a, b, f"{path}[{i}]")
    elif ours != theirs and not (
        path.endswith(".balance_loss") and math.isclose(ours, theirs)
    ):  # its last digits differ: see experts.py
        yield path, ours, theirs

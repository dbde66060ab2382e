"""The first field in which two records differ, in the words of YAML: `tasks.0.task.num_pairs`, `4` and `8`."""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml

ABSENT = "left out"
_NOTHING = object()


class Differing(NamedTuple):
    """field: its path, with dots. one, two: its values, as YAML writes them; `left out` where a record has none."""

    field: str
    one: str
    two: str


def first_difference(one: Any, two: Any, most: int = 40, inside: str = "") -> Differing | None:
    """None if the records are equal. most: characters of a value that are shown."""
    if one == two:
        return None
    keys: list[Any] = []
    if isinstance(one, dict) and isinstance(two, dict):
        keys = list(dict.fromkeys((*one, *two)))
    elif _records(one) and _records(two):
        one, two = dict(enumerate(one)), dict(enumerate(two))
        keys = list(dict.fromkeys((*one, *two)))
    for key in keys:
        a, b = one.get(key, _NOTHING), two.get(key, _NOTHING)
        if a != b:
            return first_difference(a, b, most, f"{inside}.{key}" if inside else str(key))
    return Differing(inside, _text(one, most), _text(two, most))


def _records(value: Any) -> bool:
    """Whether it is a list of mappings: such lists differ in one of their items."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _text(value: Any, most: int) -> str:
    if value is _NOTHING:
        return ABSENT
    if isinstance(value, str) and value.isprintable():  # versions and hashes look like numbers, and need no quotes
        return value if len(value) <= most else f"{value[: most - 3]}..."
    written = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    text = written.strip().removesuffix("...").strip()
    return text if len(text) <= most else f"{text[: most - 3]}..."

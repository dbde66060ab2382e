"""The special ids that an imported model's files name: those that end a text, the beginning and the padding.

`import.json` keeps them, under the names that config.json has for them:

    "special_ids": {"eos_token_id": [1, 106], "bos_token_id": 2, "pad_token_id": 0}
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniwin.files.json_files import read_json
from miniwin.specs.base import UserError

KEY = "special_ids"


@dataclass(frozen=True)
class SpecialIds:
    """ends: all ids that end a text. () and None: the model's files do not say."""

    ends: tuple[int, ...] = ()
    bos: int | None = None
    pad: int | None = None

    def record(self) -> dict[str, Any]:
        return {"eos_token_id": list(self.ends), "bos_token_id": self.bos, "pad_token_id": self.pad}


def read_special_ids(path: Path) -> SpecialIds:
    """The special ids that an import.json keeps. An older file keeps none.

    Raises:
        UserError: the file cannot be read, or is damaged.
    """
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None
    return parse_special_ids(record, path)


def parse_special_ids(record: Any, path: Path) -> SpecialIds:
    """The special ids in a record that was read from `path`.

    Raises:
        UserError: they are damaged.
    """
    try:
        said = record.get(KEY) or {}
        ends, bos, pad = said.get("eos_token_id") or [], said.get("bos_token_id"), said.get("pad_token_id")
        if not all(is_id(one) for one in ends) or not all(one is None or is_id(one) for one in (bos, pad)):
            raise ValueError(f"{KEY}: got {said!r:.100}")
    except (ValueError, AttributeError, TypeError) as error:
        raise _damaged(path, error) from None
    return SpecialIds(tuple(ends), bos, pad)


def _damaged(path: Path, error: Exception) -> UserError:
    why = str(error) or type(error).__name__
    return UserError(f"{path}: cannot be read as the record of an import ({why}); import the model again")


def is_id(value: object) -> bool:
    return type(value) is int and value >= 0

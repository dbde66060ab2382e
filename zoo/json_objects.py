"""JSON as the zoo writes and reads it: without NaN, and with a ZooError for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from miniwin.files.json_files import LARGEST, JSONProblem, read_json
from miniwin.zoo.errors import ZooError


def to_json(value: Any, what: str) -> str:
    """A value as JSON text. what: its name, for messages. Raises ZooError for what JSON cannot hold."""
    try:
        return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:
        raise ZooError(f"{what}: holds NaN or infinity, which JSON and the card cannot show") from error
    except TypeError as error:
        raise ZooError(f"{what}: {error}") from error


def read_object(path: Path, largest: int = LARGEST) -> dict[str, Any]:
    """The JSON object in a file that may come from anywhere. largest: bytes. Raises ZooError."""
    try:
        data = read_json(path, largest)
    except JSONProblem as error:
        raise ZooError(f"{path}: is {error}") from None
    except OSError as error:
        raise ZooError(f"{path}: cannot be read: {error.strerror}") from error
    if not isinstance(data, dict):
        raise ZooError(f"{path}: expected a JSON object, got {type(data).__name__}")
    return data

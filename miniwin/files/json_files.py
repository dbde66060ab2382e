"""Reading JSON that somebody else may have written: run folders, studies, entries, indexes, tokenizers, configs.

Python's reader recurses, takes text of any size, and lets half a surrogate pair through, which no file or terminal can
hold. Here each of these is a `JSONProblem`. Its message follows the name of a file: "run.json is nested too deeply".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from miniwin.specs.text_encodings import wide

PROBE = 8192  # bytes that show an encoding other than UTF-8
LARGEST = 16 << 20  # bytes
DEEPEST = 64  # levels; functions that walk the value recurse
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # a surrogate, written as an escape


class JSONProblem(ValueError):
    """Why a text cannot be taken as JSON. `place` is line and column, from 1, where there is one."""

    def __init__(self, problem: str, place: tuple[int, int] | None = None) -> None:
        super().__init__(problem + (f" in line {place[0]}, column {place[1]}" if place else ""))
        self.problem, self.place = problem, place


def read_json(path: Path, largest: int = LARGEST, **options: Any) -> Any:
    """The value in a file of at most `largest` bytes; see `parse_json`.

    Raises:
        JSONProblem, OSError
    """
    with path.open("rb") as file:
        raw = file.read(largest + 1)
    if len(raw) > largest:
        raise JSONProblem(f"larger than {largest >> 20} MiB")
    return parse_json(raw, **options)


def parse_json(
    text: str | bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None, names: bool = False
) -> Any:
    """The value of a JSON text. A byte order mark is skipped.

    pairs: makes an object of its (name, value) pairs. names: for files that we wrote and that may hold names of files;
    allows the halves of surrogate pairs that stand for bytes of a name that are not UTF-8.

    Raises:
        JSONProblem: the text is not UTF-8, not JSON, nested too deeply, or holds half a surrogate pair.
    """
    if isinstance(text, bytes) and (encoding := wide(text[:PROBE])):
        raise JSONProblem(f"not JSON (it is {encoding}; save it as UTF-8)")
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff")
        value = json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise JSONProblem(f"not JSON ({error.msg})", (error.lineno, error.colno)) from None
    except UnicodeDecodeError as error:
        raise JSONProblem(f"not JSON (byte {error.object[error.start]:#04x} is not UTF-8)") from None
    except RecursionError:
        raise JSONProblem(_TOO_DEEP) from None
    except MemoryError:
        raise JSONProblem("too large for this machine's memory") from None
    except ValueError as error:
        if type(error) is not ValueError:  # raised by `pairs`
            raise
        raise JSONProblem("not JSON (a number is too long)") from None
    if _depth(value) > DEEPEST:
        raise JSONProblem(_TOO_DEEP)
    if _HALF.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape" if names else "strict")
        except UnicodeEncodeError:
            raise JSONProblem("not JSON (it holds half of a surrogate pair, which is no character)") from None
    return value


_TOO_DEEP = f"nested too deeply (more than {DEEPEST} levels)"


def _depth(value: Any) -> int:
    """Levels of nesting, counted without recursion, as far as DEEPEST + 1."""
    level, depth = [value], 0
    while level and depth <= DEEPEST:
        depth += 1
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
            if isinstance(child, dict | list)
        ]
    return depth

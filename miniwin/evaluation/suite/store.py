"""The folder of a suite: one file for each part that is done, so that a killed process loses one part at most.

    suite.json          what is measured: suite, model, data, machine; and when it began
    parts/KEY.json      the rows of one part, written in one step when the part is done
    result.json         all rows, once every part is done
    index.html          the same as a page

Parts of two different measurements never mix: what suite.json says has to be the same, or the folder is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from pydantic import ValidationError

from miniwin.evaluation.suite.differing import first_difference
from miniwin.evaluation.suite.result import FORMAT, SuiteRow
from miniwin.evaluation.suite.stored_results import HEAD, RESULT
from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.writing import remove_tree, write_json
from miniwin.language_model import LanguageModel
from miniwin.specs import UserError

KIND = "suite-parts"
PARTS, PAGE, LOCK = "parts", "index.html", ".lock"
OURS = (HEAD, PARTS, RESULT, PAGE, LOCK)
OTHERWISE = "choose another --out, or start anew with --fresh"


class Store:
    """A folder of parts, locked. `measured`: what says that two parts may stand side by side."""

    def __init__(self, folder: Path, measured: dict[str, Any], fresh: bool) -> None:
        self.folder = folder
        if fresh:
            for name in (PARTS, HEAD, RESULT, PAGE):
                remove_tree(folder / name) if name == PARTS else (folder / name).unlink(missing_ok=True)
        before = self._head()
        if before is not None and (other := _other(before["measured"], measured)):
            raise UserError(f"{folder} holds parts of another measurement: {other}; {OTHERWISE}")
        self.began: str = datetime.now(UTC).isoformat(timespec="seconds") if before is None else before["began"]
        if before is None:
            head = {"format": FORMAT, "kind": KIND, "began": self.began, "measured": measured}
            write_json(folder / HEAD, head)
        (folder / PARTS).mkdir(exist_ok=True)

    def _head(self) -> dict[str, Any] | None:
        try:
            head = read_json(self.folder / HEAD)
        except FileNotFoundError:
            return None
        except JSONProblem as error:
            raise UserError(f"{self.folder / HEAD} is {error}; {OTHERWISE}") from None
        known = isinstance(head, dict) and isinstance(head.get("measured"), dict) and isinstance(head.get("began"), str)
        if not known or head.get("kind") != KIND or head.get("format") != FORMAT:
            raise UserError(f"{self.folder / HEAD} is not what this version of miniwin wrote; {OTHERWISE}")
        return head

    def read(self, key: str) -> tuple[list[SuiteRow], float] | None:
        """(the rows of a part, the seconds that it took); None if it is not done, or its file is damaged."""
        try:
            part = read_json(self._path(key))
            if part["key"] != key:  # a file that was copied or renamed
                return None
            return [SuiteRow.model_validate(row) for row in part["rows"]], float(part["seconds"])
        except (FileNotFoundError, JSONProblem, ValidationError, KeyError, TypeError, ValueError):
            return None  # measured again, and written over

    def write(self, key: str, rows: list[SuiteRow], seconds: float) -> None:
        data = [row.model_dump(mode="json") for row in rows]
        write_json(self._path(key), {"key": key, "seconds": seconds, "rows": data})

    def _path(self, key: str) -> Path:
        return self.folder / PARTS / f"{key}.json"


@contextmanager
def opened(folder: Path, measured: dict[str, Any], fresh: bool) -> Iterator[Store]:
    """The store of a folder, which is made, for this process alone.

    Raises:
        UserError: the folder holds something else, or another process works in it.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; expected a folder for the parts of the suite: choose another --out")
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if names - {LOCK} and HEAD not in names and not (fresh and names <= set(OURS)):
        raise UserError(
            f"{folder} has other files, such as {sorted(names)[0]}, and is not the folder of a suite; choose another "
            "--out"
        )
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another process is measuring in {folder}; wait for it, or choose another --out") from None
    except OSError as error:
        raise UserError(
            f"{folder}: no folder can be made there ({error.strerror or error}); choose another --out"
        ) from None
    try:
        yield Store(folder, measured, fresh)
    finally:
        lock.release()


def _other(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """In what two measurements differ; None if in nothing."""
    for name in now:
        was = before.get(name)
        if (found := first_difference(was, now[name])) is None:
            continue
        if not found.field:
            return f"its {name} was {found.one}, and is {found.two} now"
        return f"its {name} had {found.field} {found.one}, and {found.two} now"
    return None


def weights_hash(model: LanguageModel) -> str:
    """SHA-256 of all tensors by name, as the model holds them: those of two equal models are equal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()

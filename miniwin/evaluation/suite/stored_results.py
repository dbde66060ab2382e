"""Results of suites on disk: a file that `miniwin eval --suite` wrote, or the folder that it worked in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from miniwin.evaluation.suite.result import SuiteResult
from miniwin.specs import UserError, user_path

RESULT, HEAD = "result.json", "suite.json"  # in the folder of a suite


def stored_result(ref: str | os.PathLike[str]) -> SuiteResult | None:
    """The result that a path names; None if it names something else, such as a model.

    Raises:
        UserError: a .json file is not a result, or the folder's suite has not ended.
    """
    path = user_path(os.fspath(ref))
    if path.suffix.lower() == ".json":
        return SuiteResult.read(path)
    if not (path / HEAD).is_file():
        return None
    if not (path / RESULT).is_file():
        raise UserError(f"{path} is a suite that has not ended; the same miniwin eval command goes on with it")
    return SuiteResult.read(path / RESULT)


def files_of(refs: Sequence[str]) -> list[Path]:
    """The files that `stored_result` reads, if they are there."""
    paths = [user_path(ref) for ref in refs]
    return [*paths, *(path / name for path in paths for name in (HEAD, RESULT))]

"""Results of suites on disk: a file that `miniwin eval --suite` wrote, or the folder that it worked in."""

from __future__ import annotations

import os
from pathlib import Path

from miniwin.evaluation.suite.result import SuiteResult
from miniwin.specs import UserError, user_path

RESULT, HEAD = "result.json", "suite.json"  # in the folder of a suite


def stored_result(ref: str | os.PathLike[str]) -> SuiteResult | None:
    """The result that a path names; None if it names something else, such as a model.

    Raises:
        UserError: a .json file is not a result, or the folder's suite has not ended.
    """
    path = Path(os.fspath(ref))
    if path.suffix.lower() == ".json":
        return SuiteResult.read(user_path(path))
    folder = user_path(path) if path.is_dir() else None
    if folder is None or not (folder / HEAD).is_file():
        return None
    if not (folder / RESULT).is_file():
        raise UserError(f"{folder} is a suite that has not ended; the same miniwin eval command goes on with it")
    return SuiteResult.read(folder / RESULT)

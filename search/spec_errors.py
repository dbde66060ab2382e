"""Mistakes in a search spec that show only beside the specs that it names, said with file, line and column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from miniwin.specs import UserError
from miniwin.specs.loading import at_their_places
from miniwin.specs.validation_errors import Problem, said


class SpaceError(UserError):
    """Problems with a search spec, each at its path in the spec."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(str(said(list(problems), None, {})))
        self.problems = list(problems)


@contextmanager
def placed(path: Path | None, overrides: Sequence[str] = ()) -> Iterator[None]:
    """Give each problem of a SpaceError in the block its place in the file at `path`, or in the override.

    path: of the search spec, which was read with these overrides; None where there is no file.
    """
    try:
        yield
    except SpaceError as error:
        if path is None:
            raise
        raise at_their_places(error.problems, path, "search", overrides) from None

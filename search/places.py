"""Mistakes in a search spec that show only beside the specs it names, said with file, line and column as others are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from miniwin.specs import UserError, resolve_spec_path, user_path
from miniwin.specs.loading import at_their_places
from miniwin.specs.validation_errors import Problem, said
from miniwin.specs.yaml_file import read_text


class SpaceError(UserError):
    """Problems, each at its path into the search spec."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(str(said(list(problems), None, {})))
        self.problems = list(problems)


@contextmanager
def placed(path: Path | None, overrides: Sequence[str] = ()) -> Iterator[None]:
    """A SpaceError inside is of the search spec at `path`, read with these overrides; None: of one without a file."""
    try:
        yield
    except SpaceError as error:
        if path is None:
            raise
        raise at_their_places(error.problems, path, "search", overrides) from None


def find_spec(ref: str, folder: Path, kind: str, field: str) -> Path:
    """A spec that a search names: relative to the search's own folder, or one that ships with MiniWin."""
    near = folder / user_path(ref)
    if near.is_file():
        return near
    try:
        found = resolve_spec_path(ref, kind)
        read_text(found if found.is_file() else near)
    except UserError as error:
        raise SpaceError([Problem((field,), str(error))]) from None
    return found

"""From zoos to pages: which versions get one, what the files are called, and which entries are left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from miniwin.specs import UserError
from miniwin.zoo.catalogue.described import Described
from miniwin.zoo.catalogue.listing import catalogue, newest
from miniwin.zoo.errors import UnreachableError, ZooError
from miniwin.zoo.site.index_page import index_page, row_of
from miniwin.zoo.site.model_page import INDEX, model_page
from miniwin.zoo.site.writing import site_folder, write_site

UNWRITTEN = "the site was not written, since models would be missing"
WAY_OUT = "--source NAME takes one zoo, and MINIWIN_OFFLINE=1 what is on this machine"


@dataclass(frozen=True)
class Built:
    """problems: which entries have no page, and why."""

    folder: Path
    models: int
    versions: int
    problems: list[str]


def build(folder: Path | str, zoo: str | None = None, said: Callable[[str], None] = lambda line: None) -> Built:
    """Write the site of all zoos, or of one, into a folder. said: is told of what is read from elsewhere.

    Raises:
        UserError: the folder holds other things, there is no such zoo, an index cannot be read, or the system refused.
    """
    target = site_folder(folder)
    listed = catalogue(zoo)
    if listed.unread:
        raise ZooError(f"{UNWRITTEN}: {'; '.join(listed.unread)}; {WAY_OUT}")
    pages, problems, models, versions = pages_of(listed.entries, said)
    write_site(target, pages)
    return Built(target, models, versions, [*listed.broken, *problems])


def pages_of(
    entries: Sequence[Described], said: Callable[[str], None] = lambda line: None
) -> tuple[dict[str, str], list[str], int, int]:
    """Texts of pages by file name, why entries have none, and how many models and versions have one.

    Raises:
        ZooError: files of an entry are elsewhere, and nobody answers.
    """
    problems: list[str] = []
    rows = {}
    for entry, file in file_names(entries).items():
        if not entry.here:
            said(f"reading {entry.to_load}")
        try:
            rows[entry] = row_of(entry, file), model_page(entry, {})
        except UnreachableError as error:
            raise ZooError(f"{UNWRITTEN}: {error}; {WAY_OUT}") from None
        except UserError as error:
            problems.append(f"{entry.to_load} has no page: {error}")
        except Exception as error:  # anybody may have made an entry: no error of one takes the pages of others
            problems.append(f"{entry.to_load} has no page: {type(error).__name__}: {error}")
    listed = newest(list(rows))
    versions: dict[tuple[str, str], list[Described]] = {}
    for entry in reversed(rows):
        versions.setdefault((entry.name, entry.zoo), []).append(entry)
    pages = {}
    for entry, (row, page) in rows.items():
        others = {one.ref: rows[one][0].file for one in versions[entry.name, entry.zoo] if one is not entry}
        pages[row.file] = model_page(entry, others) if others else page
    newer = set(listed)
    older = [(one.to_load, rows[one][0].file) for one in rows if one not in newer]
    pages[INDEX] = index_page([rows[entry][0] for entry in listed], older)
    return pages, problems, len(listed), len(rows)


def file_names(entries: Sequence[Described]) -> dict[Described, str]:
    """`name-1.0.0.html`, with the zoo before it where another zoo has something else of this name."""
    found: dict[Described, str] = {}
    taken: set[str] = set()
    for entry in entries:
        file = f"{entry.name}-{entry.version}.html"
        file = file if file not in taken else f"{entry.zoo}.{file}"
        taken.add(file)
        found[entry] = file
    return found

"""The folder of a site: every file in it is ours, as `site.json` says, and it is replaced as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.swapping import replacing_folder
from miniwin.files.writing import said_if_unwritable
from miniwin.specs.base import user_path
from miniwin.zoo.errors import ZooError

MARK = "site.json"
KIND = "miniwin-zoo-site"


def site_folder(path: Path | str) -> Path:
    """The folder to write to, links followed.

    Raises:
        ZooError: it is a file, the current folder or one around it, or holds anything that a site of ours does not.
    """
    folder = Path(os.path.realpath(user_path(path)))
    if folder.exists() and not folder.is_dir():
        raise ZooError(f"{folder} is a file; expected a folder for the pages, such as site")
    if folder == Path.cwd() or folder in Path.cwd().parents:
        raise ZooError(
            f"{folder} is the folder that you are in, or one around it, and a site is replaced as a whole; give it a "
            "folder of its own, such as site"
        )
    if os.path.ismount(folder):
        raise ZooError(f"{folder} is a whole disk, and a site is replaced as a whole; give a folder in it")
    if not folder.is_dir():
        around = next(parent for parent in folder.parents if parent.exists())
        if not around.is_dir():
            raise ZooError(f"{around} is a file, so there can be no folder in it; choose another place")
        return folder
    there = set(os.listdir(folder))
    if strangers := sorted(there - _ours(folder)):
        more = f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
        what = "is no site of miniwin" if MARK not in there else "has files that are not of the site"
        raise ZooError(
            f"{folder} {what} ({', '.join(strangers[:3])}{more}), and a site is replaced as a whole; give a new or an "
            "empty folder, or move what is there"
        )
    return folder


def write_site(folder: Path, pages: Mapping[str, str]) -> None:
    """Replace a site. folder: from `site_folder`. pages: texts by file name.

    Raises:
        UserError: the system refused. The old site is as it was.
    """
    with said_if_unwritable(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing_folder(folder) as staged:
            for name, text in pages.items():
                (staged / name).write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
            mark = {"kind": KIND, "format": 1, "files": sorted(pages)}
            (staged / MARK).write_text(json.dumps(mark, indent=2) + "\n", encoding="utf-8", newline="\n")


def _ours(folder: Path) -> set[str]:
    """The names of the files that a site's mark lists, and the mark; nothing where there is none."""
    try:
        found = read_json(folder / MARK)
    except (OSError, JSONProblem):
        return set()
    files = found.get("files") if isinstance(found, dict) and found.get("kind") == KIND else None
    return {MARK, *(one for one in files if isinstance(one, str))} if isinstance(files, list) else set()

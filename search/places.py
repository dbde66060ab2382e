"""Where the run folders of a study are: a folder that every worker sees.

With a journal that is the study folder. A study in a database may have any other folder (`--place`); there it has a
folder of its own, NAME-ID, with a file that says so. Another machine may see the folder under another path. The file
tells it from an empty one, such as a share that is not mounted: training there would not go on from any checkpoint.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.writing import said_if_unwritable, write_json
from miniwin.search import study_json
from miniwin.specs import UserError, user_path

FORMAT, MARK = 1, "place.json"


class Place:
    """A folder for run folders, of one study."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def check_writable(self) -> None:
        """Raise Unwritable if no file can be made there."""
        trial = self.folder / f".{uuid.uuid4().hex}.tmp"
        with said_if_unwritable(self.folder):
            trial.write_bytes(b"0")
            trial.unlink()


def make_place(asked: str, name: str, id: str) -> str:
    """The place of a new study, made and marked. asked: `--place`."""
    root = _own_folder(user_path(asked).absolute(), name, id)
    with said_if_unwritable(root):
        root.mkdir(parents=True, exist_ok=True)
        write_json(root / MARK, {"format": FORMAT, "study": id})
    return str(root)


def find_place(asked: str | None, recorded: str, name: str, id: str) -> str:
    """The place of a study, as this machine sees it. asked: `--place`, what was given when the study was made, or the
    study's own folder in it. recorded: as the machine saw it that made the study.

    Raises:
        UserError: the place is not there.
    """
    if asked is None:
        if _is_of(Path(recorded), id):
            return recorded
        raise UserError(
            f"the study {name!r} has its run folders in {recorded}, which is not there as seen from this machine: give "
            "the folder with --place, by the path that it has here"
        )
    given = user_path(asked).absolute()
    for root in (given, _own_folder(given, name, id)):
        if _is_of(root, id):
            return str(root)
    raise UserError(
        f"--place {asked}: the run folders of the study {name!r} are not there (there is neither a study.json nor a "
        f"{MARK} of it); expected the folder that its maker sees as {recorded}"
    )


def _own_folder(folder: Path, name: str, id: str) -> Path:
    return folder / f"{name}-{id[:8]}"


def _is_of(root: Path, id: str) -> bool:
    """Whether a folder is a place of this study: a folder of its own, or its study folder."""
    for file, field in ((MARK, "study"), (study_json.FILE, "id")):
        with suppress(OSError, JSONProblem, AttributeError):
            said: Any = read_json(root / file, names=True)
            if said.get(field) == id:
                return True
    return False

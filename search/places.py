"""Where the run folders of a study are: a folder that every worker sees, or a URL (remote_place.py).

With a journal that is the study folder. A study in a database may have any other place (`--place`); there it has a
folder of its own, NAME-ID, with a file that says so. Another machine may see the folder under another path. The file
tells it from an empty one, such as a share that is not mounted: training there would not go on from any checkpoint.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from miniwin.blocks.messages.passwords import has_secret, masked
from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.writing import said_if_unwritable, write_json
from miniwin.search.remote_place import MARK, RemotePlace, mark, marked
from miniwin.specs import UserError, user_path

FORMAT = 1


class Place:
    """A folder for run folders, of one study. elsewhere: they go up and down; `folder` has this machine's copies."""

    elsewhere = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def check_writable(self) -> None:
        """Raise Unwritable if no file can be made there."""
        # A file without a name: nothing is left of it if the disk is full, or this process is killed.
        with said_if_unwritable(self.folder), TemporaryFile(dir=self.folder, buffering=0) as trial:
            trial.write(b"0")

    def fetch(self, folder: Path) -> None:
        """Make sure that a folder is here as it was last."""

    def push(self, folder: Path, *, over: bool = False) -> None:
        """Let other machines see a folder as it is now. over: nobody goes on with it."""

    def forget(self, folder: Path) -> None:
        """Free this machine of a folder that others see."""


def open_place(root: str, study_folder: Path) -> Place | RemotePlace:
    """The place of a study. A study folder that is the place itself may have been moved."""
    if _is_url(root):
        return RemotePlace(root, study_folder)
    moved = not (Path(root) / MARK).is_file() and (study_folder / MARK).is_file()
    return Place(study_folder if moved else Path(root))


def make_place(asked: str | None, name: str, id: str, study_folder: Path) -> str:
    """The place of a new study, made and marked. asked: `--place`; None: the study folder."""
    said = {"format": FORMAT, "study": id}
    if asked is None:
        write_json(study_folder / MARK, said)
        return str(study_folder.absolute())
    if _is_url(asked):
        _refuse_password(asked)
        url = f"{asked.rstrip('/')}/{name}-{id[:8]}"
        mark(url, said)
        return url
    root = _own_folder(user_path(asked).absolute(), name, id)
    with said_if_unwritable(root):
        root.mkdir(parents=True, exist_ok=True)
        write_json(root / MARK, said)
    return str(root)


def find_place(asked: str | None, recorded: str, name: str, id: str) -> str:
    """The place of a study, as this machine sees it. asked: `--place`, what was given when the study was made, or the
    study's own folder in it. recorded: as the machine saw it that made the study.

    Raises:
        UserError: the place is not there.
    """
    if asked is None:
        if _is_of(recorded, id):
            return recorded
        raise UserError(
            f"the study {name!r} has its run folders in {recorded}, which is not there as seen from this machine: give "
            "the place with --place, as it is called here"
        )
    if _is_url(asked):
        _refuse_password(asked)
        given = asked.rstrip("/")
        roots = [given, f"{given}/{name}-{id[:8]}"]
    else:
        folder = user_path(asked).absolute()
        roots = [str(folder), str(_own_folder(folder, name, id))]
    for root in roots:
        if _is_of(root, id):
            return root
    raise UserError(
        f"--place {asked}: the run folders of the study {name!r} are not there (there is no {MARK} of it); expected "
        f"the place that its maker calls {recorded}"
    )


def _is_url(place: str) -> bool:
    return "://" in place


def _refuse_password(url: str) -> None:
    if has_secret(url):
        raise UserError(
            f"--place {masked(url)}: it would be written down, with its password: leave the password out, and put it "
            "where the library of that file system looks for it"
        )


def _own_folder(folder: Path, name: str, id: str) -> Path:
    return folder / f"{name}-{id[:8]}"


def _is_of(root: str, id: str) -> bool:
    """Whether a place is of this study."""
    if _is_url(root):
        said = marked(root)
        return isinstance(said, dict) and said.get("study") == id
    with suppress(OSError, JSONProblem, AttributeError):
        found: Any = read_json(Path(root) / MARK, names=True)
        return bool(found.get("study") == id)
    return False

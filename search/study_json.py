"""study.json: what a study folder says of itself.

format, id, name; storage: a URL, or null for journal.log; train_base: where relative paths of train.yaml start
format 2: what workers share is in the storage (stored.py); place: where run folders are (places.py); version: of the
specs here, which are copies of those in the storage
choices: how many choices a variable had when the study began, if it has more by now
tracking: the MLflow run of the search; ready: false until the storage has the study
weights: the model whose weights every trial begins with, if there is one (first_weights.py)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from miniwin.blocks.messages.passwords import has_secret
from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.writing import write_json
from miniwin.specs import UserError

FORMAT = 1
STORED = 2  # an older miniwin would look for leases in the folder, and must not work on such a study
FILE = "study.json"
KINDS: dict[str, Any] = {
    "id": str,
    "storage": str | None,
    "train_base": str,
    "tracking": dict | None,
}
WEIGHTS = ("ref", "sha256", "spec_hash")
KINDS_STORED: dict[str, Any] = {"storage": str, "place": str}


def read_about(folder: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = read_json(folder / FILE, names=True)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder} is not a study folder: it has no study.json; expected one that `miniwin search run` made"
        ) from None
    except JSONProblem as error:
        raise UserError(f"{folder / 'study.json'} is {error}; expected what `miniwin search` wrote") from None
    if not isinstance(about, dict) or about.get("format") not in (FORMAT, STORED):
        found = about.get("format") if isinstance(about, dict) else type(about).__name__
        raise UserError(
            f"{folder / 'study.json'} has format {found!r}; this version of miniwin reads formats {FORMAT} and {STORED}"
        )
    for name, kind in (KINDS | (KINDS_STORED if about["format"] == STORED else {})).items():
        if name not in about or not isinstance(about[name], kind):
            raise UserError(
                f"{folder / 'study.json'}: {name} is not what `miniwin search` wrote; put it back from a copy"
            )
    weights = about.get("weights", {})
    if not isinstance(weights, dict) or not all(isinstance(weights.get(k), str) for k in weights and WEIGHTS):
        raise UserError(f"{folder / 'study.json'}: weights is not what `miniwin search` wrote; put it back from a copy")
    choices = about.get("choices", {})
    if not isinstance(choices, dict) or not all(isinstance(count, int) for count in choices.values()):
        raise UserError(f"{folder / 'study.json'}: choices is not what `miniwin search` wrote; put it back from a copy")
    return about


def write_about(folder: Path, about: dict[str, Any]) -> None:
    write_json(folder / FILE, about)
    if has_secret(about["storage"] or ""):  # its study was made when passwords were still kept
        (folder / FILE).chmod(0o600)


def is_begun(folder: Path) -> bool:
    """Whether the folder has a study, and its storage has the study too."""
    return (folder / FILE).exists() and bool(read_about(folder).get("ready", True))


def is_stored(folder: Path) -> bool:
    """Whether the folder has a study that is kept in its storage as a whole."""
    return (folder / FILE).exists() and bool(read_about(folder)["format"] == STORED)


def pending_id(folder: Path) -> str | None:
    """The id of a study that was cut off while it was made, or None if there is no study.json."""
    return read_about(folder)["id"] if (folder / FILE).exists() else None

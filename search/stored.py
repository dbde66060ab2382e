"""What the workers of a study share, kept in a storage that has a URL. A worker then has to see nothing but the
storage, and a place for run folders (places.py).

    miniwin_study     the id of the study
    miniwin_files     the specs, and what of study.json is the same on every machine; `version` is new at each change
    miniwin_place     where run folders are, as the machine sees it that made the study
    miniwin_data      the fingerprint of the data that trials are trained on
    miniwin_result    what came of the confirmation, as in confirm.json

These are attributes of the Optuna study. Leases and outcomes are attributes, too (entries.py). The study folder of each
machine has copies of the specs, which are brought up to date where they are read.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from miniwin.files.writing import write_text
from miniwin.search.study_json import write_about
from miniwin.specs import UserError

FILES, PLACE, DATA, RESULT = "miniwin_files", "miniwin_place", "miniwin_data", "miniwin_result"
SHARED = ("train_base", "choices", "tracking", "weights")  # of study.json
NAMES = ("search.yaml", "model.yaml", "train.yaml", "baseline.yaml")


def shared(about: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """What goes into the storage. about: of study.json. texts: of the specs, by the names of their files."""
    said = {name: about[name] for name in SHARED if name in about}
    return {"version": uuid.uuid4().hex, "texts": dict(texts), **said}


def take_up(folder: Path, about: dict[str, Any], files: Mapping[str, Any]) -> None:
    """Bring the copies in a study folder up to date. about: what study.json says there, which changes."""
    for name, text in files["texts"].items():
        write_text(folder / name, text)
    about.update({name: files[name] for name in SHARED if name in files}, version=files["version"])
    write_about(folder, about)


def files_in(attributes: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What `shared` gave. name: of the study, for the message.

    Raises:
        UserError: it is not there, or is something else.
    """
    files = attributes.get(FILES)
    if (
        not isinstance(files, dict)
        or not isinstance(files.get("version"), str)
        or not isinstance(files.get("texts"), dict)
        or not set(NAMES[:3]) <= set(files["texts"]) <= set(NAMES)
        or not all(isinstance(text, str) for text in files["texts"].values())
    ):
        raise UserError(
            f"the storage has no specs of the study {name!r} (attribute {FILES}): it was cut off while it was made, "
            "and the same miniwin search run goes on; or an older miniwin made it, which kept specs in the study "
            "folder alone: name that folder"
        )
    return files

"""Where a ladder keeps its plan, its prediction and its result.

    plan          ladder/plan.json           attribute ladder:plan of the Optuna study
    prediction    ladder/prediction.json     ladder:prediction
    result        ladder.json                ladder:result
    begun         ladder/HASH/begun.json     ladder:begun:HASH

Files in the study folder with a journal; attributes where the study is in a database, so that every machine sees them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.writing import finite, write_json
from miniwin.search.study import Study
from miniwin.specs import UserError
from miniwin.specs.base import Strict
from miniwin.specs.validation_errors import explain

FOLDER = "ladder"  # in the folder of the study
T = TypeVar("T", bound=Strict)


def where(study: Study, name: str) -> str:
    """The file or the attribute, for messages."""
    return f"the attribute {_attribute(name)} in the storage of the study" if study.stored else str(_path(study, name))


def write(study: Study, name: str, file: Strict) -> None:
    """The caller holds the lock of the study."""
    data = file.model_dump(mode="json")
    if study.stored:
        study.optuna.set_user_attr(_attribute(name), finite(data))
        return
    path = _path(study, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, data)


def read(study: Study, name: str, kind: type[T], mend: str, seen: Mapping[str, Any] | None = None) -> T | None:
    """What was written; None if nothing was. seen: the attributes of the Optuna study, if they have just been read.

    Raises:
        UserError: it is damaged, or not what we wrote. mend: how to mend that, for the message.
    """
    try:
        data = _data(study, name, seen)
    except (OSError, JSONProblem) as error:
        raise UserError(f"{where(study, name)} cannot be read ({error}); {mend}") from None
    try:
        return None if data is None else kind.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{where(study, name)}: {explain(error, data, kind, None)}; {mend}") from None


def _data(study: Study, name: str, seen: Mapping[str, Any] | None) -> Any:
    if study.stored:
        return (study.optuna.user_attrs if seen is None else seen).get(_attribute(name))
    try:
        return read_json(_path(study, name), names=True)
    except FileNotFoundError:
        return None


def _attribute(name: str) -> str:
    return f"{FOLDER}:{name}"


def _path(study: Study, name: str) -> Path:
    name, _, of = name.partition(":")
    if name == "result":
        return study.folder / "ladder.json"
    return study.folder / FOLDER / of / f"{name}.json"

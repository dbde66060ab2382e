"""Changes of a trial in Optuna that belong together, in one transaction where the storage is a database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miniwin.search.few_statements import FewStatements


def set_trial_attributes(storage: Any, trial: int, attributes: Mapping[str, Any]) -> None:
    """Set user attributes of a trial, in this order. trial: its id."""
    if database := database_below(storage):
        database.set_trial_user_attrs(trial, attributes)
        return
    for name, value in attributes.items():
        storage.set_trial_user_attr(trial, name, value)


def database_below(storage: Any) -> FewStatements | None:
    """The storage below Optuna's cache, if it is a database."""
    from miniwin.search.few_statements import FewStatements

    below = getattr(storage, "_backend", None)
    return below if isinstance(below, FewStatements) else None

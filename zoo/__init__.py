"""The zoo: versioned, hashed, immutable model entries that `miniwin.load("name@version")` opens.

An entry is a folder (see `entry.py`). Built-in entries ship in the package, the user's own live in
`$MINIWIN_ZOO`, and an index (`$MINIWIN_ZOO_INDEX`) names entries that can be pulled from elsewhere.
"""

if __name__ == "zoo":
    raise ImportError(
        "the folder zoo/ was imported under its bare name 'zoo'; import miniwin.zoo instead "
        "(for example: from miniwin.zoo import resolve)"
    )

from importlib import import_module
from typing import TYPE_CHECKING, Any

from miniwin.zoo.entry import Entry
from miniwin.zoo.errors import ZooError
from miniwin.zoo.index import write_index
from miniwin.zoo.lookup import find, list_entries, resolve
from miniwin.zoo.references import is_ref
from miniwin.zoo.store import built_in_zoo, user_zoo

if TYPE_CHECKING:
    from miniwin.zoo.adding import add, check_addable
    from miniwin.zoo.verification import Problem, verify

__all__ = [
    "Entry",
    "Problem",
    "ZooError",
    "add",
    "built_in_zoo",
    "check_addable",
    "find",
    "is_ref",
    "list_entries",
    "resolve",
    "user_zoo",
    "verify",
    "write_index",
]

# What computes with weights needs torch; listing, showing and pulling do without.
_HOME = {"add": "adding", "check_addable": "adding", "Problem": "verification", "verify": "verification"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'miniwin.zoo' has no attribute {name!r}")
    return getattr(import_module(f"miniwin.zoo.{_HOME[name]}"), name)

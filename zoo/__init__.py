"""The zoo: versioned, hashed, immutable model entries that `miniwin.load("name@version")` opens.

An entry is a folder (see `entry.py`). Built-in entries ship in the package, the user's own live in
`$MINIWIN_ZOO`, and an index (`$MINIWIN_ZOO_INDEX`) names entries that can be pulled from elsewhere.
"""

if __name__ == "zoo":
    raise ImportError(
        "the folder zoo/ was imported under its bare name 'zoo'; import miniwin.zoo instead "
        "(for example: from miniwin.zoo import resolve)"
    )

from miniwin.zoo.adding import add, check_addable
from miniwin.zoo.entry import Entry
from miniwin.zoo.errors import ZooError
from miniwin.zoo.index import write_index
from miniwin.zoo.lookup import find, list_entries, resolve
from miniwin.zoo.store import built_in_zoo, user_zoo
from miniwin.zoo.verification import Problem, verify
from miniwin.zoo.version import is_ref

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

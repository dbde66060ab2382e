"""The licence of a model: as its import found it, its zoo entry says it, or the run's first weights had it.

It is the SPDX name in lower case, or the name that the Hugging Face Hub has for it (apache-2.0, gemma, llama3.1).
"""

from __future__ import annotations

from pathlib import Path

from miniwin.files.json_files import read_json
from miniwin.runs import FROM, IMPORT, RUN

UNKNOWN = "unknown"  # of weights from elsewhere that do not say it
ENTRY = "entry.json"


def licence_of(folder: Path) -> str | None:
    """The licence of the model in a folder; None for a run that began with random weights, whose owner chooses."""
    if (folder / IMPORT).is_file():
        return _said(folder / IMPORT) or UNKNOWN
    if (folder / ENTRY).is_file():
        return _said(folder / ENTRY)
    return _said(folder / RUN, FROM) if (folder / RUN).is_file() else None


def _said(path: Path, within: str | None = None) -> str | None:
    try:
        data = read_json(path, names=True)
        found = (data if within is None else data.get(within) or {}).get("licence")
    except (OSError, ValueError, AttributeError):  # other errors in the file are reported where it is used
        return None
    return found if isinstance(found, str) and found else None

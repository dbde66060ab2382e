"""The licence of a source: as its files say it, or the user.

GGUF       general.license
hf         `license` in the front matter of README.md, or in config.json; `license_name` where it is `other`
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from miniwin.specs.base import UserError
from miniwin.specs.yaml_scalars import shown
from miniwin.zoo.importing.source import Source

CARD = "README.md"
LARGEST = 1 << 16  # bytes of a card that are looked at; the front matter is its beginning
FRONT = re.compile(r"\A---[ \t]*\n(.*?)\n---[ \t]*$", re.DOTALL | re.MULTILINE)
NAME = re.compile(r"[a-z0-9][a-z0-9 .,+()/_-]{0,99}")
EXPECTED = "expected an SPDX name, such as apache-2.0"


def licence(source: Source, stated: str | None) -> str | None:
    """The licence of the weights; None where nobody says it. stated: by the user.

    Raises:
        UserError: the source says another.
    """
    found = as_licence(source.licence)
    if source.licence and found is None:
        source.notes.append(f"the licence is left out: got {shown(source.licence)}; {EXPECTED}")
    if stated is None:
        return found
    said = as_licence(stated)
    if said is None:
        raise UserError(f"--licence: got {shown(stated)}; {EXPECTED}")
    if found not in (None, said):
        raise UserError(f"--licence {said}: {source.path.name} says that its licence is {found}; leave --licence out")
    return said


def as_licence(text: object) -> str | None:
    """The name in lower case; None for what is none."""
    name = text.strip().lower() if isinstance(text, str) else ""
    return name if NAME.fullmatch(name) else None


def of_card(path: Path) -> str | None:
    """What the front matter of a model card says."""
    try:
        with path.open("rb") as file:
            front = FRONT.match(file.read(LARGEST).decode("utf-8-sig", "replace").replace("\r\n", "\n"))
        # All values as text; a loader that knows more can be made to take all memory by merges within merges.
        data = None if front is None else yaml.load(front[1], yaml.BaseLoader)
    except (OSError, yaml.YAMLError, RecursionError, ValueError):
        return None  # the card is for people, and an import needs none
    return said(data)


def said(data: object) -> str | None:
    """The licence in a mapping that may hold anything."""
    if not isinstance(data, dict):
        return None
    name = data.get("license")
    if name == "other" and isinstance(data.get("license_name"), str):
        name = data["license_name"]
    if isinstance(name, list) and all(isinstance(one, str) for one in name):
        name = ", ".join(name)
    return name if isinstance(name, str) else None

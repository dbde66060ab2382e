"""What provenance.json says of a confirmation: the architecture once more, with new seeds, on text nothing has seen;
and of a ladder: the architecture at several sizes.

    confirmation: {sentence, split, seeds, tokens, trials, untrained, differences: [{against, measure, difference,
                   interval, verdict, ...}, ...]}
    ladder: {sentence, ...}

Anybody may have written the file. So what the card shows is checked, and everything else is left alone.
"""

from __future__ import annotations

from typing import Any

from miniwin.specs.yaml_scalars import shown
from miniwin.zoo.errors import ZooError

HEADER = ("Against", "Measured", "Difference", "95 % interval", "This one is")
CELLS = ("against", "measure", "difference", "interval", "verdict")


def confirmed(provenance: dict[str, Any]) -> tuple[str, list[tuple[str, ...]]] | None:
    """The sentence and the rows of the card's table; None if nothing was confirmed.

    Raises:
        ZooError: a value that the card shows is no text.
    """
    found = provenance.get("confirmation")
    if found is None:
        return None
    if not isinstance(found, dict):
        raise ZooError(f"confirmation: got {shown(found)}; expected a mapping")
    differences = found.get("differences")
    if not isinstance(differences, list) or not all(isinstance(one, dict) for one in differences):
        raise ZooError(f"confirmation.differences: got {shown(differences)}; expected a list of mappings")
    rows = [
        tuple(_text(one, name, f"confirmation.differences.{n}") for name in CELLS) for n, one in enumerate(differences)
    ]
    return _text(found, "sentence", "confirmation"), rows


def climbed(provenance: dict[str, Any]) -> str | None:
    """The sentence of a ladder; None if there was none.

    Raises:
        ZooError: it is no text.
    """
    found = provenance.get("ladder")
    if found is None:
        return None
    if not isinstance(found, dict):
        raise ZooError(f"ladder: got {shown(found)}; expected a mapping")
    return _text(found, "sentence", "ladder")


def _text(data: dict[str, Any], name: str, where: str) -> str:
    value = data.get(name)
    if not isinstance(value, str):
        raise ZooError(f"{where}.{name}: got {shown(value)}; expected text")
    return value

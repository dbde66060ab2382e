"""What a model cannot do, or nobody knows: what its maker says of that, and what follows from its files."""

from __future__ import annotations

import re

from miniwin.display.formats import length_text
from miniwin.specs import UserError
from miniwin.zoo.catalogue.described import Described
from miniwin.zoo.catalogue.scores import scores_of
from miniwin.zoo.site.measured import losses

_SAID = re.compile(r"(?:^|(?<=[.!?\n] ))Limits:\s*", re.M)
_HEADING = re.compile(r"^#{1,6}[ \t]+Limits?[^\n]*\n(.*?)(?=^#{1,6}[ \t]|\Z)", re.M | re.S | re.I)


def about_and_limits(description: str) -> tuple[str, str]:
    """A description in two: what the model is, and what stands behind `Limits:`."""
    about, *rest = _SAID.split(description, maxsplit=1)
    return about.strip(), rest[0].strip() if rest else ""


def limits(entry: Described) -> list[str]:
    """Paragraphs. Raises ZooError where a file of the entry cannot be read."""
    card = entry.card
    said = [about_and_limits(entry.description)[1]]
    if found := _HEADING.search(card):
        said += re.split(r"\n\s*\n|^\s*[-*] ", found[1], flags=re.M)  # paragraphs, and points of a list
    paragraphs = [" ".join(one.split()) for one in said if one.strip()]
    return list(dict.fromkeys(one[0].upper() + one[1:] for one in paragraphs)) + _derived(entry, card)


def _derived(entry: Described, card: str) -> list[str]:
    lengths = [one.length for one in scores_of(card, entry.ref) if one.length and not one.is_cost]
    trained = entry.trained_at
    found = []
    if lengths:
        longest = max(lengths)
        times = f", {longest / trained:.4g} times the training length" if trained else ""
        found.append(f"Nothing is known beyond {longest:,} tokens{times}: that is the longest text that was measured.")
    else:
        found.append("Nothing was measured: how well it does is not known.")
    if entry.suite is None and losses(entry).values:
        tokens = entry.metrics.get("tokens")
        of = f" of {tokens:,} tokens" if type(tokens) is int else ""
        found.append(f"Its bits per byte are of one text{of}, without intervals.")
    try:
        room = entry.spec.embed_positions
    except UserError:
        return found
    if room is not None:
        found.append(f"It has {length_text(room)} learned positions, and can read no longer text.")
    return found

"""A novel as chapters, and its parts: what is trained on, what chooses, and what is measured."""

from __future__ import annotations

import re
from pathlib import Path

from miniwin.specs import UserError

HEADING = re.compile(r"^(?=(?:CHAPTER|Chapter|EPILOGUE|Epilogue|FINALE)\b)", re.MULTILINE)
SHORTEST = 1000  # bytes of a chapter: what is shorter is a line of the table of contents
PARTS = (0.70, 0.85)  # where the novel's parts end, as shares of its bytes


def chapters(path: Path) -> list[str]:
    """The chapters of a text, headings included. A table of contents is left out.

    Raises:
        UserError: the file cannot be read, or has fewer than 20 chapters.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    found = [part for part in HEADING.split(text)[1:] if len(part.encode()) >= SHORTEST]
    if len(found) < 20:
        raise UserError(f"{path}: got {len(found)} chapters; expected a novel with 20 or more, each headed CHAPTER")
    return found


def parts(found: list[str]) -> tuple[list[str], list[str], list[str]]:
    """(trained on, for choosing, measured): whole chapters, in the order of the novel."""
    sizes = [len(one.encode()) for one in found]
    ends, done = [sum(sizes) * share for share in PARTS], 0
    sides: tuple[list[str], list[str], list[str]] = ([], [], [])
    for one, size in zip(found, sizes, strict=True):
        sides[sum(done + size / 2 > end for end in ends)].append(one)
        done += size
    return sides

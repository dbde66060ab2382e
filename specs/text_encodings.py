"""Recognise UTF-16 and UTF-32 in a file that should be UTF-8: many editors and shells of Windows write them."""

from __future__ import annotations

import codecs
import unicodedata
from contextlib import suppress

_MARKS = (  # the longer ones first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def wide(start: bytes) -> str | None:
    """`UTF-16` or `UTF-32` where the first bytes of a file show one of them, else None.

    Two signs count: a byte order mark, and NUL bytes at every even place, or at every odd one, and nowhere else.
    """
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name
    places = start[::2].count(0), start[1::2].count(0)
    if min(places) == 0 and (max(places) >= 8 or max(places) == len(start) // 2 > 0):
        return "UTF-16"
    return None


def is_text(start: bytes, encoding: str) -> bool:
    """Whether the first bytes of a file are text in the encoding that `wide` gives: other data can look like it."""
    for name in (encoding, f"{encoding}-LE", f"{encoding}-BE"):  # the first reads the byte order mark
        with suppress(UnicodeError):
            text = codecs.getincrementaldecoder(name)().decode(start)
            if text and not any(unicodedata.category(letter) in ("Cc", "Cn") for letter in set(text) - set("\t\n\r\f")):
                return True
    return False

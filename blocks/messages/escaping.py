"""Make text that somebody else wrote safe to print.

A terminal obeys control characters: they rename its window, move its cursor and hide lines. Overrides of the direction
of writing make it show other text than there is. `escaped` spells these characters out; line breaks and tabs stay.
"""

from __future__ import annotations

_CONTROLS = (*(code for code in range(32) if chr(code) not in "\n\t"), *range(0x7F, 0xA0))
_DIRECTIONS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_HALVES = range(0xD800, 0xE000)  # surrogates: in Python, bytes of a file's name that are not UTF-8
_SPELT = {code: repr(chr(code))[1:-1] for code in (*_CONTROLS, *_DIRECTIONS, *_HALVES)}
_SPELT_LINE = _SPELT | {ord("\n"): "\\n", ord("\t"): "\\t"}


def escaped(text: str) -> str:
    """The text with every character that a terminal would obey spelt out, such as \\x1b."""
    return text if text.isprintable() else text.translate(_SPELT)


def escaped_line(text: str) -> str:
    """`escaped` for text on one line: line breaks and tabs are spelt out too. A break could fake a line of ours."""
    return text if text.isprintable() else text.translate(_SPELT_LINE)

"""What comes from elsewhere, in rich's tables and bars: as it is written, and no markup.

Rich takes a str for markup: a choice of [/b] is an error, and [red] is gone. A Text is only shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from miniwin.blocks.messages.escaping import escaped_line

if TYPE_CHECKING:
    from rich.text import Text


def cell(text: object, style: str = "") -> Text:
    """A cell, a title or a line, with nothing in it that a terminal or rich would obey."""
    from rich.text import Text

    return Text(escaped_line(str(text)), style)

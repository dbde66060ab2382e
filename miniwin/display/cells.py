"""Text from elsewhere in rich's tables and bars, shown as it is written.

Rich reads a str as markup: [/b] is an error, and [red] disappears. A Text is only shown.
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

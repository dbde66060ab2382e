"""A hook of MkDocs: on the site, a link to a file outside docs/ becomes the name of that file.

The pages are read in a checkout, too, where such links lead somewhere.
"""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)\s#]+)[^)\s]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page."""
    return OUTSIDE.sub(_named, markdown)


def _named(link: re.Match[str]) -> str:
    text, path = link.groups()
    return text if path in text.strip("`") else f"{text} (`{path}`)"

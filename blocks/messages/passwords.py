"""Mask passwords in URLs, so that a URL can be printed and written to files."""

from __future__ import annotations

import re

# Up to the last @: a password may hold an @, though it should be written %40.
_CREDENTIALS = re.compile(r"(?<=://)([^:/?#@]*):(.*)@")
_SECRETS = re.compile(r"(?<=[?&])([^=&]*(?:pass|pwd|secret|token|sig)[^=&]*)=[^&#]*", re.IGNORECASE)
MASK = "***"


def masked(url: str) -> str:
    """The URL with passwords and secrets masked: `postgresql://me:***@host/db`."""
    return _SECRETS.sub(rf"\1={MASK}", _CREDENTIALS.sub(rf"\1:{MASK}@", url))


def has_secret(url: str) -> bool:
    return masked(url) != url


def without_secrets_of(text: str, url: str) -> str:
    """The text, such as a driver's error, without the password of this URL and without pieces of the password."""
    found = _CREDENTIALS.search(url)
    text = text.replace(url, masked(url))
    pieces = [found.group(2), *re.split(r"[@:/?#]", found.group(2))] if found else []
    for piece in sorted({piece for piece in pieces if len(piece) > 2 and piece != MASK}, key=len, reverse=True):
        text = text.replace(piece, MASK)
    return text

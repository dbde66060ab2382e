"""A URL as it may be shown and written down: without the password that it may hold."""

from __future__ import annotations

import re

# As far as the last @, for a password may hold one, though it should be written %40 there.
_CREDENTIALS = re.compile(r"(?<=://)([^:/?#@]*):(.*)@")
_SECRETS = re.compile(r"(?<=[?&])([^=&]*(?:pass|pwd|secret|token|sig)[^=&]*)=[^&#]*", re.IGNORECASE)
MASK = "***"


def masked(url: str) -> str:
    """`postgresql://me:***@host/db`."""
    return _SECRETS.sub(rf"\1={MASK}", _CREDENTIALS.sub(rf"\1:{MASK}@", url))


def has_secret(url: str) -> bool:
    return masked(url) != url


def without_secrets_of(text: str, url: str) -> str:
    """What a driver says of a failure, without the password of the URL that it was given, or pieces of it."""
    found = _CREDENTIALS.search(url)
    text = text.replace(url, masked(url))
    pieces = [found.group(2), *re.split(r"[@:/?#]", found.group(2))] if found else []
    for piece in sorted({piece for piece in pieces if len(piece) > 2 and piece != MASK}, key=len, reverse=True):
        text = text.replace(piece, MASK)
    return text

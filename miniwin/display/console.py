"""The console: a character that it cannot write does not stop a command, and a warning is one line."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def any_console() -> Iterator[None]:
    """In the block, stdout and stderr spell out characters that they cannot write, such as \\u4e2d; warnings are plain.

    By itself, Python ends in a traceback on a console in another code page.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    before = warnings.formatwarning
    warnings.formatwarning = _plainly
    try:
        yield
    finally:
        warnings.formatwarning = before


def _plainly(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    from miniwin.blocks.messages.escaping import escaped

    kind = "warning" if category is UserWarning else f"warning ({category.__name__}, {filename}:{lineno})"
    return f"{kind}: {escaped(str(message))}\n"

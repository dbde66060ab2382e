"""What commands print: our own lines, which may quote a file or a network, and text that a model wrote."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.progress import Progress


def say(text: str, *, err: bool = False) -> None:
    """Print a line of ours. It holds nothing that a terminal would obey, whatever it quotes."""
    from miniwin.blocks.messages.escaping import escaped

    typer.echo(escaped(text), err=err)


def write(text: str) -> None:
    """Print what a model wrote, at once: control characters spelt out on a terminal, unchanged in a file or a pipe."""
    from miniwin.blocks.messages.escaping import escaped

    sys.stdout.write(escaped(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def typed(option: str, text: str) -> str:
    """The text that a person gave.

    Raises:
        UserError: it holds bytes that are not text. They arrive as halves of surrogate pairs; a model would get `?`.
    """
    from miniwin.specs import UserError

    for place, letter in enumerate(text, 1):
        if "\ud800" <= letter <= "\udfff":
            what = f"byte {ord(letter) - 0xDC00:#04x}" if "\udc80" <= letter <= "\udcff" else "half a surrogate pair"
            raise UserError(f"{option}: {what} at character {place} is not text; give it in UTF-8")
    return text


def typed_in(option: str) -> str:
    """All of standard input, as text."""
    from miniwin.specs import UserError

    try:
        text = sys.stdin.read()
    except UnicodeDecodeError as error:
        got = f"byte {error.object[error.start]:#04x}"
        raise UserError(
            f"{option}: {got} of standard input is not {error.encoding}; give it in that encoding"
        ) from None
    return typed(option, text.removeprefix("\ufeff"))


def bar() -> Progress | None:
    """Bars on stderr with shares and the time left, begun, which are gone when they stop. None without a terminal."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    begun = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    begun.start()
    return begun

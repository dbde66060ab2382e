"""What commands print: lines of ours that may quote a file or a network, and text that a model wrote."""

from __future__ import annotations

import sys

import typer


def say(text: str, *, err: bool = False) -> None:
    """A line of ours. It never holds what a terminal would obey, whatever it quotes."""
    from miniwin.blocks.visible import visible

    typer.echo(visible(text), err=err)


def write(text: str) -> None:
    """What a model wrote, at once: spelt out on a terminal, and byte for byte as it is in a file or a pipe."""
    from miniwin.blocks.visible import visible

    sys.stdout.write(visible(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()

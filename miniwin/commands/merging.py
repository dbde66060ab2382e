"""`miniwin merge`: a model and an adapter that was trained from it become one model."""

from __future__ import annotations

from typing import Annotated

import typer

from miniwin.commands.printing import say


def merge_command(
    ref: Annotated[str, typer.Argument(help="The model: a run folder, a zoo entry or an imported folder.")],
    adapter: Annotated[
        str, typer.Option("--adapter", metavar="DIR", help="The adapter, as a run with lora leaves it in its folder.")
    ],
    to: Annotated[str, typer.Option("--to", metavar="DIR", help="The folder to make.")],
) -> None:
    """Merge an adapter (LoRA, DoRA) into the model that it was trained from."""
    from miniwin.zoo.merging import merge_adapter

    folder = merge_adapter(ref, adapter, to)
    say(f"merged {ref} with {adapter}, in {folder}")

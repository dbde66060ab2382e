"""`miniwin export`: a model as a folder for transformers, or as a file for llama.cpp."""

from __future__ import annotations

from typing import Annotated

import typer

from miniwin.commands.printing import say


def export_command(
    ref: Annotated[str, typer.Argument(help="Zoo name, run folder, imported folder or model spec.")],
    to: Annotated[str, typer.Option("--to", help="The folder or file to make.")],
    form: Annotated[
        str, typer.Option("--format", help="hf: a folder that transformers loads; gguf: a file that llama.cpp loads.")
    ] = "hf",
    kind: Annotated[
        str, typer.Option("--as", help="stock: only a stock architecture; custom: our modelling file; auto: either.")
    ] = "auto",
    dtype: Annotated[
        str | None,
        typer.Option(help="Of the matrices of a GGUF file: float32, float16, bfloat16, q8_0. Default: as the weights."),
    ] = None,
    architecture: Annotated[
        str | None, typer.Option("--architecture", help="The stock architecture to use, such as llama.")
    ] = None,
    why: Annotated[
        bool, typer.Option("--why", help="Say what stands in the way of each stock architecture that does not fit.")
    ] = False,
) -> None:
    """Export a model: for transformers, as a stock architecture where one can say it, with code of ours otherwise; or
    for llama.cpp."""
    from miniwin.specs import UserError

    if form == "gguf":
        if kind != "auto":
            raise UserError(f"--as {kind}: it is for --format hf; a GGUF file has no code")
        return _gguf(ref, to, dtype, architecture, why)
    if form != "hf":
        raise UserError(f"--format: got '{form}'; expected hf or gguf")
    if dtype is not None:
        raise UserError(f"--dtype {dtype}: it is for --format gguf; a folder has the weights as they are")
    if kind not in ("auto", "stock", "custom"):
        raise UserError(f"--as: got '{kind}'; expected auto, stock or custom")
    from miniwin.zoo.exporting import export_model

    made = export_model(ref, to, kind, architecture)  # type: ignore[arg-type]
    if made.architecture != "custom":
        say(f"wrote {made.folder}: a stock {made.architecture} model")
        say(f'AutoModelForCausalLM.from_pretrained("{made.folder}")')
    else:
        say(f"wrote {made.folder}: a model with code of its own, modeling_miniwin.py, that needs miniwin installed")
        say(f'AutoModelForCausalLM.from_pretrained("{made.folder}", trust_remote_code=True)')
    if made.random:
        _random(ref)
    if made.refusals and why:
        say("what stands in the way of the stock architectures, the first field of each:")
        for refusal in made.refusals:
            say(f"  {refusal}")
    elif made.refusals and made.architecture == "custom":
        say(f"none of {len(made.refusals)} stock architectures can say it; --why says what stands in the way")


def _gguf(ref: str, to: str, dtype: str | None, architecture: str | None, why: bool) -> None:
    from miniwin.zoo.exporting.gguf_file import export_gguf

    made = export_gguf(ref, to, dtype, architecture)
    say(f"wrote {made.path}: a {made.architecture} model")
    for note in made.notes:
        say(f"note: {note}", err=True)
    if made.random:
        _random(ref)
    if made.refusals and why:
        say("what stands in the way of the architectures before it, the first field of each:")
        for refusal in made.refusals:
            say(f"  {refusal}")


def _random(ref: str) -> None:
    say(f"its weights are random: {ref} is a model spec; give a run folder or a zoo entry for trained ones", err=True)

"""`miniwin chat`: talk with a model in the terminal, or answer the lines of a script."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def chat_command(
    ref: Annotated[str, typer.Argument(help="Zoo name (name[@version]), run folder, entry folder or imported folder.")],
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", help="Cut an answer after this many tokens.")
    ] = 1024,
    temperature: Annotated[float, typer.Option(help="0: always the most probable token; 1: as the model says.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Only the k most probable tokens; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Only the most probable tokens that add up to this; 1: all.")] = 1.0,
    min_p: Annotated[
        float, typer.Option(help="Only tokens at least this share as probable as the best; 0: all.")
    ] = 0.0,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same chat.")] = None,
    context: Annotated[
        int | None, typer.Option(help="Tokens of the chat at most. Default: what the model's files say.")
    ] = None,
    template: Annotated[
        Path | None, typer.Option(help="A file with a chat template (Jinja), for a model that has none.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    quantize: Annotated[
        str | None, typer.Option(help="int8: weights in eight bits, for faster decoding on a CPU.")
    ] = None,
    cache_dtype: Annotated[
        str | None, typer.Option(help="What the cache stores: float32, bfloat16, float16 or int8. Default: as weights.")
    ] = None,
    speculate: Annotated[
        str | None,
        typer.Option(
            help="Guess tokens and check them together, for faster answers: lookup (from the chat so far), or a "
            "smaller model with the same tokenizer."
        ),
    ] = None,
    draft_tokens: Annotated[
        int | None, typer.Option(help="With --speculate: guess at most this many tokens at once; default 16.")
    ] = None,
) -> None:
    """Chat with a model through its chat template. Lines that begin with / are commands: /help names them."""
    from miniwin.chat.conversation import Chat
    from miniwin.chat.dialog import Dialog
    from miniwin.commands.printing import say, typed, write
    from miniwin.commands.speculating import speculation
    from miniwin.loading import load

    guesser = speculation(speculate, draft_tokens)
    if system is not None:
        typed("--system", system)
    model = load(ref, device=device)
    if quantize is not None:
        from miniwin.quantize import quantize as in_fewer_bits

        in_fewer_bits(model, quantize)
    chat = Chat(
        model,
        system=system,
        template=template,
        context=context,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        cache_dtype=cache_dtype,
        speculate=guesser,
    )
    dialog = Dialog(chat, write, lambda text: say(text, err=True), lambda line: typed("message", line))
    if dialog.terminal:
        length = "" if chat.limit is None else f", context of {chat.limit:,} tokens"
        say(f"{model.ref}{length}. /help names the commands; Ctrl-C stops an answer, Ctrl-D ends the chat.", err=True)
    dialog.run()

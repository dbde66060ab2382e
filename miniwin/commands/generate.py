"""`miniwin generate`: text from a model, to the terminal as it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def generate_command(
    ref: Annotated[str, typer.Argument(help="Zoo name (name[@version]), run folder, entry folder or model spec.")],
    prompt: Annotated[
        str,
        typer.Option(
            "--prompt",
            "-p",
            help="Text to continue; '-' reads it from standard input. Empty: a new document.",
        ),
    ] = "",
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", "-n", help="Stop after this many tokens.")] = 256,
    temperature: Annotated[float, typer.Option(help="0: always the most probable token; 1: as the model says.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Only the k most probable tokens; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Only the most probable tokens that add up to this; 1: all.")] = 1.0,
    min_p: Annotated[
        float, typer.Option(help="Only tokens at least this share as probable as the best; 0: all.")
    ] = 0.0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be given several times.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text.")] = None,
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
            help="Guess tokens and check them together, for faster decoding: lookup (from the text so far), or a "
            "smaller model with the same tokenizer."
        ),
    ] = None,
    draft_tokens: Annotated[
        int | None, typer.Option(help="With --speculate: guess at most this many tokens at once; default 16.")
    ] = None,
    load_session: Annotated[
        Path | None, typer.Option(help="Continue what was said in this file; the prompt follows it.")
    ] = None,
    save_session: Annotated[
        Path | None, typer.Option(help="Save everything that was said to this file, to continue later.")
    ] = None,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Print the text at the end, as a whole.")] = False,
) -> None:
    """Continue a text. The prompt and its continuation go to stdout, tokens per second to stderr."""
    from miniwin.commands.printing import say, typed, typed_in, write
    from miniwin.commands.speculating import guesses_in_words, speculation
    from miniwin.display.formats import rate
    from miniwin.files.writing import check_writable
    from miniwin.generation import generate as run
    from miniwin.loading import load
    from miniwin.sessions import load_session as session_from
    from miniwin.sessions import new_session
    from miniwin.sessions import save_session as session_to
    from miniwin.specs import UserError, user_path

    guesser = speculation(speculate, draft_tokens)
    if save_session is not None:
        save_session = user_path(save_session)
        check_writable(save_session)
    if prompt == "-":
        prompt = typed_in("--prompt -")
    typed("--prompt", prompt)
    for text in stop or ():
        typed("--stop", text)

    model = load(ref, device=device)
    if model.tokenizer is None:
        raise UserError(
            f"{model.ref} has no tokenizer, so it cannot read a prompt; import it again with --tokenizer FILE, or give "
            "token ids to generate() in Python"
        )
    if quantize is not None:
        from miniwin.quantize import quantize as in_fewer_bits

        in_fewer_bits(model, quantize)
    session = None
    if load_session is not None:
        session = session_from(model, load_session)
    elif save_session is not None:
        session, cache_dtype = new_session(model, cache_dtype), None
    shown = False

    def stream(text: str) -> None:
        nonlocal shown
        write(text if shown else prompt + text)
        shown = True

    result = run(
        model,
        prompt,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        stop=stop or (),
        seed=seed,
        stream=None if no_stream else stream,
        cache_dtype=cache_dtype,
        speculate=guesser,
        session=session,
    )
    write("\n" if shown else f"{prompt}{result.text}\n")
    if session is not None and save_session is not None:
        session_to(session, model, save_session)
    ends = {"length": "", "stop": ", ended at a stop string", "separator": ", the model ended the document"}
    say(
        f"{model.ref}: {result.new_tokens} tokens at {rate(result.tokens_per_second)} "
        f"after a prompt of {result.prompt_tokens} in {result.prefill_seconds:.2f} s{ends[result.ended]}"
        f"{guesses_in_words(result)}",
        err=True,
    )

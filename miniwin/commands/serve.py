"""`miniwin serve`: answer clients of OpenAI's API."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer


def serve_command(
    refs: Annotated[
        list[str], typer.Argument(metavar="REF...", help="Zoo name (name[@version]), run folder or imported folder.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 8000,
    api_key: Annotated[
        str | None, typer.Option(envvar="MINIWIN_API_KEY", help="Clients must send this key.", show_envvar=True)
    ] = None,
    max_length: Annotated[int, typer.Option(min=2, help="Tokens of a prompt and its text.")] = 131072,
    max_body: Annotated[str, typer.Option(help="Bytes of a request: a number, or 512K, 4M, 1G.")] = "4M",
    max_queue: Annotated[int, typer.Option(min=0, help="Texts that may wait, for each model.")] = 64,
    max_batch: Annotated[int, typer.Option(min=1, help="Texts that are written at once, for each model.")] = 16,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for a request, waiting included.")] = 600.0,
    cache_memory: Annotated[str, typer.Option(help="Memory for states of conversations, for each model.")] = "1G",
    cache_dir: Annotated[
        Path | None, typer.Option(help="Folder for states of conversations, which outlive the server.")
    ] = None,
    cache_disk: Annotated[str, typer.Option(help="Bytes of that folder, for each model.")] = "8G",
    chat_template: Annotated[
        Path | None, typer.Option(help="A file with a chat template (Jinja), for models that have none.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    quantize: Annotated[
        str | None, typer.Option(help="int8: weights in eight bits, for faster decoding on a CPU.")
    ] = None,
) -> None:
    """Serve models to clients of OpenAI's API: http://HOST:PORT/v1. Ctrl-C ends it."""
    from miniwin.serving.extra import check_installed

    check_installed()
    from miniwin.commands.printing import say, typed
    from miniwin.loading import load
    from miniwin.serving.server import Options, Serving, serve
    from miniwin.specs import UserError, user_path

    options = Options(
        host=host,
        port=port,
        api_key=None if api_key is None else typed("--api-key", api_key),
        max_length=max_length,
        max_body=_bytes("--max-body", max_body),
        max_queue=max_queue,
        max_batch=max_batch,
        timeout=timeout,
        cache_memory=_bytes("--cache-memory", cache_memory),
        cache_disk=_bytes("--cache-disk", cache_disk),
        cache_dir=None if cache_dir is None else user_path(cache_dir),
    )
    if api_key == "":
        raise UserError("--api-key: got an empty key, which would let anybody in; leave it out, or give one")
    models = []
    for ref in refs:
        model = load(ref, device=device)
        if quantize is not None:
            from miniwin.quantize import quantize as in_fewer_bits

            in_fewer_bits(model, quantize)
        if chat_template is not None and model.chat_format is None:
            from miniwin.chat.conversation import chat_format_of

            model.chat_format = chat_format_of(model, chat_template)
        models.append((model.ref, model))
    serving = Serving(models, options)
    if options.api_key is None and host not in ("127.0.0.1", "localhost", "::1"):
        say(f"anybody who reaches {host} can use this server; --api-key asks for a key", err=True)
    names = ", ".join(name for name, _ in models)
    serve(serving, options, lambda address: say(f"{names} at {address}/v1. Ctrl-C ends the server.", err=True))
    say("the server has ended", err=True)


def _bytes(option: str, text: str) -> int:
    """A number of bytes, such as 512K, 4M or 1G."""
    from miniwin.specs import UserError

    found = re.fullmatch(r"([0-9]{1,15})\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if found is None:
        raise UserError(f"{option}: got {text!r}; expected bytes: a number, or one such as 512K, 4M or 1G")
    return int(found[1]) << 10 * " KMGT".index(found[2].upper() or " ")

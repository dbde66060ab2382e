"""A long conversation that goes on after a restart: what is read again, and how long the next answer takes."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from openai import OpenAI

from benchmarks.serving.server import Server

NEW = 16  # tokens of an answer
MORE = "\n\n    def more(self):\n"  # what is said next


def conversation(model: str, tokens: int) -> dict[str, Any]:
    """Three requests: a conversation of so many tokens; more of it, on the same server; more of it, on a new one."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--cache-dir", folder, "--max-length", str(tokens + 1000), "--max-body", "64M"]
        with Server(model, options) as server, server.client() as client:
            name, said = server.model, _text(model, tokens)
            first, answer = _asked(server, client, said)
            said += answer + MORE
            again, answer = _asked(server, client, said)
            said += answer + MORE
        with Server(model, options) as server, server.client() as client:
            after, _ = _asked(server, client, said)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.safetensors"))
    return {"model": name, "tokens": tokens, "first": first, "again": again, "after a restart": after, "disk": size}


def _text(model: str, tokens: int) -> str:
    """Source code of the standard library, about so many tokens of the model."""
    from miniwin.loading import load

    tokenizer = load(model).tokenizer
    assert tokenizer is not None
    text = Path(argparse.__file__).read_text(encoding="ascii", errors="replace")
    while len(ids := tokenizer.encode(text)) < tokens:
        text += text
    return tokenizer.decode(ids[:tokens])


def _asked(server: Server, client: OpenAI, said: str) -> tuple[dict[str, Any], str]:
    """What a request costs by what the server counts, and the answer."""
    read, began = server.number("miniwin_tokens_read_total"), time.perf_counter()
    answer = client.completions.create(model=server.model, prompt=said, max_tokens=NEW, temperature=0)
    seconds = time.perf_counter() - began
    usage = answer.usage
    assert usage is not None and usage.prompt_tokens_details is not None
    found = {
        "prompt": usage.prompt_tokens,
        "cached": usage.prompt_tokens_details.cached_tokens,
        "read": int(server.number("miniwin_tokens_read_total") - read),
        "seconds": round(seconds, 3),
    }
    return found, answer.choices[0].text

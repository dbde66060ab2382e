"""`miniwin import`: a model from elsewhere becomes a folder that `miniwin.load` opens."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from miniwin.commands.printing import bar, say

PLAIN_SECONDS = 10.0  # between two lines of progress where there is no terminal


def import_command(
    src: Annotated[
        Path,
        typer.Argument(
            metavar="SRC", help="A Hugging Face folder (config.json, safetensors), a .gguf file, or a .pth file."
        ),
    ],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder to make.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="What the source does not say, such as num_attention_heads=8; may be repeated."),
    ] = None,
    family: Annotated[
        str | None, typer.Option("--as", help="The family of a source that does not say it: miniwin or minimind.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name. Default: the source's.")] = None,
    dtype: Annotated[
        str,
        typer.Option(
            help="What the weights become: keep (the dtype of most), float32, bfloat16, float16, int8 (matrices)."
        ),
    ] = "keep",
    tokenizer: Annotated[
        str | None, typer.Option(help="A tokenizer.json to carry over instead of the source's; or none.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="The licence of the weights, an SPDX name, where the source does not say it.")
    ] = None,
) -> None:
    """Import a model: spec, weights and tokenizer into one folder, with a record of where they came from."""
    from miniwin.blocks.messages.escaping import escaped_line
    from miniwin.blocks.messages.listing import some
    from miniwin.zoo.importing import import_model

    with _Shown() as shown:
        made = import_model(
            src,
            to,
            name=name,
            settings=_settings(settings or []),
            family=family,
            dtype=dtype,
            tokenizer=tokenizer,
            licence=licence,
            progress=shown.update,
        )
    for note in made.notes:
        say(f"note: {note}", err=True)
    spec, record = made.spec, made.record
    said = ", ".join(f"{key} {value}" for key, value in record["said"].items())
    inferred = ", ".join(f"{key} {one['value']}" for key, one in record["inferred"].items())
    converted = "".join(f", {count} tensors from {kind}" for kind, count in record["converted"].items())
    rows = [
        ("imported", f"{record['source']} ({record['model_type']}) to {made.folder}"),
        ("spec", f"{spec.name}, layers {spec.layout}, hash {spec.hash[:12]}"),
        ("parameters", f"{spec.parameters():,}, {record['dtype']}{converted}"),
        ("quantised", ", ".join(f"{count} tensors {kind}" for kind, count in record.get("quantization", {}).items())),
        ("tokenizer", record["tokenizer"] or "none: it takes token ids only"),
        ("licence", record["licence"] or "not known; --licence says it"),
        ("said", said),
        ("inferred", inferred),
        ("left out", some(record["ignored"], 40)),
    ]
    for title, text in rows:
        if text:
            say(f"{title:<12} {escaped_line(text)}")


def _settings(texts: list[str]) -> dict[str, Any]:
    """`key=value`, the value as YAML reads it."""
    from miniwin.specs import UserError
    from miniwin.specs.yaml_document import Document

    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key or not value.strip():
            raise UserError(f"--set {text}: expected key=value, such as num_attention_heads=8")
        if key in settings:
            raise UserError(f"--set {text}: {key} is given twice")
        settings[key] = Document(value, f"--set {text}", marked=False).data
    return settings


class _Shown:
    """Progress on stderr: a bar on a terminal, a line every ten seconds elsewhere. Quick work shows nothing."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        self._last = time.monotonic()

    def __enter__(self) -> _Shown:
        self._bar = bar()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, what: str, done: int, whole: int) -> None:
        from miniwin.blocks.messages.escaping import escaped_line

        what = escaped_line(what)
        if self._bar is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=whole)
            self._bar.update(self._tasks[what], completed=done)
        elif time.monotonic() - self._last >= PLAIN_SECONDS:
            self._last = time.monotonic()
            print(f"import: {what} {done / max(whole, 1):.0%}", file=sys.stderr, flush=True)

"""`miniwin eval`: bits per byte by length and position, recall, speed and cache size, as tables; or a suite."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miniwin.commands.token_counts import count, counts

if TYPE_CHECKING:
    from miniwin.evaluation.result import Metrics


ALONE = ("split", "lengths", "tokens", "chunk", "recall", "speed")  # options that a suite says itself
OF_SUITES = ("out", "fresh", "trained_length")


def eval_command(
    context: typer.Context,
    ref: Annotated[str, typer.Argument(help="Zoo name (name[@version]), run folder, entry folder or model spec.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="python-stdlib, a text file or folder, a .jsonl file, or a train spec or run folder: their "
            "validation part. Default: what a run or entry was trained on; python-stdlib for imported models."
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="valid, or test: what the data's spec keeps back from training and from every choice.")
    ] = "valid",
    lengths: Annotated[
        str, typer.Option(help="Lengths of context, with commas; 16k means 16384.")
    ] = "512,2048,8192,16k",
    tokens: Annotated[
        str | None,
        typer.Option(help="Tokens to predict at every length. Default: 64k, or the longest length if more."),
    ] = None,
    chunk: Annotated[int | None, typer.Option(help="Tokens in one forward pass: bounds memory.")] = None,
    recall: Annotated[bool, typer.Option(help="Measure associative recall.")] = True,
    speed: Annotated[bool, typer.Option(help="Measure prefill and decode speed.")] = True,
    suite: Annotated[
        str | None,
        typer.Option(
            help="A suite of measures with intervals, in place of the above: quick, long-context, or a YAML file."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Of a suite: the folder of its parts; the same command goes on with it. Default: suites/NAME in a run "
            "folder (best-suites/NAME for its best.safetensors), else MODEL-NAME here."
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Of a suite: measure everything anew.")] = False,
    trained_length: Annotated[
        str | None,
        typer.Option(help="Of a suite: the training length, which 1x means. Default: what the model's run says."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    dtype: Annotated[
        str | None, typer.Option(help="Convert weights and caches: float32, bfloat16. Default: as they were saved.")
    ] = None,
    quantize: Annotated[str | None, typer.Option(help="int8: weights in eight bits, as in generate.")] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Also write the numbers to this file; '-' prints them instead of tables."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Evaluate a model at several lengths of context, all on the same text."""
    import json

    from miniwin.evaluation import evaluate as run
    from miniwin.files.writing import check_writable, write_json
    from miniwin.loading import load
    from miniwin.specs import user_path

    printed = str(json_file) == "-"
    if json_file is not None and not printed:
        json_file = user_path(json_file)
        check_writable(json_file)
    _refuse_mixed(context, suite)
    wanted = counts("--lengths", lengths)
    at = None if trained_length is None else count("--trained-length", trained_length)
    model = load(ref, device=device, dtype=dtype)
    if quantize is not None:
        from miniwin.quantize import quantize as in_fewer_bits

        in_fewer_bits(model, quantize)
    if suite is not None:
        from miniwin.commands.suite import run as run_suite

        run_suite(model, suite, data, json_file, quiet, out=out, fresh=fresh, trained_length=at)
        return
    metrics = run(
        model,
        data,
        lengths=wanted,
        tokens_per_length=None if tokens is None else count("--tokens", tokens),
        chunk=chunk,
        recall=recall,
        speed=speed,
        split=split,
        progress=not quiet,
    )
    if printed:
        print(json.dumps(metrics.to_dict(), indent=2, allow_nan=False))
        return
    _print(metrics)
    if json_file is not None:
        write_json(json_file, metrics.to_dict())
        print(f"written to {json_file}", file=sys.stderr)


def _refuse_mixed(context: typer.Context, suite: str | None) -> None:
    """Raise UserError for an option that has no meaning with a suite, or without one."""
    from miniwin.specs import UserError

    for name in ALONE if suite is not None else OF_SUITES:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            if suite is None:
                raise UserError(f"{option} is of a suite; add --suite quick, say, or leave it out")
            raise UserError(f"{option} has no meaning with --suite, whose file says it; leave it out")


def _print(metrics: Metrics) -> None:
    from rich.console import Console
    from rich.table import Table

    from miniwin.blocks.messages.escaping import escaped_line
    from miniwin.display.cells import cell
    from miniwin.display.formats import rate

    console = Console(highlight=False)
    split = "test" if metrics.data.get("measured_on") == "test" else "validation"
    model, source = escaped_line(metrics.model), escaped_line(str(metrics.data.get("source", "corpus")))
    answers = ", of which answers count" if metrics.data.get("counted_of") else ""
    console.print(
        f"{model}: {metrics.parameters:,} parameters, {metrics.tokens:,} {split} tokens of {source}{answers}",
        markup=False,
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("context", justify="right")
    table.add_column("bits/byte", justify="right")
    table.add_column("nats/byte", justify="right")
    for name in metrics.parts:  # of a mixture
        table.add_column(f"of {escaped_line(name)}", justify="right")
    if metrics.recall:
        table.add_column("recall", justify="right")
    table.add_column("cache", justify="right")
    for length, bits in metrics.bits_per_byte.items():
        row = [f"{length:,}", f"{bits:.4f}", f"{metrics.loss[length]:.4f}"]
        row += [f"{part[length]:.4f}" for part in metrics.parts.values()]
        if metrics.recall:
            row.append(f"{metrics.recall[length]:.1%}" if length in metrics.recall else "-")
        table.add_row(*row, _size(metrics.cache_bytes[length]))
    console.print(table)
    console.print(f"\nby position, at {max(metrics.bits_per_byte):,}:")
    positions = Table(box=None, pad_edge=False, header_style="bold")
    positions.add_column("position", justify="right")
    positions.add_column("bits/byte", justify="right")
    for bucket, bits in metrics.by_position.items():
        positions.add_row(cell(bucket), f"{bits:.4f}")
    console.print(positions)
    if metrics.prefill_tokens_per_second is not None and metrics.decode_tokens_per_second is not None:
        console.print(
            f"\nspeed on {metrics.device} at {metrics.speed_length:,}: "
            f"prefill {rate(metrics.prefill_tokens_per_second)}, "
            f"decode {rate(metrics.decode_tokens_per_second)}",
            markup=False,
            soft_wrap=True,
        )


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError

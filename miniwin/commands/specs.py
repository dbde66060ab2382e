"""`miniwin check`, `explain` and `schema`: what a YAML file means, and whether it means anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from miniwin.commands.printing import say
from miniwin.commands.token_counts import count, counts

LENGTHS = [4096, 131_072, 1_048_576]

Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Change a field first, such as blocks.S.attention.window=32.")
]


def check(
    files: Annotated[list[str], typer.Argument(help="YAML files, or names of shipped specs.")],
    overrides: Overrides = None,
) -> None:
    """Check specs of any kind, and that their text and tokenizer are there. Prints a line for each file, with all that
    is wrong in it. Exit code 2 if anything is wrong."""
    from miniwin.specs import ModelSpec, SearchSpec, SuiteSpec, TrainSpec, UserError, load_spec, resolve_spec_path

    wrong = 0
    specs: list[Any] = []
    for file in files:
        try:
            specs.append(load_spec(file, overrides=overrides or ()))
        except UserError as error:
            specs.append(error)
    if any(isinstance(spec, SearchSpec) and spec.needs_torch for spec in specs):
        with_torch()
    for file, spec in zip(files, specs, strict=True):
        about = ""
        try:
            if isinstance(spec, UserError):
                raise spec
            if isinstance(spec, SearchSpec | TrainSpec):
                from miniwin.data.checking import check_data
            if isinstance(spec, SearchSpec):
                from miniwin.search.named_specs import find_spec
                from miniwin.search.space import check_search
                from miniwin.search.spec_errors import placed
                from miniwin.specs import load_train_spec

                path = resolve_spec_path(file, "search")
                with placed(path, overrides or ()):
                    about = f", {check_search(spec, path.resolve().parent)}"
                    train = find_spec(spec.train, path.resolve().parent, "train", "train")
                check_data(load_train_spec(train), train)
            elif isinstance(spec, TrainSpec):
                check_data(spec, resolve_spec_path(file, "train"), overrides or ())
            elif isinstance(spec, SuiteSpec):
                from miniwin.data.checking import check_suite_data

                check_suite_data(spec, resolve_spec_path(file, "suite"), overrides or ())
        except UserError as error:
            wrong += 1
            say(f"error: {error}", err=True)
            continue
        if isinstance(spec, ModelSpec):
            about = f", {spec.layout}, {spec.parameters():,} parameters"
        say(f"ok: {resolve_spec_path(file)}: {spec.kind} {spec.name}{about}")
    if wrong:
        raise typer.Exit(2)


def with_torch() -> None:
    """If this process has stand-ins for torch: run the same command in another process, with torch, and exit."""
    import subprocess
    import sys

    from miniwin import without_torch

    if type(sys.modules.get("torch")).__module__ == without_torch.__name__:
        code = "import torch; from miniwin.cli import main; main()"  # torch is there already: no stand-ins
        raise typer.Exit(subprocess.run([sys.executable, "-c", code, *sys.argv[1:]]).returncode)


def explain(
    ref: Annotated[str, typer.Argument(help="A model spec: YAML file, shipped name, run folder or zoo entry.")],
    overrides: Overrides = None,
    length: Annotated[
        list[str] | None,
        typer.Option(
            "--length",
            help="Lengths of context to give cache bytes at, and to judge rotary layers at: 8192 or 8k; with commas, "
            "or repeated.",
        ),
    ] = None,
    trained_length: Annotated[
        str | None, typer.Option(help="Longest context in training. Default: each --length, so that nothing is new.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="What the cache stores: float32, bfloat16, float16 or int8.")] = "float32",
    angle_dtype: Annotated[
        str, typer.Option(help="Judge rotary angles as if computed in this dtype (MiniWin computes them in float64).")
    ] = "float32",
    shift: Annotated[
        bool, typer.Option("--shift", help="Measure how far outputs change when the same content stands later.")
    ] = False,
    backends: Annotated[
        bool, typer.Option("--backends", help="Say which attention backend answers for each layer, phase and device.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write all of it, with a plot, as one self-contained page.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Explain a model spec layer by layer, without allocating its weights."""
    import json

    from miniwin.explain import explanation
    from miniwin.explain.page import page_file, write_page
    from miniwin.files.writing import finite
    from miniwin.loading import model_spec
    from miniwin.specs import UserError

    if html is not None:
        html = page_file(html)
    if trained_length is not None and not (length or html):
        raise UserError("--trained-length: got it without --length; say at which context to judge, or leave it out")
    anything = float("-inf")  # a number that is too small is refused below, by the code that reads it
    trained = None if trained_length is None else count("--trained-length", trained_length, anything)
    asked = [n for text in length or () for n in counts("--length", text, anything)]
    spec = model_spec(ref, overrides or ())
    lengths = asked or LENGTHS
    facts = explanation(spec, lengths=lengths, dtype=dtype)
    if length or html:
        from miniwin.explain.soundness import soundness

        facts["soundness"] = {n: soundness(spec, n, trained, angle_dtype) for n in lengths}
    if shift:
        from miniwin.explain.shift import shift_changes

        facts["shift"] = shift_changes(spec)
    if backends:
        from miniwin.explain.backends import backends as backends_of
        from miniwin.explain.backends import generation
        from miniwin.machine.matmul_choice import explained

        facts["backends"], facts["generation"] = backends_of(spec), generation(spec)
        facts["products"] = explained()
    if html is not None:
        write_page(html, spec, facts)
    if as_json:
        typer.echo(json.dumps(finite(facts), indent=2))
        return
    print_explanation(facts)
    if length:
        print_soundness(facts, trained)
    if shift:
        print_shift(facts)
    if backends:
        print_backends(facts)
    if html is not None:
        say(f"page         {html}")


def schema(
    kind: Annotated[str, typer.Argument(help="model, train, search or suite.")],
) -> None:
    """Print the JSON Schema of a kind of spec, for editors."""
    import json

    from miniwin.specs import json_schema

    typer.echo(json.dumps(json_schema(kind), indent=2))


def print_explanation(facts: dict[str, Any]) -> None:
    """The tables of `miniwin explain`."""
    from rich.console import Console
    from rich.table import Table

    from miniwin.display.cells import cell
    from miniwin.display.formats import binary_bytes, length_text
    from miniwin.explain import groups, layer_numbers, periods_text
    from miniwin.explain.layers import RUNS

    console = Console(width=None if Console().is_terminal else 140, highlight=False)
    lengths = list(facts["cache_bytes"])
    about = f"  layers {facts['layout']}  hidden_size {facts['hidden_size']}  vocab_size {facts['vocab_size']}"
    console.print(cell(facts["name"], "bold") + cell(about))
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("layers", no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("block")
    for name in ("sees", "heads"):
        table.add_column(name, justify="right")
    table.add_column("encoding")
    for name in ("period", "params", *(f"cache @{length_text(n)}" for n in lengths)):
        table.add_column(name, justify="right", no_wrap=True)
    kinds = groups(facts["layers"])
    for numbers, row in kinds:
        cells = [layer_numbers(numbers, RUNS), len(numbers), row["block"], row["sees"], row["heads"], row["encoding"]]
        cells += [periods_text(row["periods"])]
        caches = [binary_bytes(row["cache_bytes"][n]) for n in lengths]
        table.add_row(*map(cell, cells), f"{row['parameters']:,}", *caches)
    table.add_section()
    totals = [binary_bytes(facts["cache_bytes"][n]) for n in lengths]
    count, parameters = len(facts["layers"]), f"{facts['parameters']:,}"
    table.add_row("all", str(count), "", "", "", "", "", parameters, *totals, style="bold")
    console.print(table)
    if len(kinds) < count:
        console.print("             params and cache are of one layer; the last row has the sums, with embeddings")
    built = "equal to" if facts["built_parameters"] == facts["parameters"] else "NOT equal to"
    console.print(
        f"parameters   {facts['parameters']:,} ({facts['embedding_parameters']:,} of them embeddings and head), "
        f"{built} the built model's {facts['built_parameters']:,}"
    )
    if facts["active_parameters"] != facts["parameters"]:
        console.print(f"active       {facts['active_parameters']:,} parameters for one token")
    if facts.get("embed_positions") is not None:
        console.print(f"positions    {facts['embed_positions']:,}, added to the embeddings: no text is longer")
    flops = ", ".join(f"{value:.3g} at {length_text(n)}" for n, value in facts["forward_flops_per_token"].items())
    console.print(f"forward      {flops} FLOPs per token (training: three times that)")
    console.print(f"cache        {facts['cache_dtype']}, one sequence, keys and values")
    console.print(f"hash         {facts['hash']}")


def print_soundness(facts: dict[str, Any], trained_length: int | None) -> None:
    """Whether each rotary encoding is sound at each length."""
    from rich.console import Console
    from rich.table import Table

    from miniwin.display.cells import cell
    from miniwin.explain import layer_numbers
    from miniwin.explain.page import figures

    console = Console(width=None if Console().is_terminal else 160, highlight=False)
    for n, rows in facts["soundness"].items():
        trained = f"{n:,}, as nothing else was said" if trained_length is None else f"{trained_length:,}"
        console.print(f"\n[bold]is it sound at {n:,} tokens?[/bold]  (trained at {trained})")
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in ("block", "criterion"):
            table.add_column(name, no_wrap=True)
        for name in ("value", "bound"):
            table.add_column(name, justify="right", no_wrap=True)
        for name in ("verdict", "what it says"):
            table.add_column(name)
        for row in rows:
            about = f"{row['encoding']} (layers {layer_numbers(row['layers'])}): {row['says']}"
            verdict = "-" if not row["rotary"] else "ok" if row["says"] == "sound" else "outside"
            table.add_row(
                cell(row["block"]), "all", "", "", verdict, cell(about), style="bold" if row["rotary"] else ""
            )
            for criterion in row["criteria"]:
                cells = (criterion["name"], *figures(criterion), criterion["verdict"], criterion["says"])
                table.add_row("", *map(cell, cells))
        console.print(table)


def print_shift(facts: dict[str, Any]) -> None:
    """How far outputs change when the same content stands later."""
    from rich.console import Console
    from rich.table import Table

    from miniwin.display.cells import cell

    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    console.print("\n[bold]the same content, some tokens later[/bold]  (change of attention's outputs, rms)")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("block", "encoding"):
        table.add_column(name)
    for name in ("content", "shifts", "mean change", "largest"):
        table.add_column(name, justify="right")
    for row in facts["shift"]:
        first, last = row["shifts"]
        changes = (f"{row[key]:.1%}" if row[key] > 1e-6 else f"{row[key]:.0g}" for key in ("mean", "max"))
        table.add_row(
            cell(row["block"]), cell(row["encoding"]), f"{row['tokens']} tokens", f"{first} to {last}", *changes
        )
    console.print(table)


def print_backends(facts: dict[str, Any]) -> None:
    """Which attention backend answers, and why the backends before it do not."""
    from rich.console import Console
    from rich.table import Table

    from miniwin.display.cells import cell
    from miniwin.explain import layer_numbers
    from miniwin.explain.backends import alike

    console = Console(width=None if Console().is_terminal else 160, highlight=False)
    console.print("\n[bold]attention backends[/bold]  (to force one: MINIWIN_ATTENTION=name, or use_backend in Python)")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("block", "layers", "device", "phase", "backend"):
        table.add_column(name, no_wrap=name != "layers")
    table.add_column("why not those before it")
    for row in alike(facts["backends"]):
        by_reason: dict[str, list[str]] = {}
        for name, reason in row["declined"].items():
            by_reason.setdefault(reason, []).append(name)
        reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in by_reason.items())
        cells = (row["block"], layer_numbers(row["layers"]), row["device"], row["phase"], row["backend"], reasons)
        table.add_row(*map(cell, cells))
    console.print(table)
    console.print("\n[bold]generation[/bold]  (on a CPU in float32 or int8; on CUDA for one prompt)")
    whole = {"cpu": "all layers in one call for each token", "cuda": "all layers in one CUDA graph for each token"}
    for device, reason in facts["generation"].items():
        console.print(cell(f"{device:5} {whole[device] if reason is None else f'layer by layer: {reason}'}"))
    print_products(facts["products"])


def print_products(facts: dict[str, Any]) -> None:
    """Which library makes the matrix products on a CPU, and what was measured."""
    times = facts["milliseconds"]
    typer.echo("\nmatrix products  (float32 on a CPU; MINIWIN_PRODUCTS=auto, mkl or onednn)")
    names = {"mkl": "torch's own (MKL, where it has it)", "onednn": "oneDNN"}
    typer.echo(f"chosen   {facts['float32 on a cpu']}: {names[facts['float32 on a cpu']]}")
    if times is None:
        typer.echo("this torch has no oneDNN here")
        return
    told = ", ".join(f"{name} {value:.3g} ms" for name, value in times.items())
    typer.echo(f"measured {told}, of the three products of a linear map")

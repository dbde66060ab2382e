"""`miniwin check`, `explain` and `schema`: what a YAML file means, and whether it means anything."""

from __future__ import annotations

from typing import Annotated, Any

import typer

LENGTHS = [4096, 131_072, 1_048_576]

Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Change a field first, such as blocks.S.attention.window=32.")
]


def check(
    files: Annotated[list[str], typer.Argument(help="YAML files, or names of shipped specs.")],
    overrides: Overrides = None,
) -> None:
    """Check specs of any kind: a line for each file, and all that is wrong with it. Exit code 2 when anything is."""
    from miniwin.specs import ModelSpec, SearchSpec, UserError, load_spec, resolve_spec_path

    wrong = 0
    for file in files:
        about = ""
        try:
            spec = load_spec(file, overrides=overrides or ())
            if isinstance(spec, SearchSpec):
                from miniwin.search.space import check_search

                about = f", {check_search(spec, resolve_spec_path(file).resolve().parent)}"
        except UserError as error:
            wrong += 1
            typer.echo(f"error: {error}", err=True)
            continue
        if isinstance(spec, ModelSpec):
            about = f", {spec.layout}, {spec.parameters():,} parameters"
        typer.echo(f"ok: {resolve_spec_path(file)}: {spec.kind} {spec.name}{about}")
    if wrong:
        raise typer.Exit(2)


def explain(
    ref: Annotated[str, typer.Argument(help="A model spec: YAML file, shipped name, run folder or zoo entry.")],
    overrides: Overrides = None,
    length: Annotated[
        list[int] | None, typer.Option("--length", help="Contexts to give cache bytes at; may be repeated.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of the cache: float32, bfloat16 or float16.")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Explain a model spec layer by layer, without allocating its weights."""
    import json

    from miniwin.explain import explanation
    from miniwin.loading import model_spec

    spec = model_spec(ref, overrides or ())
    facts = explanation(spec, lengths=length or LENGTHS, dtype=dtype)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        print_explanation(facts)


def schema(
    kind: Annotated[str, typer.Argument(help="model, train or search.")],
) -> None:
    """Print the JSON Schema of a kind of spec, for editors."""
    import json

    from miniwin.specs import json_schema

    typer.echo(json.dumps(json_schema(kind), indent=2))


def print_explanation(facts: dict[str, Any]) -> None:
    """The tables of `miniwin explain`."""
    from rich.console import Console
    from rich.table import Table

    from miniwin.explain import binary, short

    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    lengths = list(facts["cache_bytes"])
    console.print(
        f"[bold]{facts['name']}[/bold]  layers {facts['layout']}  hidden_size {facts['hidden_size']}  "
        f"vocab_size {facts['vocab_size']}"
    )
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("layer", "block"):
        table.add_column(name)
    for name in ("sees", "heads"):
        table.add_column(name, justify="right")
    table.add_column("encoding")
    for name in ("period", "params", *(f"cache @{short(n)}" for n in lengths)):
        table.add_column(name, justify="right")
    for row in facts["layers"]:
        cells = [row["layer"], row["block"], row["sees"], row["heads"], row["encoding"], row["period"] or "-"]
        caches = [binary(row["cache_bytes"][n]) for n in lengths]
        table.add_row(*map(str, cells), f"{row['parameters']:,}", *caches)
    table.add_section()
    totals = [binary(facts["cache_bytes"][n]) for n in lengths]
    table.add_row("all", "", "", "", "", "", f"{facts['parameters']:,}", *totals, style="bold")
    console.print(table)
    built = "equal to" if facts["built_parameters"] == facts["parameters"] else "NOT equal to"
    console.print(
        f"parameters   {facts['parameters']:,} ({facts['embedding_parameters']:,} of them embeddings and head), "
        f"{built} the built model's {facts['built_parameters']:,}"
    )
    flops = ", ".join(f"{value:.3g} at {short(n)}" for n, value in facts["forward_flops_per_token"].items())
    console.print(f"forward      {flops} FLOPs per token (training: three times that)")
    console.print(f"cache        {facts['cache_dtype']}, one sequence, keys and values")
    console.print(f"hash         {facts['hash']}")

"""`miniwin specs`: the specs that ship, and what each is for."""

from __future__ import annotations

from typing import Annotated

import typer


def specs_command(
    kind: Annotated[str | None, typer.Argument(help="model, train, search or suite. Default: all of them.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a list of objects.")] = False,
) -> None:
    """List the specs that ship with MiniWin. Any command takes one by its name, and a copy of its file is a start."""
    import json
    import sys

    from miniwin.specs import ModelSpec, load_spec, shipped_specs
    from miniwin.specs.described import described
    from miniwin.specs.kinds import KINDS, spec_class

    if kind is not None:
        spec_class(kind)  # refuses what is none
    rows = []
    for one in KINDS if kind is None else (kind,):
        for name, path in shipped_specs(one).items():
            spec = load_spec(path, one)
            parameters = spec.parameters() if isinstance(spec, ModelSpec) else None
            rows.append(
                {"kind": one, "name": name, "parameters": parameters, "about": described(path), "file": str(path)}
            )
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return

    from rich.console import Console
    from rich.table import Table

    from miniwin.display.cells import cell

    wide = not sys.stdout.isatty()  # a pipe has no width to fit into: one line for each
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("kind", "name"):
        table.add_column(title, no_wrap=True)
    table.add_column("params", justify="right", no_wrap=True)
    table.add_column("what it is", no_wrap=wide)
    for row in rows:
        count = "" if row["parameters"] is None else f"{row['parameters']:,}"
        table.add_row(cell(row["kind"]), cell(row["name"]), cell(count), cell(row["about"]))
    console = Console(highlight=False, width=1000 if wide else None)
    with console.capture() as shown:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in shown.get().splitlines()))

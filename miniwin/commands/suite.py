"""`miniwin eval --suite`: a suite of measures, with its progress, its table and its files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from miniwin.commands.printing import say
from miniwin.commands.train import ENDS

if TYPE_CHECKING:
    from miniwin.language_model import LanguageModel


def run(
    model: LanguageModel, suite: str, data: str | None, json_file: Path | None, quiet: bool, **options: Any
) -> None:
    """Measure, then print the table. json_file: where the result goes too; `-` prints it in place of the table."""
    import json

    from miniwin.evaluation.suite.result_table import print_table
    from miniwin.evaluation.suite.run import place, run_suite
    from miniwin.evaluation.suite.store import PAGE, RESULT
    from miniwin.specs import load_spec, resolve_spec_path, user_path

    printed = str(json_file) == "-"
    file = resolve_spec_path(suite, "suite")
    out = options.pop("out")
    folder = place(model, load_spec(file, "suite")) if out is None else user_path(out)
    if out is None and not quiet:
        print(f"parts go to {folder}; the same command goes on with them (--out chooses)", file=sys.stderr)
    with said_if_stopped(folder, options["fresh"]):
        result = run_suite(model, file, data, out=folder, progress=not quiet, **options)
    if printed:
        print(json.dumps(result.to_dict(), indent=2, allow_nan=False))
        return
    print_table(result)
    if json_file is not None:
        result.write(json_file)
        print(f"written to {json_file}", file=sys.stderr)
    print(f"result {folder / RESULT}\npage {folder / PAGE}", file=sys.stderr)


@contextmanager
def said_if_stopped(folder: Path, fresh: bool) -> Iterator[None]:
    """At Ctrl-C say which parts are kept and how to go on, and end as `miniwin train` does."""
    from miniwin.display.formats import plural
    from miniwin.evaluation.suite.store import PARTS

    try:
        yield
    except KeyboardInterrupt:
        kept = len(list((folder / PARTS).glob("*.json")))
        again = "the same command without --fresh" if fresh else "the same command"
        if kept:
            say(f"interrupted: {folder}\n  {plural(kept, 'part')} measured and kept there", err=True)
        else:
            say("interrupted: no part is measured yet", err=True)
        say(f"{again} goes on", err=True)
        raise typer.Exit(ENDS["interrupted"]) from None

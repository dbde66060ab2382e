"""`miniwin eval --suite`: a suite of measures, with its progress, its table and its files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    result = run_suite(model, file, data, out=folder, progress=not quiet, **options)
    if printed:
        print(json.dumps(result.to_dict(), indent=2, allow_nan=False))
        return
    print_table(result)
    if json_file is not None:
        result.write(json_file)
        print(f"written to {json_file}", file=sys.stderr)
    print(f"result {folder / RESULT}\npage {folder / PAGE}", file=sys.stderr)

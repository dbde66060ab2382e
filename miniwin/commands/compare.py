"""`miniwin compare A B [C ...]`: models side by side by one suite, as a table, JSON and a page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miniwin.commands.token_counts import count

if TYPE_CHECKING:
    from miniwin.evaluation.suite.result import SuiteResult
    from miniwin.specs import SuiteSpec

SUITE = "quick"  # where no result says which
PAGE = Path("comparison.html")


def compare_command(
    refs: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C ...]",
            help="Two to six: what eval takes (zoo name, run folder, entry folder, model spec), or what eval --suite "
            "wrote (a .json file, or the folder of its parts).",
        ),
    ],
    suite: Annotated[
        str | None,
        typer.Option(
            help="Measure models by this suite: quick, long-context, or a YAML file. Default: that of the stored "
            f"results, else {SUITE}."
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Measure models on this text: as of eval.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where models are measured: a folder with one for each. Default: as of eval --suite."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure models anew.")] = False,
    trained_length: Annotated[
        str | None, typer.Option(help="Models' training length, which 1x means. Default: what a model's run says.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    dtype: Annotated[
        str | None, typer.Option(help="Convert weights and caches: float32, bfloat16. Default: as they were saved.")
    ] = None,
    page: Annotated[Path, typer.Option(help="The page with the charts.")] = PAGE,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Also write the comparison to this file; '-' prints it instead of the table."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Compare models, each with the first: paired intervals on the same examples and documents.

    What has no stored result is measured first, or gone on with.
    """
    import json

    from miniwin.evaluation.suite import comparison, comparison_page
    from miniwin.evaluation.suite.comparison import check_number, check_same_suite, compare
    from miniwin.evaluation.suite.comparison_page import write_comparison_page
    from miniwin.evaluation.suite.comparison_table import print_comparison
    from miniwin.evaluation.suite.stored_results import files_of, stored_result
    from miniwin.files.writing import check_ours, check_writable, write_json
    from miniwin.loading import model_spec
    from miniwin.specs import UserError, user_path

    check_number(len(refs))
    printed = str(json_file) == "-"
    if json_file is not None and not printed:
        json_file = user_path(json_file)
        check_writable(json_file)
    page = user_path(page)
    check_writable(page)
    if json_file is not None and not printed and page.resolve() == json_file.resolve():
        raise UserError(f"compare: --page and --json are one file, {page}; choose two")
    at = None if trained_length is None else count("--trained-length", trained_length)
    stored = [stored_result(ref) for ref in refs]
    for written in (page, json_file):
        if written is not None and any(
            read.exists() and written.resolve() == read.resolve() for read in files_of(refs)
        ):
            raise UserError(f"{written} is one of the results that are compared; choose another file")
    check_ours(page, comparison_page.MARK, "the page of a comparison")
    if json_file is not None and not printed:
        check_ours(json_file, comparison.MARK, "a comparison")
    known = [result for result in stored if result is not None]
    for other in known[1:]:
        check_same_suite(known[0], other)
    for ref, result in zip(refs, stored, strict=True):
        if result is None:
            model_spec(ref)  # refused before others are measured, which takes long
    spec = _suite(suite, known)
    results = [
        _measured(ref, spec, data, out, fresh, at, device, dtype, quiet) if result is None else result
        for ref, result in zip(refs, stored, strict=True)
    ]
    found = compare(results)
    write_comparison_page(found, page)
    if printed:
        print(json.dumps(found.to_dict(), indent=2, allow_nan=False))
    else:
        print_comparison(found)
    if json_file is not None and not printed:
        write_json(json_file, found.to_dict())
        print(f"written to {json_file}", file=sys.stderr)
    print(f"page {page}", file=sys.stderr)


def _suite(named: str | None, known: list[SuiteResult]) -> SuiteSpec | Path:
    """The suite to measure models by: as named, or that of the stored results.

    Raises:
        UserError: the stored results are of another suite than the one that is named.
    """
    from miniwin.specs import SuiteSpec, UserError, load_spec, parse_spec, resolve_spec_path

    if named is None and known:
        try:
            found = parse_spec(known[0].spec, "suite")
        except UserError as error:
            raise UserError(
                f"the suite that {known[0].model.ref} was measured by cannot be read here: {error}"
            ) from None
        assert isinstance(found, SuiteSpec)
        return found
    file = resolve_spec_path(named or SUITE, "suite")
    for result in known:
        if load_spec(file, "suite").model_dump(mode="json") != result.spec:
            raise UserError(
                f"{result.model.ref} was measured by another suite ({result.suite}) than --suite {named}; leave out "
                "--suite, or measure it by that one: miniwin eval MODEL --suite NAME"
            )
    return file


def _measured(
    ref: str,
    suite: SuiteSpec | Path,
    data: str | None,
    out: Path | None,
    fresh: bool,
    trained_length: int | None,
    device: str,
    dtype: str | None,
    quiet: bool,
) -> SuiteResult:
    from miniwin.commands.suite import said_if_stopped
    from miniwin.evaluation.suite.run import folder_name, place, run_suite
    from miniwin.loading import load
    from miniwin.specs import SuiteSpec, load_spec, user_path

    model = load(ref, device=device, dtype=dtype)
    spec = suite if isinstance(suite, SuiteSpec) else load_spec(suite, "suite")
    folder = place(model, spec) if out is None else user_path(out) / folder_name(model, spec)
    if not quiet:
        print(f"{model.ref}:", file=sys.stderr)
    with said_if_stopped(folder, fresh):
        return run_suite(model, suite, data, out=folder, fresh=fresh, trained_length=trained_length, progress=not quiet)

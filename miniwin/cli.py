"""The command line. Every command lives in miniwin/commands/ and imports what it needs inside its function, so that
`miniwin --help` answers at once.

A user's mistake (UserError) is one message on stderr and exit code 2, without a traceback. So is an error of the system
(OSError), such as a full disk, and an allocation that fails. Ctrl-C is exit code 130.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Annotated

import typer

from miniwin import without_torch
from miniwin.commands import (
    adapt,
    calibrate,
    chat,
    compare,
    demo,
    evaluate,
    exporting,
    generate,
    importing,
    lm_eval,
    merging,
    search,
    search_clean,
    search_ladder,
    serve,
    shipped,
    specs,
    train,
    zoo,
)

app = typer.Typer(
    name="miniwin",
    help="Find and share long-context language-model architectures: describe in YAML, search, share through a zoo.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: rich would double the time that --help takes
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("check")(specs.check)
app.command("explain")(specs.explain)
app.command("schema")(specs.schema)
app.command("specs")(shipped.specs_command)
app.command("train")(train.train_command)
app.command("calibrate")(calibrate.calibrate_command)
app.command("eval")(evaluate.eval_command)
app.command("compare")(compare.compare_command)
app.command("lm-eval", context_settings=lm_eval.PASSED_ON)(lm_eval.lm_eval_command)
app.command("generate")(generate.generate_command)
app.command("chat")(chat.chat_command)
app.command("serve")(serve.serve_command)
app.command("import")(importing.import_command)
app.command("export")(exporting.export_command)
app.command("merge")(merging.merge_command)
app.command("adapt")(adapt.adapt_command)
app.command("demo")(demo.demo)
search.app.command("clean")(search_clean.clean)
search.app.command("ladder")(search_ladder.ladder)
app.add_typer(search.app, name="search")
app.add_typer(zoo.app, name="zoo")


def _version(wanted: bool) -> None:
    if wanted:
        from miniwin.version import __version__

        typer.echo(f"miniwin {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    plugins: Annotated[
        list[str] | None,
        typer.Option("--plugin", help="A module or .py file that registers blocks; may be repeated."),
    ] = None,
) -> None:
    if plugins:
        from miniwin.blocks.plugins import use_plugins

        use_plugins(plugins)


def main() -> None:
    """The console script."""
    from miniwin.display.console import any_console
    from miniwin.quick_imports import look_seldom

    look_seldom()
    if without_torch.wanted(sys.argv[1:]):
        without_torch.install()
    try:
        with any_console():
            try:
                app()
            except SystemExit as end:
                if end.code == 2 and any(one.partition("=")[0] == "--plugin" for one in sys.argv[2:]):
                    _say_where_plugins_go(sys.argv[1:])
                sys.stdout.flush()  # an error of writing is raised here: when Python ends it would be a traceback
                raise
    except KeyboardInterrupt:
        print("\nstopped; the same command continues where it can", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output (head, less) went away: not a fault of ours
        _forget_output()
        sys.exit(141)
    except (ValueError, OSError) as error:
        from miniwin.specs import UserError

        if not isinstance(error, UserError | OSError):
            raise
        print(f"error: {error if isinstance(error, UserError) else _refused(error)}", file=sys.stderr)
        with suppress(ValueError):  # closed by a test
            try:
                sys.stdout.flush()
            except OSError:
                _forget_output()
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        from miniwin.machine.memory import failed_allocation

        if (message := failed_allocation(error)) is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def _say_where_plugins_go(arguments: list[str]) -> None:
    """--plugin is an option of miniwin, since it is for every command. After the command it is unknown."""
    if not arguments[0].startswith("-"):
        print(f"--plugin goes before the command: miniwin --plugin FILE {arguments[0]} ...", file=sys.stderr)


def _refused(error: OSError) -> str:
    """The message of an error of the system: a full disk, a file that may not be read."""
    from miniwin.blocks.messages.escaping import escaped
    from miniwin.files.writing import OF_WRITING

    places = [str(place) for place in (error.filename, error.filename2) if place is not None]
    if not places and error.errno in OF_WRITING:  # an error of a file that we write names it; this one is of printing
        places = ["standard output"]
    return escaped(": ".join([" -> ".join(places), error.strerror or str(error)] if places else [str(error)]))


def _forget_output() -> None:
    """Drop what still waits to be written to stdout: when Python ends it would try once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()

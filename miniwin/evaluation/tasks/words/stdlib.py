"""The source of the standard library of the Python that runs this: functions to ask about, and other code as filler.

Only the modules that lie in the library's own folder, in ASCII. Other versions of Python have other sources.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from textwrap import dedent

from miniwin.blocks.spec import UserError

LARGEST = 100_000  # bytes of a module: longer ones take long to read
LONGEST = 30  # lines of a function that is asked about, or of a piece of filler
NAMED = 2  # parameters that a function has at least, besides self


@dataclass(frozen=True)
class Function:
    """source: from `def` on, without indentation. parameters: those that may be given by name, without self."""

    name: str
    source: str
    parameters: tuple[str, ...]


@cache
def modules() -> tuple[str, ...]:
    """
    Raises:
        UserError: the library is not there as files.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    paths = [path for path in sorted(folder.glob("[a-z]*.py")) if path.stat().st_size <= LARGEST]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths]
    found = tuple(text for text in texts if text.isascii())
    if not found:
        raise UserError(f"the standard library has no source in {folder}; use a Python that is installed as files")
    return found


@cache
def functions() -> tuple[Function, ...]:
    """Functions and methods of a few lines with at least `NAMED` parameters, each name once."""
    found: dict[str, Function] = {}
    for text in modules():
        lines = text.splitlines()
        for node in _definitions(ast.parse(text)):
            if (function := _function(node, lines)) is not None:
                found.setdefault(function.name, function)
    return tuple(found.values())


def _definitions(node: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef]:
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef):
            yield inner
        elif isinstance(inner, ast.ClassDef):
            yield from _definitions(inner)


def _function(node: ast.FunctionDef, text: Sequence[str]) -> Function | None:
    arguments = node.args
    named = [one.arg for one in (*arguments.args, *arguments.kwonlyargs) if one.arg not in ("self", "cls")]
    plain = not (arguments.posonlyargs or arguments.vararg or arguments.kwarg or node.decorator_list)
    end = node.end_lineno or node.lineno
    if not plain or len(named) < NAMED or end - node.lineno >= LONGEST or node.name.startswith("__"):
        return None
    source = "\n".join(text[node.lineno - 1 : end])
    return Function(node.name, dedent(source), tuple(named))


@dataclass(frozen=True)
class Code:
    """Paragraphs of code: a module from one of its paragraphs on, then other modules."""

    def pieces(self, random: Random) -> Iterator[str]:
        while True:
            lines = random.choice(modules()).split("\n\n")
            start = random.randrange(len(lines))
            for paragraph in lines[start:]:
                rows = paragraph.strip("\n").splitlines()
                for first in range(0, len(rows), LONGEST):
                    yield "\n".join(rows[first : first + LONGEST])

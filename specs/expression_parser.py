"""The text of an expression -> a checked syntax tree. The language is that of expressions.py.

Python's own parser makes the tree, and every part of the tree is held against a list of what the language has. Python
never compiles or runs an expression, so an expression reaches nothing but the names that it is given.
"""

from __future__ import annotations

import ast
import difflib
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from miniwin.specs.base import UserError
from miniwin.specs.lengths import times

MAX_CHARACTERS = 500  # of an expression
MAX_NODES = 200
MAX_DEPTH = 40
MAX_BITS = 128  # of a whole number
MAX_TEXT = 1024  # characters of a text, such as a pattern
LENGTH = r"[1-9][0-9]*(_[0-9]+)*"  # of a context, as in cache_bytes@131_072
MAX_LENGTH_DIGITS = 15

# Python has an operator @, and it binds less tightly than `cost@length` must. So the @ becomes a letter that no
# expression may contain, and `cost@length` one Python identifier. A letter for a sign: Python's columns stay ours.
_AT = "\u01c0"
_AT_USE = re.compile(r"(?<=[A-Za-z0-9_])@(?=[0-9])")

FUNCTIONS: dict[str, tuple[int, int]] = {  # name -> fewest and most arguments
    "min": (2, 32),
    "max": (2, 32),
    "round": (1, 2),
    "int": (1, 1),
    "abs": (1, 1),
    "log2": (1, 1),
    "sqrt": (1, 1),
    "place": (3, 3),
}
FUNCTION_NAMES = tuple(FUNCTIONS)

ARITHMETIC: dict[type[ast.operator], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.FloorDiv: ("//", operator.floordiv),
    ast.Mod: ("%", operator.mod),
    ast.Pow: ("**", operator.pow),
}
COMPARISONS: dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
}
_LEAVES = (ast.Constant, ast.Name)
_BRANCHES = (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Call)


class ParsedExpression:
    """The text of an expression, its syntax tree and the names in it.

    Raises:
        UserError: with the column of what the language does not have.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = self._parse()
        self.names: tuple[str, ...] = tuple(dict.fromkeys(self._names(self.tree)))

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    @property
    def chooses(self) -> bool:
        """Whether it need not use all its names: it has an `if`, an `and` or an `or`."""
        return any(isinstance(node, (ast.IfExp, ast.BoolOp)) for node in ast.walk(self.tree))

    def check_names(self, known: Iterable[str], costs: Iterable[str] = ()) -> None:
        """Check every name: one of `known`, or `cost@length` with a cost of `costs`.

        Raises:
            UserError: with the first name that is neither.
        """
        known, costs = list(known), list(costs)
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Name) or self._is_function(node):
                continue
            name = original(node.id)
            stem, at, length = name.partition("@")
            if name in known:
                continue
            if at and stem in costs:
                if not is_length(length):
                    self._fail(node, f"{length!r} is no length; expected {stem}@N, such as {stem}@4096")
                continue
            if name in costs:
                self._fail(node, f"{name!r} needs a length: write {name}@4096, say")
            if at and stem in known:
                self._fail(node, f"{stem!r} does not depend on a length: write {stem} without {at}{length}")
            self._unknown(node, name, known + [f"{cost}@N" for cost in costs])

    def _parse(self) -> ast.expr:
        text = self.text
        if not text.strip():
            raise UserError("an expression is empty; expected something like 'factor * window'")
        if len(text) > MAX_CHARACTERS:
            raise UserError(
                f"expression {text[:40]!r}... has {len(text)} characters; at most {MAX_CHARACTERS} are allowed"
            )
        if not text.isascii():
            column = next(index for index, letter in enumerate(text) if not letter.isascii())
            self._fail_at(column, f"unexpected character {text[column]!r}")
        # Spaces and line breaks mean nothing here. Python would take leading spaces for an indentation.
        flat = re.sub(r"[\r\n\t]", " ", text)
        start = len(flat) - len(flat.lstrip())
        source = _AT_USE.sub(_AT, flat[start:].rstrip())
        if "@" in source:
            self._fail_at(
                start + source.index("@"),
                "'@' joins a cost and a length, as in cache_bytes@4096, without spaces",
            )
        self._start = start
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python warns of '\\d' in a text, and names a file <unknown>
                tree = ast.parse(source, mode="eval").body
        except SyntaxError as error:
            column = min(max(start + (error.offset or 1) - 1, 0), max(len(text) - 1, 0))
            self._fail_at(column, f"cannot be read ({error.msg})")
        except (ValueError, RecursionError, MemoryError):
            self._fail_at(0, "is nested too deeply")
        nodes = 0
        pending: list[tuple[ast.AST, int]] = [(tree, 0)]
        while pending:
            node, depth = pending.pop()
            nodes += 1
            if nodes > MAX_NODES:
                self._fail_at(0, f"has more than {MAX_NODES} parts")
            if depth > MAX_DEPTH:
                self._fail(node, f"is nested more than {MAX_DEPTH} deep")
            self._allow(node)
            children = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
            pending += [(child, depth + 1) for child in children]
        return tree

    def _allow(self, node: ast.AST) -> None:
        """Raise UserError for a part of the tree that the language does not have."""
        if isinstance(node, ast.Constant):
            if not (node.value is None or isinstance(node.value, (bool, int, float, str))):
                self._fail(
                    node,
                    f"unexpected {type(node.value).__name__}: only numbers, quoted text, True, False and None",
                )
            self._bounded(node.value, node)
        elif isinstance(node, ast.Call):
            self._allow_call(node)
        elif isinstance(node, ast.BinOp):
            if type(node.op) not in ARITHMETIC:
                self._fail(node, "unknown operator; there are + - * / // % **")
        elif isinstance(node, ast.UnaryOp):
            if isinstance(node.op, ast.Invert):
                self._fail(node, "unknown operator '~'; there are - and not")
        elif isinstance(node, ast.Compare):
            if any(type(sign) not in COMPARISONS for sign in node.ops):
                self._fail(node, "unknown comparison; there are < <= > >= == !=")
        elif not isinstance(node, (*_LEAVES, *_BRANCHES)):
            self._fail(
                node,
                f"{_described(node)} not allowed: only numbers, names, arithmetic, comparisons and {_listed()}",
            )

    def _allow_call(self, node: ast.Call) -> None:
        if not isinstance(node.func, ast.Name):
            self._fail(node, f"only these functions can be called: {_listed()}")
        name = original(node.func.id)
        if name not in FUNCTIONS:
            self._unknown(node.func, name, FUNCTION_NAMES, what="function")
        fewest, most = FUNCTIONS[name]
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            self._fail(node, f"{name}() takes plain arguments only")
        if not fewest <= len(node.args) <= most:
            wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
            self._fail(node, f"{name}() takes {wanted} arguments, got {len(node.args)}")
        node.func._function = True  # type: ignore[attr-defined]

    @staticmethod
    def _is_function(node: ast.Name) -> bool:
        return bool(getattr(node, "_function", False))

    def _names(self, tree: ast.expr) -> Iterable[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and not self._is_function(node):
                yield original(node.id)

    def _bounded(self, value: Any, node: ast.AST) -> Any:
        """The value itself. Raises UserError where it is larger than anything an architecture could need."""
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            self._fail(node, "a number is too large")
        if isinstance(value, float) and not math.isfinite(value):
            self._fail(node, "a number is too large")
        if isinstance(value, str) and len(value) > MAX_TEXT:
            self._fail(node, f"a text has more than {MAX_TEXT} letters")
        return value

    # -- errors

    def _fail(self, node: ast.AST, message: str) -> NoReturn:
        # Python counts columns in UTF-8 bytes; the letter that stands for '@' takes two.
        offset = getattr(node, "col_offset", 0)
        source = _AT_USE.sub(_AT, re.sub(r"[\r\n\t]", " ", self.text)[self._start :])
        self._fail_at(self._start + len(source.encode()[:offset].decode(errors="ignore")), message)

    def _fail_at(self, column: int, message: str) -> NoReturn:
        raise UserError(f"expression {self.text!r}, column {column + 1}: {message}")

    def _unknown(self, node: ast.AST, name: str, known: Iterable[str], what: str = "name") -> NoReturn:
        known = sorted(set(known))
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        shown = ", ".join(known[:24]) + (", ..." if len(known) > 24 else "")
        self._fail(
            node,
            f"unknown {what} {name!r}{hint} Known here: {shown}"
            if hint
            else f"unknown {what} {name!r}; known here: {shown}",
        )


def is_length(text: str) -> bool:
    """Whether a text is a length: a number of tokens, or a multiple such as 16x, as after the @ of a cost or a loss."""
    if times(text) is not None:
        return True
    return bool(re.fullmatch(LENGTH, text)) and len(text.replace("_", "")) <= MAX_LENGTH_DIGITS


def original(identifier: str) -> str:
    return identifier.replace(_AT, "@")


def _listed() -> str:
    return ", ".join(f"{name}()" for name in FUNCTION_NAMES)


def _described(node: ast.AST) -> str:
    names = {
        "Attribute": "a dot is",
        "Subscript": "an index is",
        "Lambda": "a lambda is",
        "NamedExpr": "an assignment is",
        "JoinedStr": "an f-string is",
        "Tuple": "a list of values is",
        "List": "a list is",
        "Dict": "a mapping is",
        "Set": "a set is",
    }
    return names.get(type(node).__name__, f"{type(node).__name__} is")

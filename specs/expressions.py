"""A small arithmetic language for search specs: `factor * window`, `S * ratio + G`, `parameters <= 1.2e6`.

Numbers, quoted text, `True`, `False` and `None`; names of variables, of pattern letters and of costs
(`cache_bytes@4096`); `+ - * / // % **`, comparisons (chained too), `and or not`, `a if test else b`, and the
functions min, max, round, int, abs, log2, sqrt. Text can be joined (`+`), repeated (`*`) and compared, which is how
patterns are written.

An expression is parsed with Python's own parser and its tree is walked against a list of allowed nodes: nothing is ever
compiled or run by Python, so an expression cannot reach anything but the names it is given. Sizes are checked before an
operation is carried out, so that `9**9**9` is refused at once instead of filling the memory.
"""

from __future__ import annotations

import ast
import difflib
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from miniwin.specs.base import UserError

MAX_CHARACTERS = 500  # of an expression
MAX_NODES = 200
MAX_DEPTH = 40
MAX_BITS = 128  # of a whole number
MAX_TEXT = 1024  # characters of a pattern
FARTHEST = 1e300  # how far from true a constraint can be: samplers calculate with it
LENGTH = r"[1-9][0-9]*(_[0-9]+)*"  # of a context, as in cache_bytes@131_072
MAX_LENGTH_DIGITS = 15

# `cost@length` becomes one Python identifier by swapping the @ for a letter that no expression may contain. One
# character for one, so that Python's columns stay ours; and tighter than any operator, unlike Python's own @.
_AT = "\u01c0"
_AT_USE = re.compile(r"(?<=[A-Za-z0-9_])@(?=[0-9])")

_FUNCTIONS: dict[str, tuple[int, int]] = {  # name -> fewest and most arguments
    "min": (2, 32),
    "max": (2, 32),
    "round": (1, 2),
    "int": (1, 1),
    "abs": (1, 1),
    "log2": (1, 1),
    "sqrt": (1, 1),
}
FUNCTION_NAMES = tuple(_FUNCTIONS)

_ARITHMETIC: dict[type[ast.operator], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.FloorDiv: ("//", operator.floordiv),
    ast.Mod: ("%", operator.mod),
    ast.Pow: ("**", operator.pow),
}
_COMPARISONS: dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
}
_SIGNS = dict(_COMPARISONS.values())
_LEAVES = (ast.Constant, ast.Name)
_BRANCHES = (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Call)


@dataclass(frozen=True)
class Comparison:
    """One `left <sign> right` of an expression, for constraints: how far from true it is."""

    left: ast.expr
    sign: str
    right: ast.expr


class Expression:
    """A parsed expression. `names` are the names it uses; `evaluate` works it out with values for them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tree = self._parse()
        self.names: tuple[str, ...] = tuple(dict.fromkeys(self._names(self._tree)))

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def check_names(self, known: Iterable[str], costs: Iterable[str] = ()) -> None:
        """UserError for a name that is neither in `known` nor, written `cost@length`, in `costs`."""
        known, costs = list(known), list(costs)
        for node in ast.walk(self._tree):
            if not isinstance(node, ast.Name) or self._is_function(node):
                continue
            name = _original(node.id)
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

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The value of the expression. A name that is not in `values`, or an operation that has no value, is a
        UserError."""
        return self._walk(self._tree, values)

    def comparisons(self) -> list[Comparison]:
        """The comparisons of `a <= b`, `a <= b < c`, `a <= b and c == d`; UserError where the expression is none of
        these."""
        return list(self._comparisons(self._tree))

    def violation(self, values: Mapping[str, Any]) -> float:
        """How far from true the expression is: at most 0 where it holds, relative to the size of the right side.

        `or` and any other logic count as 1 where they are false, since no distance is defined for them. An earlier
        comparison guards the later ones, as in `evaluate`: `k > 0 and 8 / k <= 2` is false for k = 0, and no error.
        """
        if not self.is_conjunction():
            return -1.0 if self.evaluate(values) else 1.0
        worst = -math.inf
        for comparison in self.comparisons():
            try:
                worst = max(worst, self._distance(comparison, values))
            except UserError:
                if worst <= 0:
                    raise
        return worst

    def is_conjunction(self) -> bool:
        """Whether the expression is a comparison, or comparisons joined by `and`."""
        try:
            return bool(self.comparisons())
        except UserError:
            return False

    def is_test(self) -> bool:
        """Whether the expression can only be true or false."""
        return _is_test(self._tree)

    # -- parsing

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
        # Spaces and line breaks inside an expression mean nothing, and Python would trip over leading ones.
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
                warnings.simplefilter("ignore")  # about '\\d' in a text: it would name a file <unknown>
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
        """UserError for a part of the tree that the language does not have."""
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
            if type(node.op) not in _ARITHMETIC:
                self._fail(node, "unknown operator; there are + - * / // % **")
        elif isinstance(node, ast.UnaryOp):
            if isinstance(node.op, ast.Invert):
                self._fail(node, "unknown operator '~'; there are - and not")
        elif isinstance(node, ast.Compare):
            if any(type(sign) not in _COMPARISONS for sign in node.ops):
                self._fail(node, "unknown comparison; there are < <= > >= == !=")
        elif not isinstance(node, (*_LEAVES, *_BRANCHES)):
            self._fail(
                node,
                f"{_described(node)} not allowed: only numbers, names, arithmetic, comparisons and {_listed()}",
            )

    def _allow_call(self, node: ast.Call) -> None:
        if not isinstance(node.func, ast.Name):
            self._fail(node, f"only these functions can be called: {_listed()}")
        name = _original(node.func.id)
        if name not in _FUNCTIONS:
            self._unknown(node.func, name, FUNCTION_NAMES, what="function")
        fewest, most = _FUNCTIONS[name]
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
                yield _original(node.id)

    # -- evaluation

    def _walk(self, node: ast.expr, values: Mapping[str, Any]) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            name = _original(node.id)
            if name not in values:
                self._unknown(node, name, list(values))
            return values[name]
        if isinstance(node, ast.BinOp):
            return self._operate(node, self._walk(node.left, values), self._walk(node.right, values))
        if isinstance(node, ast.UnaryOp):
            return self._unary(node, self._walk(node.operand, values))
        if isinstance(node, ast.BoolOp):
            value: Any = None
            for part in node.values:
                value = self._walk(part, values)
                if bool(value) is isinstance(node.op, ast.Or):
                    break
            return value
        if isinstance(node, ast.Compare):
            left = self._walk(node.left, values)
            for sign, part in zip(node.ops, node.comparators, strict=True):
                right = self._walk(part, values)
                if not self._compare(node, sign, left, right):
                    return False
                left = right
            return True
        if isinstance(node, ast.IfExp):
            return self._walk(node.body if self._walk(node.test, values) else node.orelse, values)
        assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        return self._call(node, node.func.id, [self._walk(argument, values) for argument in node.args])

    def _operate(self, node: ast.BinOp, left: Any, right: Any) -> Any:
        sign, function = _ARITHMETIC[type(node.op)]
        if isinstance(left, str) or isinstance(right, str):
            return self._join(node, sign, left, right)
        self._numbers(node, sign, left, right)
        if sign == "**":
            self._check_power(node, left, right)
        try:
            result = function(left, right)
        except ZeroDivisionError:
            self._fail(node, f"divides by zero: {_shown(left)} {sign} {_shown(right)}")
        except OverflowError:
            self._fail(node, f"the result of {_shown(left)} {sign} {_shown(right)} is too large")
        return self._bounded(result, node)

    def _join(self, node: ast.BinOp, sign: str, left: Any, right: Any) -> str:
        """Text: joined with text, or repeated a whole number of times."""
        if sign == "+" and isinstance(left, str) and isinstance(right, str):
            size = len(left) + len(right)
        elif sign == "*" and _is_whole(left) != _is_whole(right):
            text, times = (left, right) if isinstance(left, str) else (right, left)
            if times < 0:
                self._fail(node, f"{_shown(text)} cannot be repeated {times} times")
            size = len(text) * times
        else:
            self._fail(
                node,
                f"{_shown(left)} {sign} {_shown(right)} has no meaning: text is joined with + or repeated with *",
            )
        if size > MAX_TEXT:
            self._fail(node, f"the result would be {_big(size)} letters long; at most {MAX_TEXT} are allowed")
        if size == 0:  # Python repeats even nothing only so many times
            return ""
        return left + right if sign == "+" else left * right

    def _check_power(self, node: ast.BinOp, base: Any, exponent: Any) -> None:
        whole = _is_whole(base) and _is_whole(exponent)
        if whole and exponent > 0 and abs(base) > 1 and exponent * (abs(base).bit_length() - 1) > MAX_BITS:
            self._fail(node, f"the result of {_shown(base)} ** {_shown(exponent)} is too large")
        if base < 0 and isinstance(exponent, float) and not exponent.is_integer():
            self._fail(node, f"{_shown(base)} ** {_shown(exponent)} is not a real number")

    def _unary(self, node: ast.UnaryOp, value: Any) -> Any:
        if isinstance(node.op, ast.Not):
            return not value
        sign = "-" if isinstance(node.op, ast.USub) else "+"
        self._numbers(node, sign, value)
        return -value if sign == "-" else +value

    def _compare(self, node: ast.Compare, sign: ast.cmpop, left: Any, right: Any) -> bool:
        symbol, function = _COMPARISONS[type(sign)]
        if symbol not in ("==", "!=") and not (isinstance(left, str) and isinstance(right, str)):
            self._numbers(node, symbol, left, right)
        return bool(function(left, right))

    def _call(self, node: ast.Call, name: str, arguments: list[Any]) -> Any:
        self._numbers(node, f"{name}()", *arguments)
        try:
            if name in ("min", "max"):
                return min(arguments) if name == "min" else max(arguments)
            if name == "round":
                if len(arguments) == 1:
                    return round(arguments[0])
                if not _is_whole(arguments[1]) or abs(arguments[1]) > 30:
                    self._fail(
                        node,
                        f"round() takes a whole number of digits from -30 to 30, got {_shown(arguments[1])}",
                    )
                return round(arguments[0], arguments[1])
            if name == "int":
                return int(arguments[0])
            if name == "abs":
                return abs(arguments[0])
            return math.log2(arguments[0]) if name == "log2" else math.sqrt(arguments[0])
        except (ValueError, OverflowError):
            self._fail(node, f"{name}({', '.join(map(_shown, arguments))}) has no value")

    def _numbers(self, node: ast.AST, sign: str, *values: Any) -> None:
        for value in values:
            if not _is_number(value):
                self._fail(node, f"{sign} needs numbers, got {_shown(value)}")

    def _bounded(self, value: Any, node: ast.AST) -> Any:
        """The value, unless it is larger than anything an architecture could need."""
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            self._fail(node, "a number is too large")
        if isinstance(value, float) and not math.isfinite(value):
            self._fail(node, "a number is too large")
        if isinstance(value, str) and len(value) > MAX_TEXT:
            self._fail(node, f"a text has more than {MAX_TEXT} letters")
        return value

    # -- constraints

    def _comparisons(self, node: ast.expr) -> Iterable[Comparison]:
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
            for part in node.values:
                yield from self._comparisons(part)
        elif isinstance(node, ast.Compare):
            left = node.left
            for sign, right in zip(node.ops, node.comparators, strict=True):
                yield Comparison(left, _COMPARISONS[type(sign)][0], right)
                left = right
        else:
            self._fail(node, "is not a comparison; expected something like 'parameters <= 1.2e6'")

    def _distance(self, comparison: Comparison, values: Mapping[str, Any]) -> float:
        left, right = self._walk(comparison.left, values), self._walk(comparison.right, values)
        sign = comparison.sign
        is_text = isinstance(left, str) and isinstance(right, str)
        if sign not in ("==", "!=") and not is_text:
            self._numbers(comparison.left, sign, left, right)
        holds = _SIGNS[sign](left, right)
        if sign == "!=" or not (_is_number(left) and _is_number(right)):
            return -1.0 if holds else 1.0
        gap = _gap(right, left, abs(right)) if sign in (">", ">=") else _gap(left, right, abs(right))
        gap = abs(gap) if sign == "==" else gap
        if holds:
            return min(gap, 0.0)
        return gap if gap > 0 else 1e-9  # equal is not less, however little is missing

    # -- errors

    def _fail(self, node: ast.AST, message: str) -> NoReturn:
        # Python counts columns in UTF-8 bytes; every stand-in for '@' takes two.
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


def _is_test(node: ast.expr) -> bool:
    if isinstance(node, ast.BoolOp):
        return all(_is_test(part) for part in node.values)
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.Not)
    return isinstance(node, ast.Compare)


def is_length(text: str) -> bool:
    """Whether a text is a number of tokens that a cost or a loss can be asked for."""
    return bool(re.fullmatch(LENGTH, text)) and len(text.replace("_", "")) <= MAX_LENGTH_DIGITS


def _gap(larger: Any, smaller: Any, scale: Any) -> float:
    """How much larger, in units of `scale`, kept within what a float holds."""
    try:
        gap = float((larger - smaller) / max(scale, 1e-12))
    except OverflowError:  # of whole numbers: a cost may have any size
        gap = FARTHEST if larger > smaller else -FARTHEST
    return 0.0 if math.isnan(gap) else max(min(gap, FARTHEST), -FARTHEST)


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _original(identifier: str) -> str:
    return identifier.replace(_AT, "@")


def _shown(value: Any) -> str:
    return _big(value) if _is_whole(value) else repr(value)


def _big(value: int) -> str:
    if abs(value) < 10**12:
        return str(value)
    try:
        return f"{float(value):.3g}"
    except OverflowError:
        return f"a number of {value.bit_length()} bits"


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

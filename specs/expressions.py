"""A small arithmetic language for search specs: `factor * window`, `S * ratio + G`, `parameters <= 1.2e6`.

    values       numbers, quoted text, True, False, None
    names        variables, pattern letters, costs (`cache_bytes@4096`)
    operators    + - * / // % **, comparisons (chained too), and or not, `a if test else b`
    functions    min max round int abs log2 sqrt place

A variable may have no value (`WITHOUT_VALUE`). An expression that needs it has none either: it raises `WithoutValue`.
`a if test else b` needs only one of a and b.

Text can be joined (`+`), repeated (`*`) and compared: patterns are written that way. expression_parser.py reads an
expression; this file computes its value, and how far a constraint is from true. The size of a result is checked before
it is computed: `9**9**9` is refused at once.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from miniwin.specs.base import UserError
from miniwin.specs.expression_parser import (
    ARITHMETIC,
    COMPARISONS,
    FUNCTION_NAMES,
    MAX_BITS,
    MAX_TEXT,
    ParsedExpression,
    is_length,
    original,
)

__all__ = [
    "FUNCTION_NAMES",
    "WITHOUT_VALUE",
    "Comparison",
    "Expression",
    "Members",
    "WithoutValue",
    "is_length",
]

WITHOUT_VALUE = object()  # what a variable has whose conditions do not hold
FARTHEST = 1e300  # how far from true a constraint can be: samplers calculate with it
_SIGNS = dict(COMPARISONS.values())


class WithoutValue(UserError):
    """An expression needs a variable that has no value here."""


@dataclass(frozen=True)
class Members:
    """The value of a subset: some of the places 0, 1, ..., `of` - 1."""

    numbers: tuple[int, ...]
    of: int

    def __repr__(self) -> str:
        return f"the subset {list(self.numbers)}"


@dataclass(frozen=True)
class Comparison:
    """One `left <sign> right` of a constraint."""

    left: ast.expr
    sign: str
    right: ast.expr


class Expression(ParsedExpression):
    """An expression that can be computed. `names`: the names in it."""

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The value of the expression, with `values` for its names.

        Raises:
            UserError: a name is not in `values`, or an operation has no value.
        """
        return self._walk(self.tree, values)

    def comparisons(self) -> list[Comparison]:
        """The comparisons of `a <= b`, of `a <= b < c`, or of `a <= b and c == d`.

        Raises:
            UserError: the expression has another form.
        """
        return list(self._comparisons(self.tree))

    def violation(self, values: Mapping[str, Any]) -> float:
        """How far from true the expression is: at most 0 where it holds. The unit is the size of the right side.

        An expression with other logic than `and` has no distance: it gives 1 where it is false and -1 where it is true.
        An earlier comparison guards the later ones, as in `evaluate`. So `k > 0 and 8 / k <= 2` is false for k = 0; it
        is no error.
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
        return _is_test(self.tree)

    # -- evaluation

    def _walk(self, node: ast.expr, values: Mapping[str, Any]) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            name = original(node.id)
            if name not in values:
                self._unknown(node, name, list(values))
            if values[name] is WITHOUT_VALUE:
                raise WithoutValue(f"{name} has no value here, since its conditions do not hold")
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
        sign, function = ARITHMETIC[type(node.op)]
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
        symbol, function = COMPARISONS[type(sign)]
        if symbol not in ("==", "!=") and not (isinstance(left, str) and isinstance(right, str)):
            self._numbers(node, symbol, left, right)
        return bool(function(left, right))

    def _call(self, node: ast.Call, name: str, arguments: list[Any]) -> Any:
        if name == "place":
            return self._place(node, *arguments)
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

    def _place(self, node: ast.Call, members: Any, inside: Any, outside: Any) -> str:
        """Text: `inside` for each place in the subset, `outside` for every other place, in order."""
        if not isinstance(members, Members) or not isinstance(inside, str) or not isinstance(outside, str):
            said = ", ".join(map(_shown, (members, inside, outside)))
            self._fail(node, f"place() takes a subset and two texts, such as place(layers, G, S); got {said}")
        chosen = set(members.numbers)
        return str(self._bounded("".join(inside if n in chosen else outside for n in range(members.of)), node))

    def _numbers(self, node: ast.AST, sign: str, *values: Any) -> None:
        for value in values:
            if not _is_number(value):
                self._fail(node, f"{sign} needs numbers, got {_shown(value)}")

    # -- constraints

    def _comparisons(self, node: ast.expr) -> Iterable[Comparison]:
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
            for part in node.values:
                yield from self._comparisons(part)
        elif isinstance(node, ast.Compare):
            left = node.left
            for sign, right in zip(node.ops, node.comparators, strict=True):
                yield Comparison(left, COMPARISONS[type(sign)][0], right)
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


def _is_test(node: ast.expr) -> bool:
    if isinstance(node, ast.BoolOp):
        return all(_is_test(part) for part in node.values)
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.Not)
    return isinstance(node, ast.Compare)


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


def _shown(value: Any) -> str:
    return _big(value) if _is_whole(value) else repr(value)


def _big(value: int) -> str:
    if abs(value) < 10**12:
        return str(value)
    try:
        return f"{float(value):.3g}"
    except OverflowError:
        return f"a number of {value.bit_length()} bits"

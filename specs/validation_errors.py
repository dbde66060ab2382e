"""pydantic's validation errors as messages: place, field, what was got, what was expected, the nearest name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from miniwin.blocks.messages.listing import some
from miniwin.blocks.messages.nearest import nearest
from miniwin.specs.base import UserError
from miniwin.specs.schema import choices, models_at, nullable
from miniwin.specs.yaml_document import MOST_SHOWN, Document
from miniwin.specs.yaml_lines import Loc
from miniwin.specs.yaml_scalars import NOTHING, plain, shown

MOST_READ = 200  # of pydantic's errors: finding the nearest name takes time
MISSING = "this field is required, and missing"

_EXPECTED = {
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "string_type": "expected text",
    "dict_type": "expected a mapping (name: value)",
    "model_type": "expected a mapping (name: value)",
    "model_attributes_type": "expected a mapping (name: value)",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "finite_number": "expected a finite number",
    "greater_than": "expected more than {gt:g}",
    "greater_than_equal": "expected at least {ge:g}",
    "less_than": "expected less than {lt:g}",
    "less_than_equal": "expected at most {le:g}",
    "too_short": "expected {min_length} or more",
    "too_long": "expected {max_length} or fewer",
    "string_too_short": "expected {min_length} or more characters",
    "string_too_long": "expected {max_length} or fewer characters",
}
_MAPPINGS = ("dict_type", "model_type", "model_attributes_type")
_NUMBERS = ("int_type", "int_from_float", "float_type")
_PATTERNS = {
    "^[A-Z]$": "expected one capital letter, A to Z",
    "^[A-Za-z]$": "expected one letter, A to Z or a to z",
    "^[a-z0-9][a-z0-9._-]*$": "expected small letters, digits and . _ -, beginning with a letter or a digit",
    "^[A-Za-z0-9][A-Za-z0-9._-]*$": "expected letters, digits and . _ -, beginning with a letter or a digit",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, at a path into the data.

    on_key: the key is wrong, not its value. meant: of a misspelt field, the path that was probably meant.
    """

    path: Loc
    message: str
    on_key: bool = False
    meant: Loc | None = None


def explain(
    error: ValidationError,
    data: Any,
    model: type[BaseModel],
    document: Document | None,
    overrides: Mapping[Loc, str] | None = None,
    also: tuple[Problem, ...] = (),
) -> UserError:
    """All problems of a validation as one UserError, one line each, with `file:line:column` where a document is given.

    overrides: the options that changed the data (`--set field=value`), by path; a problem at such a path is said to be
    in the option. also: problems that are known already.
    """
    found = [
        problem for detail in error.errors(include_url=False)[:MOST_READ] for problem in _problems(detail, data, model)
    ]
    unread = max(error.error_count() - MOST_READ, 0)
    return said([*also, *_without_echoes(found)], document, overrides or {}, unread)


def said(
    problems: list[Problem], document: Document | None, overrides: Mapping[Loc, str], unread: int = 0
) -> UserError:
    """Problems as one UserError, in the order of the file. unread: how many more there are.

    Equal problems of one place share a line: a merged mapping is used several times.
    """
    paths: dict[tuple[tuple[int, int], str, str, object], list[str]] = {}
    for problem in problems:
        option = next((path for path in overrides if problem.path[: len(path)] == path), None)
        mark, place = (0, 0), ""
        if option is not None:
            place = f"{overrides[option]}: "
        elif document is not None:
            mark = document.mark(problem.path, problem.on_key)
            place = f"{document.place(problem.path, problem.on_key)}: "
        where = paths.setdefault((mark, place, problem.message, problem.path[-1:]), [])
        path = ".".join(_part(part) for part in problem.path) or "the whole file"
        if path not in where:
            where.append(path)
    ordered = sorted(paths.items(), key=lambda item: item[0][0])
    lines = [f"{place}{some(where, 3)}: {message}" for (_, place, message, _), where in ordered]
    more = len(lines) - MOST_SHOWN
    if more > 0 or unread:
        lines = [*lines[:MOST_SHOWN], f"... and {max(more, 0) + unread} more"]
    return UserError("\n".join(lines))


def _part(part: Any) -> str:
    text = str(part)
    return text if text.isprintable() and len(text) <= 60 else shown(text)


def _problems(detail: Any, data: Any, model: type[BaseModel]) -> list[Problem]:
    kind, context = detail["type"], detail.get("ctx") or {}
    loc: Loc = tuple(detail["loc"])
    if kind == "located":
        within = _value(data, _resolved(loc, data))
        return [Problem(_deeper(loc, _parts(at, within), data), text) for at, text in _located(context)]
    if loc[-1:] == ("[key]",):
        path = _deeper(loc[:-2], loc[-2:-1], data)
        return [Problem(path, f"got the name {shown(path[-1])}; {_expected(kind, context, detail)}", True)]
    if kind == "missing":
        return [Problem(_resolved(loc[:-1], data) + loc[-1:], MISSING)]
    path = _resolved(loc, data)
    if kind == "extra_forbidden":
        names = sorted({name for m in models_at(model, loc[:-1]) for name in m.model_fields})
        near = nearest(str(loc[-1]), names)
        hint = f"did you mean '{near}'?" if near else f"expected one of: {', '.join(names)}"
        meant = (*path[:-1], near) if near else None
        return [Problem(path, f"unknown field {shown(loc[-1])}; {hint}", True, meant)]
    told_apart = kind in _MAPPINGS and bool(choices(models_at(model, loc))[1])
    if told_apart or kind in ("union_tag_invalid", "union_tag_not_found"):
        return [_wrong_choice(path, loc, data, model)]
    if kind in ("value_error", "assertion_error"):
        return [Problem(path, str(detail["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, "))]
    value = _value(data, path)
    hint = _null(value, loc, path, model) or _hint(kind, value)
    return [Problem(path, f"got {shown(value)}; {_expected(kind, context, detail)}{hint}")]


def _null(value: Any, loc: Loc, path: Loc, model: type[BaseModel]) -> str:
    """The hint to write null, where the field may hold null and the value looks as if null was meant."""
    word = isinstance(value, str) and value.strip().lower() in NOTHING
    if not (word or value is False or value == float("inf")) or not path or not nullable(model, loc, path[-1]):
        return ""
    return ", or null: remove the quotes" if isinstance(plain(str(value)), type(None)) else ", or null: write null"


def _located(context: Any) -> list[tuple[str, str]]:
    """What a spec's own check found wrong with fields below it: one path and message, or several."""
    return list(context["all"]) if "all" in context else [(str(context["at"]), str(context["message"]))]


def _parts(at: str, within: Any) -> Loc:
    """A dotted path as a tuple, numbers as indices of lists. A key with dots in it, as under `set`, stays whole."""
    if isinstance(within, dict) and at in within:
        return (at,)
    return tuple(int(part) if part.isdecimal() else part for part in at.split("."))


def _wrong_choice(path: Loc, loc: Loc, data: Any, model: type[BaseModel]) -> Problem:
    """The problem of a field that holds one of several models: the `type` (or `source`) is wrong or missing."""
    field, names = choices(models_at(model, loc))
    value = _value(data, path)
    expected = f"expected one of: {', '.join(names)}"
    if not isinstance(value, dict):
        example = value if value in names else names[0]
        null = _null(value, loc, path, model)
        return Problem(path, f"got {shown(value)}; expected a mapping such as {{{field}: {example}}}{null}")
    if field not in value:
        return Problem(path, f"its '{field}' is missing; {expected}")
    tag = value[field]
    near = nearest(str(tag), names, 0.5)
    return Problem(
        (*path, field), f"unknown {field} {shown(tag)}; {f'did you mean {near!r}? ' if near else ''}{expected}"
    )


def _expected(kind: str, context: Any, detail: Any) -> str:
    if kind == "literal_error":
        return f"expected {context['expected']}"
    if kind in _EXPECTED:
        return _EXPECTED[kind].format(**context)
    if kind == "string_pattern_mismatch" and context["pattern"] in _PATTERNS:
        return _PATTERNS[context["pattern"]]
    message = str(detail["msg"])
    return f"{message[:1].lower()}{message[1:]}"


def _hint(kind: str, value: Any) -> str:
    """How to mend a value that looks like one type and that YAML reads as another."""
    if kind in _NUMBERS and isinstance(value, str):
        bare = value.replace("_", "").replace(",", "")
        if isinstance(plain(value), (int, float)) and not isinstance(plain(value), bool):
            return ": remove the quotes"
        if re.fullmatch(r"[0-9.]+[kKmMgG]", bare):
            return ": write it in digits, such as 4096 or 1e6"
        return f": write {bare}" if re.fullmatch(r"[0-9]+", bare) and len(bare) < 20 else ""
    if kind == "bool_type" and isinstance(value, str):
        word = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(value.lower())
        return f": write {word}" if word else ""
    if kind in ("list_type", "tuple_type") and isinstance(value, str) and len(value) <= 60:
        return f": write [{shown(value)}]"
    if kind == "string_type" and value is not None and not isinstance(value, (dict, list)):
        return ": put it in quotes"
    return ""


def _without_echoes(problems: list[Problem]) -> list[Problem]:
    """The problems without the missing fields that are only misspelt: pydantic reports both."""
    meant = {problem.meant for problem in problems}
    return [problem for problem in problems if not (problem.message == MISSING and problem.path in meant)]


def _deeper(loc: Loc, at: Loc, data: Any) -> Loc:
    """The path of the field `at` below loc. The data may lack the field."""
    path = _resolved(loc + at, data)
    return path if path[-1:] == at[-1:] else path + at[-1:]


def _resolved(loc: Loc, data: Any) -> Loc:
    """The parts of pydantic's loc that are keys and indices of the data.

    loc also holds the tags of unions, and a tag may look like a field. So every way to leave parts out is tried: the
    longest path wins. Of two equally long paths the one without the earlier part wins: a tag stands before its fields.
    """
    if not loc:
        return ()
    without = _resolved(loc[1:], data)
    inside = isinstance(data, dict) and loc[0] in data
    if inside or (isinstance(data, list) and isinstance(loc[0], int) and loc[0] < len(data)):
        return max(without, (loc[0], *_resolved(loc[1:], data[loc[0]])), key=len)  # type: ignore[index]
    return without


def _value(data: Any, path: Loc) -> Any:
    for part in path:
        data = data[part] if isinstance(data, list) or part in data else None  # type: ignore[index,operator]
    return data

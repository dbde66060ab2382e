"""What pydantic found wrong, said to a person: place, field, what was got, what was expected, the nearest name."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from miniwin.specs.base import UserError
from miniwin.specs.yaml_text import Document, Loc

MOST_SHOWN = 20

_EXPECTED = {
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "string_type": "expected text",
    "dict_type": "expected a mapping (name: value)",
    "model_type": "expected a mapping (name: value)",
    "list_type": "expected a list",
    "finite_number": "expected a finite number",
}


def explain(error: ValidationError, data: Any, model: type[BaseModel], document: Document | None) -> UserError:
    """All of a validation's problems as one error, a line each, with `file:line:column` where a file is known."""
    problems = error.errors(include_url=False)
    lines: list[str] = []
    for problem in problems:
        loc: Loc = tuple(problem["loc"])
        context = problem.get("ctx") or {}
        if problem["type"] == "located":
            loc += tuple(str(context["at"]).split("."))
        path = document.known(loc) if document is not None else _known(loc, data)
        if problem["type"] in ("missing", "located", "extra_forbidden") and path[-1:] != loc[-1:]:
            path += loc[-1:]
        line = f"{'.'.join(map(str, path)) or 'the whole file'}: {_message(problem, data, loc, model)}"
        line = line if document is None else f"{document.place(loc)}: {line}"
        if line not in lines:
            lines.append(line)
    more = len(lines) - MOST_SHOWN
    return UserError("\n".join(lines[:MOST_SHOWN] + ([f"... and {more} more"] if more > 0 else [])))


def _message(problem: Any, data: Any, loc: Loc, model: type[BaseModel]) -> str:
    kind, context = problem["type"], problem.get("ctx") or {}
    got = _shown(_at(data, loc))
    if kind == "extra_forbidden":
        names = _fields_near(model, data, loc[:-1])
        close = get_close_matches(str(loc[-1]), names, n=1, cutoff=0.6)
        hint = f"did you mean '{close[0]}'?" if close else f"expected one of: {', '.join(names)}"
        return f"unknown field '{loc[-1]}'; {hint}"
    if kind == "missing":
        return "this field is required, and missing"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        names = [name.strip("'\" ") for name in str(context.get("expected_tags", "")).split(",") if name.strip()]
        tag = context.get("tag")
        if not isinstance(_at(data, loc), dict):
            return f"got {got}; expected a mapping such as {{type: {names[0] if names else '...'}}}"
        if tag is None:
            return f"its 'type' is missing; expected one of: {', '.join(names)}"
        close = get_close_matches(str(tag), names, n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'? " if close else ""
        return f"unknown type '{tag}'; {hint}expected one of: {', '.join(names)}"
    if kind in ("located", "value_error", "assertion_error"):
        return str(problem["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if kind == "literal_error":
        return f"got {got}; expected {context['expected']}"
    if kind in _EXPECTED:
        return f"got {got}; {_EXPECTED[kind]}"
    message = str(problem["msg"])
    return f"got {got}; {message[0].lower()}{message[1:].replace('input should', 'it should').replace('Input', 'it')}"


def _steps(loc: Loc, data: Any) -> list[tuple[Any, Any]]:
    """The parts of loc that exist in the data, with their values; a union's tags are passed over."""
    steps = []
    for part in loc:
        if isinstance(data, dict) and part in data or isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
            steps.append((part, data))
    return steps


def _known(loc: Loc, data: Any) -> Loc:
    return tuple(part for part, _ in _steps(loc, data))


def _at(data: Any, loc: Loc) -> Any:
    steps = _steps(loc, data)
    return steps[-1][1] if steps else data


def _shown(value: Any) -> str:
    text = {None: "null", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else None
    if text is None:
        text = f"'{value}'" if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields_near(model: type[BaseModel], data: Any, loc: Loc) -> list[str]:
    """The field names of the model that stands at loc: each part of loc is a field, a list or dict item, or a tag."""
    found = _models_at([model], loc)
    names = {name for m in found for name in m.model_fields}
    return sorted(names)


def _models_at(models: list[type[BaseModel]], loc: Loc) -> list[type[BaseModel]]:
    from miniwin.specs.schema import inner_models

    for part in loc:
        narrower: list[type[BaseModel]] = []
        for m in models:
            if part in m.model_fields:
                narrower += inner_models(m.model_fields[str(part)])
            elif (field := m.model_fields.get("type") or m.model_fields.get("source")) and field.default == part:
                narrower.append(m)
        models = narrower or models
    return models

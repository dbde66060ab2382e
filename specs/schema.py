"""What a spec looks like: JSON Schema for editors, and which models a field may hold."""

from __future__ import annotations

import typing
from typing import Any

from pydantic import BaseModel, Tag, TypeAdapter
from pydantic.fields import FieldInfo

from miniwin.blocks.registry import Registry
from miniwin.specs.kinds import spec_class

DRAFT = "http://json-schema.org/draft-07/schema#"

Held = tuple[str | None, type[BaseModel]]  # a model that a field may hold, after its tag in pydantic's loc


def json_schema(kind: str) -> dict[str, Any]:
    """The JSON Schema (draft-07, as editors expect) of the YAML files of a kind of spec: model, train, search or suite.

    Raises:
        UserError: there is no such kind.
    """
    schema = _draft_07(TypeAdapter(spec_class(kind)).json_schema())
    # A file must say its kind and format. In Python the class says them, so these fields have defaults.
    schema["required"] = ["kind", "format", *schema.get("required", [])]
    if kind == "model":
        schema["properties"]["layer"] = {
            "type": "object",
            "description": "What several blocks share: give it an anchor (layer: &layer) and merge it (<<: *layer).",
        }
    return {"$schema": DRAFT, **schema, "title": f"MiniWin {kind} spec"}


# Where a validator comes before a bound, pydantic leaves its own name for the bound.
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_NAMES = ("$defs", "properties", "patternProperties")  # the keys below these are names, not keywords
_VALUES = ("default", "const", "enum", "required")


def _draft_07(schema: Any) -> Any:
    """pydantic's schema (draft 2020-12) in draft-07, which says `definitions` for `$defs`, and ignores what is beside a
    `$ref`."""
    if isinstance(schema, list):
        return [_draft_07(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NAMES:
            made["definitions" if key == "$defs" else key] = {name: _draft_07(inner) for name, inner in value.items()}
        elif key != "discriminator":  # a keyword of OpenAPI
            made[_BOUNDS.get(str(key), str(key))] = value if key in _VALUES else _draft_07(value)
    if "patternProperties" in made:
        made.setdefault("additionalProperties", False)
    if "$ref" in made:
        ref = {"$ref": made.pop("$ref").replace("#/$defs/", "#/definitions/")}
        return {"allOf": [ref], **made} if made else ref
    return made


def models_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[type[BaseModel]]:
    """The models that may stand at loc, whose parts are fields, names or indices in containers, and tags of unions."""
    held: list[Held] = [(None, model)]
    for part in loc:
        tagged = [m for tag, m in held if tag is not None and tag == part]
        fields = [m.model_fields[str(part)] for _, m in held if part in m.model_fields]
        if tagged:
            held = [(None, m) for m in tagged]
        elif fields:
            held = [item for field in fields for item in _held(field)]
    return [m for _, m in held]


def nullable(model: type[BaseModel], loc: tuple[str | int, ...], name: str | int) -> bool:
    """Whether the field `name` may hold null. Where loc has the name twice, the last one is meant."""
    at = max((i for i, part in enumerate(loc) if part == name), default=None)
    if at is None:
        return False
    fields = [m.model_fields[str(name)] for m in models_at(model, loc[:at]) if name in m.model_fields]
    return any(_holds_none(field.annotation) for field in fields)


def _holds_none(annotation: Any) -> bool:
    arguments = typing.get_args(annotation)
    return annotation in (None, type(None)) or (
        bool(arguments) and typing.get_origin(annotation) is not typing.Literal and any(map(_holds_none, arguments))
    )


def choices(models: list[type[BaseModel]]) -> tuple[str, list[str]]:
    """The field that tells models apart, and its values: `type` and the names of blocks, say."""
    for field in ("type", "source"):
        names = sorted(str(m.model_fields[field].default) for m in models if field in m.model_fields)
        if names:
            return field, names
    return "type", []


def _held(field: FieldInfo) -> list[Held]:
    """Every model class that a field's annotation can hold, through unions, containers and registries."""
    return _registered(field.metadata) + _models_in(field.annotation)


def _models_in(annotation: Any, tag: str | None = None) -> list[Held]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        names = choices([annotation])[1]
        return [(tag or (names[0] if names else None), annotation)] if annotation.model_fields else []
    metadata = getattr(annotation, "__metadata__", ())
    tag = next((item.tag for item in metadata if isinstance(item, Tag)), None)
    found = _registered(metadata)
    for argument in typing.get_args(annotation):
        found += _models_in(argument, tag)
    return found


def _registered(metadata: typing.Iterable[Any]) -> list[Held]:
    registries = [getattr(item, "registry", None) for item in metadata]
    return [(cls.model_fields["type"].default, cls) for r in registries if isinstance(r, Registry) for cls in r]

"""What a spec looks like: JSON Schema for editors, and which models a field may hold."""

from __future__ import annotations

import typing
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from miniwin.blocks.registry import Registry

DRAFT = "http://json-schema.org/draft-07/schema#"


def json_schema(kind: str) -> dict[str, Any]:
    """The JSON Schema (draft-07, as editors expect) of a kind of spec: model, train or search."""
    from miniwin.specs.loading import spec_class

    cls = spec_class(kind)
    schema = TypeAdapter(cls).json_schema()
    # `$defs` is draft 2019; editors that validate draft-07 look under `definitions`.
    text = _renamed(schema)
    return {"$schema": DRAFT, "title": f"MiniWin {kind} spec", **text}


def _renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {("definitions" if k == "$defs" else k): _renamed(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_renamed(v) for v in value]
    return value.replace("#/$defs/", "#/definitions/") if isinstance(value, str) else value


def inner_models(field: FieldInfo) -> list[type[BaseModel]]:
    """Every model class that a field's annotation can hold, through unions, containers and registries."""
    found: list[type[BaseModel]] = []
    for item in field.metadata:
        registry = getattr(item, "registry", None)
        if isinstance(registry, Registry):
            found += list(registry)
    return found + _models_in(field.annotation)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation] if annotation.model_fields else []
    found: list[type[BaseModel]] = []
    for item in getattr(annotation, "__metadata__", ()):
        registry = getattr(item, "registry", None)
        if isinstance(registry, Registry):
            found += list(registry)
    for argument in typing.get_args(annotation):
        found += _models_in(argument)
    return found

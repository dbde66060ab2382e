"""Specs that have grown: fields that older files lack are written only where they differ from their default."""

from __future__ import annotations

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from miniwin.blocks.spec import Strict


class Grown(Strict):
    """A spec whose later fields are written only where they differ from their default."""

    @model_serializer(mode="wrap")
    def _as_older_files(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = write(self)
        fields = type(self).model_fields
        return {name: value for name, value in data.items() if not self._unsaid(name, fields[name].default)}

    def _unsaid(self, name: str, default: Any) -> bool:
        return name in self.LATER and getattr(self, name) == default

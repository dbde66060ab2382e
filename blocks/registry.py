"""One small explicit registry per kind of block.

A block is registered once, under the name that YAML uses for it (`type: p-rope`). A second block of the same name is
refused. The error for an unknown name suggests the nearest one. `field()` turns a registry into the type of a spec
field: a union of everything registered, told apart by `type`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

from miniwin.blocks.messages.nearest import near
from miniwin.blocks.spec import Strict, UserError

S = TypeVar("S", bound=Strict)


class Registry:
    """Spec classes of one kind of block, by name. default: the type of a value that names none."""

    def __init__(self, kind: str, default: str | None = None) -> None:
        self.kind = kind
        self.default = default
        self._classes: dict[str, type[Strict]] = {}
        self._read = False  # True once pydantic has read it for a spec field

    def register(self, cls: type[S]) -> type[S]:
        """Class decorator. The block's name is the default of the class's `type` field.

        Raises:
            ValueError: the name is taken.
        """
        name: str = cls.model_fields["type"].default
        if name in self._classes:
            raise ValueError(f"{self.kind} '{name}' is registered twice: {self._classes[name]} and {cls}")
        self._classes[name] = cls
        if self._read:
            _remake()
        return cls

    def __getitem__(self, name: str) -> type[Strict]:
        if name not in self._classes:
            raise UserError(f"unknown {self.kind} '{name}': {near(name, self.names())}")
        return self._classes[name]

    def __iter__(self) -> Iterator[type[Strict]]:
        return iter(self._classes.values())

    def names(self) -> list[str]:
        return sorted(self._classes)

    def field(self) -> Any:
        """The type annotation of a spec field that holds any registered block."""
        return Annotated[Strict, _Union(self)]

    def tag(self, value: Any) -> str | None:
        """The name of the block that a value means: its `type`, or the default if `type` is left out."""
        found = value.get("type", self.default) if isinstance(value, dict) else getattr(value, "type", None)
        return found if isinstance(found, str) else None


class _Union:
    """Pydantic hook: validate a field by the registered class that its `type` names."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        self.registry._read = True
        choices = {name: handler.generate_schema(self.registry[name]) for name in self.registry.names()}
        discriminator: Callable[[Any], str | None] = self.registry.tag
        return core_schema.tagged_union_schema(choices, discriminator)


def _remake() -> None:
    """Rebuild all spec classes: a block (of a plugin) came after pydantic had read its registry."""

    def below(cls: type[Strict]) -> list[type[Strict]]:
        return [inner for sub in cls.__subclasses__() for inner in (sub, *below(sub))]

    classes = below(Strict)
    # First delete every schema: a class that is rebuilt takes the schemas that others have, and some hold each other.
    for cls in classes:
        if "__pydantic_core_schema__" in vars(cls):
            del cls.__pydantic_core_schema__
    for cls in classes:
        cls.model_rebuild(force=True, raise_errors=False)


POSITIONS = Registry("position")
LOGIT_SCALES = Registry("logit_scale")
ATTENTIONS = Registry("attention", default="softmax")
MLPS = Registry("mlp", default="swiglu")
NORMS = Registry("norm", default="rmsnorm")
SCALINGS = Registry("scaling")
ROUTERS = Registry("router")

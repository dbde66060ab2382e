"""Commands without torch: some only describe a spec or look at files, and importing torch takes seconds.

A block's spec and its module share a file, so that a block is one file. Reading the spec then imports torch for the
module. In a process that will never build a module, `install` puts stand-ins in torch's place: the modules' classes are
empty, and computing with them fails. Only the console script may do this, for commands after which the process ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

LOOKING_AT_STUDIES = tuple(("search", name) for name in ("status", "report", "export", "compare"))
COMMANDS = (("check",), ("schema",), ("specs",), *LOOKING_AT_STUDIES)
LOOKING = (
    ("zoo", "list"),
    ("zoo", "search"),
    ("zoo", "show"),
    ("zoo", "index"),
)  # they read no spec, and so need no plugin


def wanted(arguments: list[str]) -> bool:
    """Whether this command line can do without torch. Plugins may use torch while they are imported."""
    if tuple(arguments[:2]) in LOOKING:
        return True
    if not any(tuple(arguments[: len(words)]) == words for words in COMMANDS) or os.environ.get("MINIWIN_PLUGINS"):
        return False
    return not entry_points(group="miniwin.plugins")


def install() -> None:
    """From here on `import torch` gives stand-ins, unless torch is already there."""
    if "torch" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _StandIn:
    """Whatever torch offers when a file is imported: a base class, a decorator, a type, a constant."""

    def __getattr__(self, name: str) -> _StandIn:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if len(arguments) == 1 and callable(arguments[0]) and not options:
            return arguments[0]  # as a decorator
        return self

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return ()

    def __getitem__(self, item: Any) -> _StandIn:
        return self

    def __or__(self, other: Any) -> _StandIn:
        return self

    __ror__ = __or__


class _Module(ModuleType):
    Tensor = type("Tensor", (), {})  # scipy asks whether an array is one

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandIn()


class _Finder:
    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        if name == "sklearn":  # Optuna imports it for fANOVA, which no command here uses; that takes seconds, too
            raise ModuleNotFoundError("scikit-learn is not imported by commands that need no torch", name=name)
        if name.partition(".")[0] != "torch":
            return None
        return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass

"""Plugins: files or modules outside the package that register blocks when they are imported.

A plugin uses the decorator `@POSITIONS.register` (or another registry's). There are three ways to load one:

    entry point   an installed package names a module in the group `miniwin.plugins`
    --plugin P    on the command line: a module's name, or the path of a .py file
    load_plugin   the same from Python

Plugins of `--plugin` are also put into the environment variable MINIWIN_PLUGINS, so that worker processes load them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from hashlib import sha256
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from miniwin.blocks.spec import UserError
from miniwin.blocks.user_path import user_path

GROUP = "miniwin.plugins"
VARIABLE = "MINIWIN_PLUGINS"

_loaded: dict[str, ModuleType] = {}
_searched = False


def load_plugin(name: str) -> ModuleType:
    """Import a plugin once: a module's dotted name, or the path of a .py file.

    Raises:
        UserError: the module or file does not exist, or importing it fails.
    """
    is_file = name.endswith(".py") or os.sep in name
    key = str(user_path(name).resolve()) if is_file else name
    if key not in _loaded:
        try:
            _loaded[key] = _import_file(Path(key)) if is_file else importlib.import_module(name)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"plugin {name}: importing it failed with {type(error).__name__}: {error}; "
                "expected a module or .py file that registers blocks, such as one with @POSITIONS.register"
            ) from error
    return _loaded[key]


def load_plugins() -> None:
    """Load the plugins of the environment and of installed packages, once in a process.

    Raises:
        UserError: a plugin cannot be loaded.
    """
    global _searched
    if _searched:
        return
    for name in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        load_plugin(name)
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        _load_entry_point(point)
    _searched = True  # last: after a failure the next call tries again, rather than miss the plugin's blocks


def use_plugins(names: list[str]) -> None:
    """Load these plugins now, and in every process that is started from this one."""
    for name in names:
        load_plugin(name)
        whole = str(user_path(name).resolve()) if name.endswith(".py") else name
        before = [n for n in os.environ.get(VARIABLE, "").split(os.pathsep) if n and n != whole]
        os.environ[VARIABLE] = os.pathsep.join([*before, whole])


def _load_entry_point(point: EntryPoint) -> None:
    try:
        _loaded[point.value] = point.load()
    except Exception as error:
        raise UserError(
            f"plugin {point.name} of the package {point.dist.name if point.dist else '?'}: loading {point.value} failed"
            f" with {type(error).__name__}: {error}; mend or uninstall the package"
        ) from error


def _import_file(path: Path) -> ModuleType:
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"plugin {path}: there is no such .py file; expected one, or a module's name")
    name = f"miniwin_plugin_{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks up the module of a class while it makes the class
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module

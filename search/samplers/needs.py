"""What only some samplers need, and what is said where it is not there."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from miniwin.search.spec_errors import SpaceError
from miniwin.specs.validation_errors import Problem


def need(sampler: str, package: str, extra: str) -> Any:
    """The module. SpaceError, with the extra that installs it, if it is not there."""
    try:
        return import_module(package)
    except ImportError:
        message = f"{sampler} needs {package}, which is not installed: pip install 'miniwin[{extra}]'"
        raise refused("type", message) from None


def refused(field: str, message: str) -> SpaceError:
    """What is wrong with a field of the sampler."""
    return SpaceError([Problem(("sampler", field), message)])

"""The packages of the extra `serve`."""

from __future__ import annotations

from importlib.util import find_spec

from miniwin.specs import UserError

NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def check_installed() -> None:
    """
    Raises:
        UserError: a package of the extra is missing.
    """
    lacking = [name for name in NEEDED if find_spec(name) is None]
    if lacking:
        raise UserError(f"serve needs {', '.join(lacking)}, which is not installed: pip install 'miniwin[serve]'")

"""Whether two assignments are the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def key_of(params: Mapping[str, Any]) -> str:
    """The same text for assignments that differ only by rounding."""
    return json.dumps({name: round(v, 12) if isinstance(v, float) else v for name, v in params.items()}, sort_keys=True)

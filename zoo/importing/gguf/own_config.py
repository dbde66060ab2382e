"""What MiniWin writes into the GGUF files that it makes: the whole config, in one field of metadata.

The fields of llama.cpp hold float32, and not how weights start. So a file says the config again, exactly. It refines
the fields and never contradicts them: a value counts where it is the same in float32.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from miniwin.files.json_files import JSONProblem, parse_json
from miniwin.zoo.importing.initializer import OURS, RANGE

KEY = "miniwin.config"


def own_config(config: Mapping[str, Any]) -> str:
    """The value of the field."""
    return json.dumps(config)


def refined(config: dict[str, Any], said: Any) -> dict[str, Any]:
    """The config with the numbers of the field where they are the same in float32, and how weights start."""
    if not isinstance(said, str):
        return config
    try:
        exact = parse_json(said.encode())
    except JSONProblem:
        return config
    if not isinstance(exact, dict):
        return config
    starts = {name: exact[name] for name in (RANGE, OURS) if name in exact}
    return {**{name: _exact(value, exact.get(name)) for name, value in config.items()}, **starts}


def _exact(value: Any, said: Any) -> Any:
    if isinstance(value, dict) and isinstance(said, dict):
        return {name: _exact(one, said.get(name)) for name, one in value.items()}
    if isinstance(value, list) and isinstance(said, list) and len(value) == len(said):
        return [_exact(one, other) for one, other in zip(value, said, strict=True)]
    return said if same_in_float32(value, said) else value


def same_in_float32(one: Any, other: Any) -> bool:
    """Whether two numbers become the same float32."""
    if any(isinstance(x, bool) or not isinstance(x, int | float) for x in (one, other)):
        return False
    with np.errstate(over="ignore"):
        return bool(np.float32(one) == np.float32(other))

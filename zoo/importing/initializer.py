"""How weights start, as a config says it: `initializer_range`. It decides nothing that a model computes, but a spec
says it, and training another model from the spec goes by it.

A config has one number. What else our `init` says is in a field of ours, which transformers keeps and does not read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from miniwin.blocks.init import InitSpec
from miniwin.specs import ModelSpec

RANGE, OURS = "initializer_range", "miniwin_init"


def said_init(spec: ModelSpec) -> dict[str, Any]:
    """The fields of a config that say a spec's `init`."""
    said: dict[str, Any] = {RANGE: spec.init.std}
    other = spec.init.model_dump(mode="json", exclude={"std"})
    return said if other == InitSpec().model_dump(mode="json", exclude={"std"}) else {**said, OURS: other}


def with_init(data: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """A model spec as data, with the `init` that the config says. What is no range of any use says nothing."""
    nested = config.get("text_config")
    for fields in (config, nested if isinstance(nested, dict) else {}):
        std, other = fields.get(RANGE), fields.get(OURS)
        if isinstance(std, int | float) and not isinstance(std, bool) and math.isfinite(std) and std > 0:
            return {**data, "init": {**(other if isinstance(other, dict) else {}), "std": float(std)}}
    return data

"""How weights start: `initializer_range` of a config <-> `init` of a spec. It changes nothing that an imported model
computes, but a model that is trained from the spec starts so.

A config has one number. The rest of our `init` goes to a field of our own, which transformers keeps and does not read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from miniwin.blocks.init import InitSpec
from miniwin.specs import ModelSpec

RANGE, OURS = "initializer_range", "miniwin_init"


def said_init(spec: ModelSpec) -> dict[str, Any]:
    """The fields of a config that express the `init` of a spec."""
    said: dict[str, Any] = {RANGE: spec.init.std}
    other = spec.init.model_dump(mode="json", exclude={"std"})
    return said if other == InitSpec().model_dump(mode="json", exclude={"std"}) else {**said, OURS: other}


def with_init(data: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """A model spec as data, with the `init` of the config. An initializer_range that is not positive is ignored."""
    nested = config.get("text_config")
    for fields in (config, nested if isinstance(nested, dict) else {}):
        std, other = fields.get(RANGE), fields.get(OURS)
        if isinstance(std, int | float) and not isinstance(std, bool) and math.isfinite(std) and std > 0:
            return {**data, "init": {**(other if isinstance(other, dict) else {}), "std": float(std)}}
    return data

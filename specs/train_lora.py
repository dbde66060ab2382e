"""`lora` in a train spec: small adapters are trained in place of the weights, which stay as they are.

The fields have the names that peft's LoraConfig gives them. How they are used: miniwin/training/adapters.py.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from miniwin.specs.base import PositiveInt, PositiveReal, Real, Strict


def _some_once(patterns: tuple[str, ...]) -> tuple[str, ...]:
    if not patterns or len(set(patterns)) < len(patterns):
        raise ValueError(f"got {list(patterns)}; expected one pattern or more, each once")
    return patterns


class LoraSpec(Strict):
    """LoRA (arXiv:2106.09685), or DoRA (arXiv:2402.09353) with `use_dora`."""

    r: PositiveInt = 8  # the rank
    lora_alpha: PositiveReal = 16.0  # what the adapter adds is scaled by lora_alpha / r
    lora_dropout: Annotated[Real, Field(ge=0, lt=1)] = 0.0  # of the adapter's input
    # globs over the names of linear maps, or over the ends of these names: q_proj, layers.*.mlp.*
    # null: all linear maps of attention and of MLPs
    target_modules: Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_some_once)] | None = None
    use_dora: bool = False

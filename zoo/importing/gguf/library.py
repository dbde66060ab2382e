"""The `gguf` package of llama.cpp, an extra: the types of tensors and their block sizes, quantising and back."""

from __future__ import annotations

from functools import cache
from typing import Any

from miniwin.specs.base import UserError


def library() -> Any:
    """The package. Raises UserError where it is not installed."""
    try:
        import gguf
    except ImportError:
        raise UserError("GGUF needs the package gguf, which is not installed: pip install 'miniwin[gguf]'") from None
    return gguf


@cache
def readable_kinds() -> dict[int, tuple[str, int, int]]:
    """The types of tensors that can be read, by number: name, values in a block, bytes of a block."""
    import numpy as np

    gguf = library()
    found = {}
    for kind, (values, size) in gguf.GGML_QUANT_SIZES.items():
        try:
            gguf.dequantize(np.zeros((1, size), dtype=np.uint8), kind)
        except NotImplementedError:  # integers, and what is only ever a step in a calculation
            continue
        found[int(kind)] = (str(kind.name), int(values), int(size))
    return found

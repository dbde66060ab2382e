"""The numbers of a tensor, as float32, in pieces: the memory holds one piece, never the tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from miniwin.specs.base import UserError
from miniwin.zoo.importing.gguf.header import TensorInfo
from miniwin.zoo.importing.gguf.library import library, readable_kinds

PIECE = 1 << 22  # numbers; a row is never cut
PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # types that are not quantised


def dtype_of(info: TensorInfo) -> torch.dtype:
    """The type that keeps every number of the tensor: float32 for a quantised one."""
    return PLAIN.get(kind_name(info), torch.float32)


def kind_name(info: TensorInfo) -> str:
    """`Q4_1` of llama.cpp."""
    return readable_kinds()[info.kind][0]


def pieces(info: TensorInfo, first: int = 0, rows: int | None = None) -> Iterator[Tensor]:
    """Rows of the tensor in order, as float32, (n, row) each. first, rows: where the tensor is seen as (all rows, row).

    Raises:
        UserError: the file cannot be read, or ends before the tensor does.
    """
    gguf = library()
    _, values, size = readable_kinds()[info.kind]
    width = info.shape[-1]
    stride = width // values * size
    rows = math.prod(info.shape[:-1]) if rows is None else rows
    kind, step = gguf.GGMLQuantizationType(info.kind), max(1, PIECE // width)
    try:
        with info.path.open("rb", buffering=0) as file, np.errstate(all="ignore"):
            file.seek(info.offset + first * stride)
            for at in range(0, rows, step):
                count = min(step, rows - at)
                raw = file.read(count * stride)
                if raw is None or len(raw) != count * stride:
                    raise UserError(f"{info.path}: the file ends within {info.name}; fetch it again")
                blocks = np.frombuffer(bytearray(raw), dtype=np.uint8).reshape(count, stride)
                yield torch.from_numpy(np.ascontiguousarray(gguf.dequantize(blocks, kind), dtype=np.float32))
    except OSError as error:
        raise UserError(f"{info.path}: cannot be read: {error.strerror or error}") from None


def whole(info: TensorInfo, first: int = 0, rows: int | None = None) -> Tensor:
    """The same rows as one tensor, (rows, row)."""
    rows = math.prod(info.shape[:-1]) if rows is None else rows
    found, at = torch.empty((rows, info.shape[-1]), dtype=torch.float32), 0
    for piece in pieces(info, first, rows):
        found[at : at + len(piece)] = piece
        at += len(piece)
    return found

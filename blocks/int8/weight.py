"""A weight matrix in int8, as a tensor: a quarter of the memory, for faster decoding on a CPU.

    y = (x W8^T) * scale,   scale_o = max_i |W_oi| / 127, rounded to bfloat16 before W8 is computed

Reading the weights takes most of the time of decoding a token, so a quarter of the bytes takes little more than a
quarter of the time. A few tokens use the C kernel, which rounds nothing but W. Without this kernel they use torch's, on
activations rounded to bfloat16. Many tokens (a prefill) use weights widened once per call, which costs little beside
the product itself. Each row of the matrix has one scale, as in LLM.int8()'s vector-wise weights (Dettmers et al., arXiv
2208.07339), without its outliers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map_only

from miniwin.blocks.int8.rows import LARGEST
from miniwin.blocks.native import rows, step

TILE = (32, 64)  # rows and columns are padded with zeros to whole tiles: torch's kernel reads them unchecked
FEW = 16  # the most rows for which the int8 kernel is faster than widening the weights


def in_eight_bits(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Some rows of a matrix: (O, I) -> values (O, I) int8, scale (O,) bfloat16."""
    rows = rows.float()
    scale = (rows.abs().amax(1) / LARGEST).to(torch.bfloat16)
    steps = rows / scale.float().clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(1)
    return steps.round_().clamp_(-LARGEST, LARGEST).to(torch.int8), scale


class Int8Weight(Tensor):
    """A matrix (O, I) of `dtype`, stored as int8 with a scale for each row. For inference only."""

    values8: Tensor  # (O, I) int8, both padded to whole tiles
    scale: Tensor  # (O,) bfloat16, padded
    size8: tuple[int, int]  # (O, I) without padding

    @staticmethod
    def __new__(cls, values8: Tensor, scale: Tensor, size: tuple[int, int], dtype: torch.dtype) -> Int8Weight:
        made: Any = Tensor._make_wrapper_subclass(cls, size, dtype=dtype, device=values8.device)  # type: ignore[attr-defined]
        return made  # type: ignore[no-any-return]

    def __init__(self, values8: Tensor, scale: Tensor, size: tuple[int, int], dtype: torch.dtype) -> None:
        self.values8, self.scale, self.size8 = values8, scale, size

    @classmethod
    def of(cls, weight: Tensor) -> Int8Weight:
        return cls.stored(*in_eight_bits(weight.detach()), weight.dtype)

    @classmethod
    def stored(cls, values8: Tensor, scale: Tensor, dtype: torch.dtype) -> Int8Weight:
        """The matrix of values (O, I) and scales (O,) as `in_eight_bits` gives them. They are copied."""
        size = (values8.shape[0], values8.shape[1])
        more = [-n % tile for n, tile in zip(size, TILE, strict=True)]
        # Pad copies, also by nothing. Torch's kernel crashes on memory of a file, which begins at any address.
        return cls(F.pad(values8, (0, more[1], 0, more[0])), F.pad(scale, (0, more[0])), size, dtype)

    def of_dtype(self, dtype: torch.dtype) -> Int8Weight:
        """The same integers as a matrix of another type."""
        return type(self)(self.values8, self.scale, self.size8, dtype)

    def wide(self) -> Tensor:
        rows, columns = self.size8
        return (self.values8[:rows, :columns].float() * self.scale[:rows].float().unsqueeze(1)).to(self.dtype)

    def share_memory_(self) -> Int8Weight:
        for held in (self.values8, self.scale):
            held.share_memory_()
        return self

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Int8Weight(shape={tuple(self.shape)}, dtype={self.dtype})"

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.linear:
            return _linear(*args, **kwargs)
        if func is F.embedding and isinstance(args[1], cls):
            ids, weight = args[:2]
            vectors = weight.values8[ids][..., : weight.size8[1]]
            return (vectors.float() * weight.scale[ids].float().unsqueeze(-1)).to(weight.dtype)
        with torch._C.DisableTorchFunctionSubclass():  # results are ordinary tensors
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Other operators see a widened copy of the matrix. An operator that would write into the copy is refused."""
        if func in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            return cls(args[0].values8, args[0].scale, args[0].size8, args[0].dtype)
        if func is torch.ops.aten.clone.default:
            return cls(args[0].values8.clone(), args[0].scale.clone(), args[0].size8, args[0].dtype)
        if any(isinstance(t, cls) for t in _written(func, args, kwargs or {})):
            raise TypeError(f"{func}: got a matrix in eight bits to write into; change or load weights before quantize")
        args, kwargs = tree_map_only(cls, cls.wide, (args, kwargs or {}))
        return func(*args, **kwargs)


def _written(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """The tensors among an operator's arguments that the operator writes into."""
    places = [place for place in func._schema.arguments if place.alias_info is not None and place.alias_info.is_write]
    names = [place.name for place in func._schema.arguments]
    found = [args[i] if (i := names.index(place.name)) < len(args) else kwargs.get(place.name) for place in places]
    return tree_leaves(found)


def _linear(x: Tensor, weight: Int8Weight, bias: Tensor | None = None) -> Tensor:
    recorded = x.requires_grad and torch.is_grad_enabled()  # the kernels record no gradient
    if x.numel() // x.shape[-1] > FEW or x.dtype == torch.float64 or recorded:
        return F.linear(x, weight.wide().to(x.dtype), bias)
    outs, columns = weight.size8
    given, width = x.reshape(-1, columns), weight.values8.shape[1]
    if columns < width:
        given = F.pad(given, (0, width - columns))
    if rows.fit(width, given):
        out = step.few_product(given.contiguous(), weight.values8, weight.scale, outs)
    else:
        narrow = given.to(torch.bfloat16).contiguous()
        out = torch._weight_int8pack_mm(narrow, weight.values8, weight.scale)[:, :outs]
    out = out.to(x.dtype).view(*x.shape[:-1], outs)
    return out if bias is None else out + bias

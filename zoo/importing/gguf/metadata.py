"""The metadata of an architecture: fields such as `llama.block_count`, by name and type, and which of them were read.

A field that nobody reads changes what llama.cpp computes in a way that is not honoured here. So `finish` refuses it,
unless it is off, or known to change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from miniwin.specs.base import UserError
from miniwin.zoo.importing.gguf.header import TensorInfo, said

# They change nothing that is computed, or say what the tensors say too.
HARMLESS = {"vocab_size", "tensor_data_layout", "use_parallel_residual", "embedding_length_out"}
HARMLESS |= {"attention.causal", "rope.scaling.finetuned", "expert_weights_norm"}
ON = {"attention.causal": True, "expert_weights_norm": True}  # what they must say where they are there


class Metadata:
    """The fields of one architecture. Each method raises UserError for a value of another type.

    values: all metadata. tensors: those of all shards. table: reads the one row of a small tensor, (n,). Fields are
    named without the architecture before them.
    """

    def __init__(
        self,
        where: str,
        architecture: str,
        values: Mapping[str, Any],
        tensors: Mapping[str, TensorInfo],
        table: Callable[[str], Tensor],
    ) -> None:
        self.where, self.architecture, self.table = where, architecture, table
        self.values, self.tensors = values, tensors
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return f"{self.architecture}.{name}" in self.values

    def refuse(self, name: str, why: str) -> UserError:
        key = f"{self.architecture}.{name}"
        got = f"got {said(self.values[key])}" if key in self.values else "missing"
        return UserError(f"{self.where}: metadata {key}: {got}; {why}")

    def raw(self, name: str, default: Any = None) -> Any:
        """The value as it stands. An array with the same value for every layer is that value."""
        self._read.add(name)
        value = self.values.get(f"{self.architecture}.{name}", default)
        if isinstance(value, list) and value and all(one == value[0] for one in value):
            return value[0]
        return value

    def array(self, name: str) -> list[Any] | None:
        """The array as it stands; None where there is none."""
        self._read.add(name)
        value = self.values.get(f"{self.architecture}.{name}")
        return value if isinstance(value, list) else None

    def count(self, name: str, default: int | None = None) -> int:
        value = self.raw(name, default)
        if isinstance(value, list):
            raise self.refuse(name, "layers differ, which this family cannot say")
        if type(value) is not int or not 1 <= value <= 2**40:
            raise self.refuse(name, "expected a positive whole number")
        return value

    def real(self, name: str, default: float | None = None) -> float:
        value = self.raw(name, default)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise self.refuse(name, "expected a number")
        return float(value)

    def text(self, name: str, default: str) -> str:
        value = self.raw(name, default)
        if not isinstance(value, str):
            raise self.refuse(name, "expected text")
        return value

    def shape(self, tensor: str) -> tuple[int, ...]:
        """The shape of a tensor that every file of the architecture has."""
        if tensor not in self.tensors:
            raise UserError(f"{self.where}: there is no tensor {tensor}, which every {self.architecture} model has")
        return self.tensors[tensor].shape

    def finish(self) -> None:
        """Refuse the fields that nobody read, unless they are off or harmless."""
        prefix = f"{self.architecture}."
        for key, value in self.values.items():
            name = key.removeprefix(prefix)
            if not key.startswith(prefix) or name in self._read:
                continue
            if name in HARMLESS and value == ON.get(name, value):
                continue
            if value not in (0, False, "", []):
                raise self.refuse(name, "it is not known here, and may change what the model computes")

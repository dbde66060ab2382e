"""A foreign model, opened for reading: its config, the names, shapes and types of its tensors, and its tokenizer.

Everything about the file is checked before any tensor is read, and nothing in it is ever executed. Tensors are read one
at a time from a memory-mapped file, so that a model is never in memory as a whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from miniwin.specs.base import UserError


class Source(ABC):
    """What an importer reads from.

    config: config.json of a Hugging Face folder; {} for a checkpoint file. generation: likewise generation_config.json.
    chat_template, special_tokens: how chats are written, and the tokens that a template names (bos_token and the like).
    shapes, dtypes: of every tensor, in the order of the file. files: all files that make the model, by the name in
    messages, for their hashes. notes: what a person should know about how the source was read.
    """

    kind: Literal["hf", "pth"]

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config: dict[str, Any] = {}
        self.generation: dict[str, Any] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        self.tokenizer: Path | None = None
        self.chat_template: str | None = None
        self.special_tokens: dict[str, str] = {}
        self.files: dict[str, Path] = {}
        self.notes: list[str] = []

    @abstractmethod
    def _read(self, name: str) -> Tensor:
        """The tensor, on the CPU; memory-mapped where that is possible."""

    def where(self, name: str) -> str:
        """The file that holds a tensor, for messages."""
        return self.path.name

    def tensor(self, name: str, finite: bool = True) -> Tensor:
        """One tensor. `finite`: refuse NaN and infinity in it.

        Raises:
            UserError: there is no such tensor, it does not hold floating-point numbers, or one of them is not finite.
        """
        if name not in self.shapes:
            raise UserError(f"{self.where(name)}: there is no tensor {name}")
        if not self.dtypes[name].is_floating_point or self.dtypes[name].itemsize < 2:
            raise UserError(
                f"{self.where(name)}: {name} has type {short(self.dtypes[name])}; expected float32, bfloat16, float16 "
                "or float64. Quantised weights cannot be imported: convert them to one of these first"
            )
        tensor = self._read(name)
        if finite and not bool(torch.isfinite(tensor).all()):
            wrong = int((~torch.isfinite(tensor)).sum())
            raise UserError(
                f"{self.where(name)}: {name} holds {wrong} NaN or infinite "
                f"value{'s' if wrong > 1 else ''} of {tensor.numel()}; the weights are damaged, or training diverged"
            )
        return tensor

    @property
    def elements(self) -> int:
        """How many numbers all tensors hold together."""
        return sum(size(shape) for shape in self.shapes.values())


def size(shape: tuple[int, ...]) -> int:
    """How many numbers a tensor of this shape holds."""
    count = 1
    for dimension in shape:
        count *= dimension
    return count


def short(dtype: torch.dtype) -> str:
    """`bfloat16` of torch.bfloat16."""
    return str(dtype).removeprefix("torch.")

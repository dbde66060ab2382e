"""A foreign model, opened for reading: its config, the names, shapes and types of its tensors, and its tokenizer.

Everything about the file is checked before any tensor is read, and nothing in it is ever executed. Tensors are read one
at a time from a memory-mapped file, so that a model is never in memory as a whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from miniwin.specs.base import UserError


class Source(ABC):
    """What an importer reads from.

    config: config.json of a Hugging Face folder, or what says the same; {} for a checkpoint file. generation: likewise
    generation_config.json. chat_template, special_tokens: how chats are written, and the tokens that a template names
    (bos_token and the like). shapes, dtypes: of every tensor, in the order of the file. files: all files that make the
    model, by the name in messages, for their hashes. quantization: how many tensors of each type a file has that may
    hold quantised ones. licence: as the files say it. notes: what a person should know about how the source was read.
    """

    kind: Literal["hf", "pth", "gguf"]

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
        self.quantization: dict[str, int] = {}
        self.licence: str | None = None
        self.notes: list[str] = []

    @abstractmethod
    def _read(self, name: str) -> Tensor:
        """The tensor, on the CPU; memory-mapped where that is possible."""

    def _pieces(self, name: str) -> Iterator[Tensor]:
        """The numbers of the tensor in order, in as many pieces as the source likes."""
        yield self._read(name)

    def where(self, name: str) -> str:
        """The file that holds a tensor, for messages."""
        return self.path.name

    @property
    def stem(self) -> str:
        """What the model is called where nobody says it."""
        return self.path.absolute().stem

    @property
    def described(self) -> Path:
        """The file that has the config, for messages."""
        return self.path

    def tokenizer_json(self) -> tuple[Path, bytes] | None:
        """The tokenizer.json of the source, and the file that it comes from; None where there is none."""
        return None if self.tokenizer is None else (self.tokenizer, self.tokenizer.read_bytes())

    def tensor(self, name: str) -> Tensor:
        """One tensor.

        Raises:
            UserError: there is no such tensor, it does not hold floating-point numbers, or one of them is not finite.
        """
        self._known(name)
        return self._finite(name, self._read(name))

    def pieces(self, name: str) -> Iterator[Tensor]:
        """The numbers of one tensor in order, in pieces, so that a large tensor need not be in memory.

        Raises:
            UserError: as `tensor` does.
        """
        self._known(name)
        return (self._finite(name, piece) for piece in self._pieces(name))

    def _known(self, name: str) -> None:
        if name not in self.shapes:
            raise UserError(f"{self.where(name)}: there is no tensor {name}")
        if not self.dtypes[name].is_floating_point or self.dtypes[name].itemsize < 2:
            raise UserError(
                f"{self.where(name)}: {name} has type {short(self.dtypes[name])}; expected float32, bfloat16, float16 "
                "or float64. Quantised weights cannot be imported: convert them to one of these first"
            )

    def _finite(self, name: str, tensor: Tensor) -> Tensor:
        if not bool(torch.isfinite(tensor).all()):
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

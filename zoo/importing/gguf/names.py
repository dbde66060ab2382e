"""The tensors of a file under Hugging Face's names, with what llama.cpp changed in their values undone.

The `gguf` package knows what llama.cpp calls each module of a Hugging Face model. An architecture says which modules
its models have. llama.cpp changes some values when it makes a file:

    permuted      rows of q and k in each head, so that rotated pairs are neighbours
    plus one      Gemma's norms multiply by 1 + weight; the file has the sum
    transposed    GPT-2's matrices, which Hugging Face keeps input first
    stacked       the matrices of all experts as one tensor
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from miniwin.zoo.importing.gguf.header import TensorInfo
from miniwin.zoo.importing.gguf.library import library
from miniwin.zoo.importing.gguf.tensors import pieces, whole

OLD_EXPERT = re.compile(r"(blk\.\d+\.ffn_(?:gate|up|down))\.(\d+)\.weight")  # before the experts were stacked


@dataclass(frozen=True)
class Change:
    """What llama.cpp changed in a tensor. undo: the values of the file -> Hugging Face's; do: the inverse."""

    undo: Callable[[Tensor], Tensor]
    do: Callable[[Tensor], Tensor]


def permuted(heads: int) -> Change:
    """Rows (or biases) of `heads` heads: halves of each head -> neighbours."""

    def undo(tensor: Tensor) -> Tensor:
        return tensor.reshape(heads, -1, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)

    def do(tensor: Tensor) -> Tensor:
        return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)

    return Change(undo, do)


def by_head(heads: int) -> Change:
    """GPT-NeoX: q, k and v of each head, head by head -> all of q, all of k, all of v."""

    def undo(tensor: Tensor) -> Tensor:
        return tensor.reshape(3, heads, -1, *tensor.shape[1:]).transpose(0, 1).reshape(tensor.shape)

    def do(tensor: Tensor) -> Tensor:
        return tensor.reshape(heads, 3, -1, *tensor.shape[1:]).transpose(0, 1).reshape(tensor.shape)

    return Change(undo, do)


PLUS_ONE = Change(lambda tensor: tensor - 1, lambda tensor: tensor + 1)
TRANSPOSED = Change(lambda tensor: tensor.t(), lambda tensor: tensor.t())


@dataclass(frozen=True)
class View:
    """Rows of a tensor of a file, or all of it, as Hugging Face has it."""

    info: TensorInfo
    shape: tuple[int, ...]
    first: int = 0
    change: Change | None = None

    @property
    def rows(self) -> int:
        count = 1
        for size in self.info.shape[:-1] if len(self.shape) == len(self.info.shape) else self.shape[:-1]:
            count *= size
        return count

    def whole(self) -> Tensor:
        plain = whole(self.info, self.first, self.rows)
        if self.change is None:
            return plain.reshape(self.shape)
        kept = self.info.shape if len(self.shape) == len(self.info.shape) else self.shape
        return self.change.undo(plain.reshape(kept))

    def pieces(self) -> Iterator[Tensor]:
        """The numbers in order, a part of them at a time where nothing has to be undone."""
        if self.change is None:
            yield from pieces(self.info, self.first, self.rows)
        else:
            yield self.whole()


def known_names(
    architecture: str, layers: int, stack: str, layer: tuple[str, ...], outer: tuple[str, ...]
) -> dict[str, str]:
    """The modules of a model by their names in a file -> by their names in Hugging Face's models.

    stack: what comes before the number of a layer. layer, outer: the modules of each layer, and the others.
    """
    gguf = library()
    numbers = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    table = gguf.get_tensor_name_map(numbers[architecture], layers)
    modules = [*outer, *(f"{stack}.{i}.{module}" for i in range(layers) for module in layer)]
    named = {table.get_name(module): module for module in modules}
    return {name: module for name, module in named.items() if name is not None}


def split_name(name: str) -> tuple[str, str]:
    """blk.0.attn_q and .weight of blk.0.attn_q.weight."""
    module, dot, kind = name.rpartition(".")
    return (module, f"{dot}{kind}") if kind in ("weight", "bias") else (name, "")


def views(
    tensors: Mapping[str, TensorInfo],
    names: Mapping[str, str],
    experts: Mapping[str, str],
    change: Callable[[str], Change | None],
) -> dict[str, View]:
    """The tensors by Hugging Face's names. A tensor that nobody knows keeps its own name.

    experts: for a stacked module, by the end of its name, the name of an expert's: {} stands for the expert's number.
    change: what llama.cpp changed in the tensor of this name of Hugging Face's.
    """
    found: dict[str, View] = {}
    for name, info in tensors.items():
        if old := OLD_EXPERT.fullmatch(name):
            stacked = names.get(f"{old[1]}_exps", "")
            single = _single(stacked, experts)
            found[name if single is None else f"{single.format(int(old[2]))}.weight"] = View(info, info.shape)
            continue
        module, kind = split_name(name)
        theirs = names.get(module)
        single = None if theirs is None else _single(theirs, experts)
        if theirs is None:
            found[name] = View(info, info.shape)
        elif single is None or len(info.shape) != 3:
            alone = f"{theirs}{kind}"
            undone = change(alone)
            shape = info.shape[::-1] if undone is TRANSPOSED else info.shape
            found[alone] = View(info, shape, 0, undone)
        else:
            count, rows, width = info.shape
            for i in range(count):
                found[f"{single.format(i)}{kind}"] = View(info, (rows, width), i * rows)
    return found


def _single(stacked: str, experts: Mapping[str, str]) -> str | None:
    """The name of one expert's module, {} for its number; None where the module is not stacked."""
    for end, single in experts.items():
        if stacked.endswith(f".{end}"):
            return stacked.removesuffix(end).replace("{", "{{").replace("}", "}}") + single
    return None

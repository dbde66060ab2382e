"""Which tensors of a source make which of ours: compared before a tensor is read, then written one rule at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from miniwin.blocks.messages.listing import some
from miniwin.quantize import matrices
from miniwin.specs import ModelSpec, UserError
from miniwin.weights import SCALE
from miniwin.zoo.importing.family import DERIVED, Family, Rule, fitting, unchanged
from miniwin.zoo.importing.source import Source, short, size
from miniwin.zoo.importing.writing import TensorFile

# Called with the name of a step, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


class Plan:
    """Which of their tensors make which of ours. Names and shapes are checked before a tensor is read."""

    def __init__(self, family: Family, spec: ModelSpec, source: Source) -> None:
        with torch.device("meta"):
            decoder = spec.build()
        self._ours: dict[str, Tensor] = decoder.state_dict()
        self._matrices = {f"{name}.weight" for name, _ in matrices(decoder)}
        self._source = source
        self._rules = fitting(family.rules(spec), source.shapes)
        named = [name for rule in self._rules for name in rule.ours]
        assert sorted(named) == sorted(self._ours), set(named) ^ set(self._ours)
        used = [name for rule in self._rules for name in rule.theirs]
        assert len(used) == len(set(used)), [name for name, count in Counter(used).items() if count > 1]
        self._used = used
        copies = {name for rule in self._rules for name in rule.copies}
        others = [name for name in source.shapes if name.startswith(getattr(family, "other_parts", ()))]
        if others:
            parts = f"{len(others)} tensors of parts other than the language model"
            source.notes.append(f"{parts} are left out: {some(others)}")
        left = {*copies, *others}
        self.ignored = [name for name in source.shapes if name not in used and (name in left or self._derived(name))]
        self._complete()
        for rule in self._rules:
            self._fits(rule)

    def common_dtype(self) -> torch.dtype:
        """The type that most of the weights have."""
        counts: Counter[torch.dtype] = Counter()
        for name in self._used:
            counts[self._source.dtypes[name]] += size(self._source.shapes[name])
        dtype = counts.most_common(1)[0][0]
        return dtype if dtype.is_floating_point and dtype.itemsize > 1 else torch.float32  # refused when it is read

    def converted(self, dtype: torch.dtype) -> dict[str, int]:
        """How many tensors of each other type become `dtype`, by type."""
        return dict(Counter(short(d) for d in (self._source.dtypes[name] for name in self._used) if d != dtype))

    def write(self, path: Path, dtype: torch.dtype, tell: Progress) -> None:
        """Read, convert and write all tensors, one rule at a time."""
        whole, done = sum(size(self._source.shapes[name]) for name in self._used), 0
        with TensorFile(path, self._layout(dtype)) as file:
            for rule in self._rules:
                self._check_copies(rule)
                if rule.read is unchanged:
                    for ours, theirs in zip(rule.ours, rule.theirs, strict=True):
                        self._write(file, ours, self._source.pieces(theirs), dtype)
                else:
                    group = rule.read([self._source.tensor(name) for name in rule.theirs])
                    for name, tensor in zip(rule.ours, group, strict=True):
                        assert tensor.shape == self._ours[name].shape, (name, tuple(tensor.shape))
                        self._write(file, name, iter([tensor]), dtype)
                done += sum(size(self._source.shapes[name]) for name in rule.theirs)
                tell("weights", done, whole)

    def _layout(self, dtype: torch.dtype) -> list[tuple[str, tuple[int, ...], torch.dtype]]:
        """Name, shape and type of every tensor of the file."""
        found = []
        for name in (name for rule in self._rules for name in rule.ours):
            shape = tuple(self._ours[name].shape)
            if dtype == torch.int8 and name in self._matrices:
                found += [(name, shape, dtype), (name + SCALE, shape[:1], torch.bfloat16)]
            else:
                found.append((name, shape, _plain(dtype)))
        return found

    def _write(self, file: TensorFile, name: str, pieces: Iterator[Tensor], dtype: torch.dtype) -> None:
        plain = (self._converted(name, piece, _plain(dtype)) for piece in pieces)
        if dtype == torch.int8 and name in self._matrices:
            file.write_in_eight_bits(name, plain)
        else:
            file.write_pieces(name, plain)

    def _converted(self, name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        new = tensor.to(dtype)
        if new.dtype != tensor.dtype and not bool(torch.isfinite(new).all()):
            raise UserError(f"--dtype {short(dtype)}: {name} holds values that are too large for it; use float32")
        return new

    def _check_copies(self, rule: Rule) -> None:
        for name in rule.copies:
            if name in self._source.shapes and not torch.equal(*map(self._source.tensor, (name, rule.theirs[0]))):
                raise UserError(
                    f"{self._source.where(name)}: {name} differs from {rule.theirs[0]}, and tie_word_embeddings says "
                    "that they are equal; set it to false if they are not"
                )

    def _derived(self, name: str) -> bool:
        """Whether a name is of a buffer without weights: a rotary table, or the causal mask (1, 1, n, n) of a GPT."""
        if DERIVED.search(name) or name.endswith(("attention.masked_bias", "attn.masked_bias")):
            return True
        shape = self._source.shapes[name]
        return (
            name.endswith(("attention.bias", ".attn.bias"))
            and len(shape) == 4
            and shape[:2] == (1, 1)
            and shape[2] == shape[3]
        )

    def _complete(self) -> None:
        missing = [name for name in self._used if name not in self._source.shapes]
        expected = {*self._used, *self.ignored}
        surplus = [name for name in self._source.shapes if name not in expected]
        problems = [
            f"{some(missing)} missing" if missing else "",
            f"{some(surplus)} not of the model that {self._description} describes" if surplus else "",
        ]
        if missing or surplus:
            raise UserError(f"{self._source.path}: {'; '.join(filter(None, problems))}")

    def _fits(self, rule: Rule) -> None:
        """Compare the shapes of their tensors with those that the inverse of the rule gives."""
        expected = rule.write([self._ours[name] for name in rule.ours])
        for name, tensor in zip(rule.theirs, expected, strict=True):
            got = self._source.shapes[name]
            if got != tuple(tensor.shape):
                raise UserError(
                    f"{self._source.where(name)}: {name} has shape {got}; expected {tuple(tensor.shape)} of the model "
                    f"that {self._description} describes"
                )

    @property
    def _description(self) -> str:
        return {"hf": "config.json", "gguf": "its metadata", "pth": "the settings"}[self._source.kind]


def _plain(dtype: torch.dtype) -> torch.dtype:
    """The type of what is no matrix."""
    return torch.float32 if dtype == torch.int8 else dtype

"""Weights in fewer bytes: a run's folder once more, for a while, with its weights rounded.

What is measured there is measured with the weights that an entry will have.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from miniwin.files.tensor_files import load_tensors, save_tensors
from miniwin.runs import BEST, CHAT, MODEL, RUN
from miniwin.weights import DTYPES
from miniwin.zoo.entry import MANIFEST, TOKENIZER, WEIGHTS
from miniwin.zoo.errors import ZooError


@contextmanager
def rounded(source: Path, dtype: str | None) -> Iterator[Path]:
    """A source for `add` whose weights are of this type; with None, the source itself.

    source: a run folder, or its best.safetensors, with weights that `check_addable` takes. dtype: float32, bfloat16 or
    float16. The folder is gone when the block ends.

    Raises:
        ZooError: the type is not one of these, the source is an entry, or a weight is too large for the type.
    """
    if dtype is None:
        yield source
        return
    if dtype not in DTYPES:
        raise ZooError(f"--dtype: expected {', '.join(DTYPES)}, got {dtype!r}")
    folder, name = (source.parent, BEST) if source.name == BEST else (source, WEIGHTS)
    if (folder / MANIFEST).is_file():
        raise ZooError(f"{folder}: an entry keeps its weights under a new card; round those of the run that it is from")
    with tempfile.TemporaryDirectory(prefix="miniwin-rounded-") as made:
        copy = Path(made) / folder.resolve().name
        copy.mkdir()
        for file in (RUN, MODEL, TOKENIZER, *CHAT, name):
            if (folder / file).is_file():  # what is missing is said by `add`
                shutil.copyfile(folder / file, copy / file)
        if (copy / name).is_file():
            _round(copy / name, dtype, folder / name)
        yield copy / BEST if name == BEST else copy


def stored_types(weights: Path) -> str:
    """The types of the tensors in a file, as a card names them: `bfloat16`."""
    return ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in load_tensors(weights).values()}))


def _round(path: Path, dtype: str, source: Path) -> None:
    """Round a file of weights. source: the file that it is a copy of, for the message."""
    tensors = {}
    for name, tensor in load_tensors(path).items():
        tensors[name] = tensor.to(DTYPES[dtype])
        if (tensors[name].isinf() & tensor.isfinite()).any():
            raise ZooError(
                f"tensor {name} of {source} is too large for {dtype}: it holds {tensor.abs().max():.6g}, and the "
                f"largest {dtype} is {torch.finfo(DTYPES[dtype]).max:.6g}; choose another --dtype, or leave it out"
            )
    path.unlink()
    save_tensors(tensors, path, {"format": "pt"})

"""A PyTorch checkpoint file (`.pth`, `.pt`, `.bin`), read without running anything that is in it.

Such a file is a zip archive with a pickle, and a pickle is a program. Only `torch.load(weights_only=True)` reads it:
that reader builds tensors and plain containers, and refuses the rest. The result must be one flat dictionary of
tensors, alone or under `model` or `state_dict`. Tensors stay memory-mapped.

The zip directory is checked first. A compressed archive is refused: it could unpack to more than the memory holds, and
torch writes none. A tensor may be a view, but not one of more numbers than its file holds (a stride of 0).
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from miniwin.blocks.messages.listing import some
from miniwin.specs.base import UserError
from miniwin.specs.yaml_scalars import shown
from miniwin.zoo.importing.source import Source

WRAPPERS = ("model", "state_dict")  # where training scripts put the weights
PREFIXES = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before every name
EXPECTED = "expected a flat dictionary of tensors, such as torch.save(model.state_dict(), file) writes"


class PthFile(Source):
    kind = "pth"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.files[path.name] = path
        self._tensors = self._plain(self._state(_load(path)))
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}
        self.dtypes = {name: tensor.dtype for name, tensor in self._tensors.items()}

    def _read(self, name: str) -> Tensor:
        return self._tensors[name]

    def _state(self, loaded: Any) -> dict[Any, Any]:
        """The dictionary of weights, without what a training script saved beside it: a step, a generator's state."""
        if isinstance(loaded, dict):
            for key in WRAPPERS:
                if isinstance(loaded.get(key), dict):
                    beside = [str(name) for name, value in loaded.items() if name != key and isinstance(value, Tensor)]
                    left = f"; left out beside it: {some(beside)}" if beside else ""
                    self.notes.append(f"the weights are those under '{key}'{left}")
                    loaded = loaded[key]
                    break
        if not isinstance(loaded, dict):
            raise UserError(f"{self.path}: holds a {type(loaded).__name__}; {EXPECTED}")
        if not loaded:
            raise UserError(f"{self.path}: holds an empty dictionary; {EXPECTED}")
        return loaded

    def _plain(self, state: dict[Any, Any]) -> dict[str, Tensor]:
        """The tensors, each checked. Prefixes that wrappers put before the names are removed."""
        tensors: dict[str, Tensor] = {}
        stripped: set[str] = set()
        for key, value in state.items():
            if not isinstance(key, str) or not isinstance(value, Tensor):
                raise UserError(f"{self.path}: {shown(key)} holds a {type(value).__name__}; {EXPECTED}")
            name = key
            while prefix := next((p for p in PREFIXES if name.startswith(p)), None):
                stripped.add(prefix)
                name = name.removeprefix(prefix)
            if name in tensors:
                raise UserError(f"{self.path}: holds {name} twice, with and without {' or '.join(sorted(stripped))}")
            self._check(name, value)
            tensors[name] = value.detach()
        if stripped:
            self.notes.append(f"{' and '.join(sorted(stripped))} before the names of tensors left out")
        return tensors

    def _check(self, name: str, tensor: Tensor) -> None:
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise UserError(f"{self.path}: {name} is sparse, quantised or without data; expected a plain tensor")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(
                f"{self.path}: {name} has shape {tuple(tensor.shape)}, more than the file holds for it; {EXPECTED}"
            )


def _load(path: Path) -> Any:
    """The content of the file, memory-mapped if it is a zip archive, as torch writes today."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    archive = zipfile.is_zipfile(path)
    try:
        if archive:
            _check_archive(path)
        with warnings.catch_warnings():  # torch's warnings are for people who trust the file
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except UserError:
        raise
    except Exception as error:  # a damaged or hostile file can raise anything
        raise UserError(f"{path}: {_why(error)}") from None


def _why(error: Exception) -> str:
    """The error of torch's reader, in words for the person who has the file."""
    said = " ".join(str(error).split())
    found = re.search(r"GLOBAL ([\w.]+)", said)
    if found or "TorchScript" in said:
        what = f" ({found[1]})" if found else ""
        return (
            f"holds more than tensors: to read it, code in the file would have to run{what}, which is never done. "
            "Where you trust the file, save its weights alone (torch.save(model.state_dict(), file)), or as safetensors"
        )
    if isinstance(error, pickle.UnpicklingError):
        found = re.search(r"(Unsupported operand \d+)", said)
        said = found[1] if found else said
    return (
        f"cannot be read as a PyTorch checkpoint of tensors ({type(error).__name__}: {said[:200]}); the file is "
        "damaged or cut short, or no such file: fetch it again"
    )


def _check_archive(path: Path) -> None:
    """No member of the archive may be compressed, nor be larger than the archive."""
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(f"{path}: a damaged archive ({error}); fetch it again") from None
    whole = path.stat().st_size
    if any(m.compress_type != zipfile.ZIP_STORED for m in members) or sum(m.file_size for m in members) > whole:
        raise UserError(f"{path}: a compressed archive, which torch.save does not write; {EXPECTED}")

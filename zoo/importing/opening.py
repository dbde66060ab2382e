"""Open a foreign model for reading, in any format that can be imported."""

from __future__ import annotations

import os

from miniwin.specs.base import UserError, user_path
from miniwin.zoo.importing.hf_folder import HFFolder
from miniwin.zoo.importing.pth import PthFile
from miniwin.zoo.importing.source import Source

CHECKPOINTS = (".pth", ".pt", ".bin")


def open_source(path: str | os.PathLike[str]) -> Source:
    """Open a Hugging Face folder (config.json and safetensors), a GGUF file, or a checkpoint file (.pth, .pt, .bin).

    Raises:
        UserError: there is no such model, or it cannot be imported.
    """
    path = user_path(path)
    if path.is_dir():
        return HFFolder(path)
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder; expected a Hugging Face folder, .gguf or .pth file")
    if path.suffix.lower() == ".gguf" and path.is_file():
        from miniwin.zoo.importing.gguf.source import GgufFile

        return GgufFile(path)
    if path.suffix == ".safetensors" or path.name == "config.json":
        raise UserError(f"{path}: give the folder that holds config.json and the weights, not one file of it")
    if path.suffix not in CHECKPOINTS or not path.is_file():
        raise UserError(
            f"{path}: not a model that can be imported; expected a Hugging Face folder (config.json and safetensors), "
            f"a GGUF file (.gguf) or a checkpoint file ({', '.join(CHECKPOINTS)})"
        )
    return PthFile(path)

"""Are the weights of an entry those of its spec? Names, shapes and types from the header first, then the numbers."""

from __future__ import annotations

from pathlib import Path

import torch

from miniwin.files.tensor_files import load_tensors
from miniwin.specs import ModelSpec, UserError
from miniwin.weights import promised_weights, wrong_type
from miniwin.zoo.integrity import Problem


def weight_problems(path: Path, spec: ModelSpec) -> list[Problem]:
    """Unreadable weights, tensors that the architecture does not have or lacks, wrong shapes, NaN."""
    try:
        found = promised_weights(path)
    except (UserError, OSError) as error:
        said = str(error).removeprefix(f"{path} ").removeprefix(f"{path}: ")
        return [Problem(path.name, f"is not a safetensors file: {said}")]
    with torch.device("meta"):
        expected = spec.build().state_dict()
    problems = [Problem(path.name, f"tensor {name} is missing") for name in sorted(set(expected) - set(found))]
    problems += [
        Problem(path.name, f"tensor {name} is not part of the architecture")
        for name in sorted(set(found) - set(expected))
    ]
    for name in sorted(set(found) & set(expected)):
        if wrong := wrong_type(found[name], expected[name]):
            problems.append(Problem(path.name, f"tensor {name} {wrong}"))
        elif found[name].shape != expected[name].shape:
            shapes = f"{list(found[name].shape)}, the architecture has {list(expected[name].shape)}"
            problems.append(Problem(path.name, f"tensor {name} has shape {shapes}"))
    if problems:
        return problems  # nothing has been read yet
    return [
        Problem(path.name, f"tensor {name} holds NaN or infinity")
        for name, tensor in sorted(load_tensors(path).items())
        if not torch.isfinite(tensor).all()
    ]

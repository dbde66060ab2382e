"""Weights: the tensors of a file, and a model that takes them over.

A model is built on the meta device, where parameters take no memory, and then given the tensors that were read. So
there is never more than one copy of the weights in memory.

A file may hold matrices in eight bits: `X` (O, I) int8 beside `X_scale` (O,) bfloat16, with W = X * X_scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from miniwin.blocks.int8.weight import Int8Weight
from miniwin.blocks.messages.listing import some
from miniwin.runs import MODEL
from miniwin.specs import UserError

SCALE = "_scale"  # behind the name of a matrix in eight bits: its scales
LONGEST_HEADER = 16 << 20  # bytes; a tensor takes about a hundred
_STORED = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def read_weights(path: Path, device: torch.device, raw: bytes | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file. raw: the bytes of the file, if they have been read already.

    Matrices in eight bits stay so on a CPU; on another device they are widened to float32.

    Raises:
        UserError: the file cannot be read as safetensors, or scales do not fit their matrix.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from miniwin.files.tensor_files import load_tensors

    try:
        if raw is not None:
            return _joined({name: tensor.to(device) for name, tensor in load(raw).items()}, path)
        return _joined(load_tensors(path, str(device)), path)
    except SafetensorError as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}); restore it or train again") from None


def promised_weights(path: Path) -> dict[str, Tensor]:
    """What the header of a safetensors file promises: tensors on the meta device, which take no memory.

    The library checks the header: offsets inside the file and without gaps, and bytes that fit type and shape.

    Raises:
        UserError: the header is damaged, too long, or has types that no weights have.
    """
    from safetensors import SafetensorError, safe_open

    from miniwin.files.tensor_files import readable

    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    size = path.stat().st_size
    if length > min(LONGEST_HEADER, size):
        least = f"the file has {size:,} bytes" if length > size else f"at most {LONGEST_HEADER:,} are read"
        raise UserError(f"{path} cannot be read as safetensors: its header would be {length:,} bytes long, and {least}")
    try:
        with readable(path) as name, safe_open(name, framework="pt") as opened:
            told = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118  # it is no mapping
            shapes = {key: (one.get_dtype(), one.get_shape()) for key, one in told.items()}
        if unknown := sorted({dtype for dtype, _ in shapes.values()} - set(_STORED)):
            raise UserError(f"{path}: holds numbers of type {some(unknown, 3)}; expected {', '.join(_STORED)}")
        tensors = {
            key: torch.empty(shape, dtype=_STORED[dtype], device="meta") for key, (dtype, shape) in shapes.items()
        }
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}); restore it or train again") from None
    for key in [key for key, tensor in tensors.items() if tensor.dtype == torch.int8 and key + SCALE in tensors]:
        scale = tensors.pop(key + SCALE)
        _check_scale(tensors[key], scale, key, path)
        tensors[key] = torch.empty(tensors[key].shape, device="meta")
    return tensors


def _joined(tensors: dict[str, Tensor], where: Path) -> dict[str, Tensor]:
    """The tensors, with one for the two parts of each matrix in eight bits."""
    for name in [name for name, tensor in tensors.items() if tensor.dtype == torch.int8 and name + SCALE in tensors]:
        values, scale = tensors[name], tensors.pop(name + SCALE)
        _check_scale(values, scale, name, where)
        matrix = Int8Weight.stored(values, scale, torch.float32)
        tensors[name] = matrix if matrix.device.type == "cpu" else matrix.wide()
    return tensors


def _check_scale(values: Tensor, scale: Tensor, name: str, where: Path) -> None:
    if values.dim() != 2 or scale.dtype != torch.bfloat16 or scale.shape != values.shape[:1]:
        raise UserError(
            f"{where}: {name + SCALE} is {_type(scale)} {tuple(scale.shape)} beside a matrix {tuple(values.shape)} "
            "in int8; expected a scale for each row, in bfloat16; is the file damaged?"
        )


def wide(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with those in eight bits widened."""
    return {name: one.wide() if isinstance(one, Int8Weight) else one for name, one in tensors.items()}


def put_weights(model: nn.Module, tensors: dict[str, Tensor], where: Path) -> None:
    """Give `model` (built on the meta device) these tensors. With matrices in eight bits it is for inference only.

    Raises:
        UserError: their names, shapes or types are not those of the model. where: the file, for the message.
    """
    check_weights(model, tensors, where)
    model.load_state_dict(tensors, assign=True)
    if any(isinstance(tensor, Int8Weight) for tensor in tensors.values()):
        model.requires_grad_(False)


def check_weights(model: nn.Module, tensors: Mapping[str, Tensor], where: Path) -> None:
    """Raise UserError where names, shapes or types are not those of the model. where: the file, for the message."""
    expected = model.state_dict()
    missing = [name for name in expected if name not in tensors]
    surplus = [name for name in tensors if name not in expected]
    if missing or surplus:
        problems = [
            f"{some(missing, 3)} missing" if missing else "",
            f"{some(surplus, 3)} not of this model" if surplus else "",
        ]
        raise UserError(
            f"{where} does not hold the weights of the {MODEL} beside it: "
            f"{', '.join(filter(None, problems))}; spec and weights must come from the same run"
        )
    for name, tensor in expected.items():
        if wrong := wrong_type(tensors[name], tensor):
            raise UserError(f"{where}: {name} {wrong}; is the file damaged?")
        if tensors[name].shape != tensor.shape:
            raise UserError(
                f"{where}: {name} has shape {tuple(tensors[name].shape)}, and the {MODEL} beside it "
                f"describes {tuple(tensor.shape)}; spec and weights must come from the same run"
            )


def wrong_type(tensor: Tensor, expected: Tensor) -> str | None:
    """Why the type of a tensor from a file does not fit the model's tensor `expected`; None if it fits."""
    allowed = [*DTYPES, "float64"] if expected.is_floating_point() else [_type(expected)]
    return None if _type(tensor) in allowed else f"holds {_type(tensor)}; expected {' or '.join(allowed)}"


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")

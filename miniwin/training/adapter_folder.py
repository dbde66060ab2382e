"""An adapter's own folder, as peft writes one, and what it says of its base: the model that it is an adapter for.

    adapter_config.json          peft's LoraConfig
    adapter_model.safetensors    A, B (and m) of each adapted map, under peft's names
    base.json                    {"format": 1, "model": NAME, "spec_hash": ..., "weights": SHA-256 of all its tensors}

An adapter fits the weights that it was trained around and no others, even of the same shapes. So it is put on a model
only if the hashes are equal. The hash of tensors does not depend on the file that they lie in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from miniwin.blocks import Decoder
from miniwin.blocks.messages.listing import some
from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.tensor_files import load_tensors
from miniwin.files.writing import replacing, said_if_unwritable, write_json
from miniwin.specs import ModelSpec, UserError
from miniwin.specs.train_lora import LoraSpec
from miniwin.training.adapters import NAME, adapt, adapter_weights, base_weights, plain_weights, put_adapter
from miniwin.weights import wide

CONFIG, TENSORS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"
PREFIX = "base_model.model."  # of all names in peft's files
FORMAT = 1
# What peft's config says besides LoraSpec's fields, and what may differ from peft's defaults without a meaning here.
MEANINGLESS = {"inference_mode", "peft_version", "base_model_name_or_path", "revision", "task_type", "auto_mapping"}


def write_adapter(folder: Path, decoder: Decoder, spec: ModelSpec) -> None:
    """Write the adapter of a decoder. Each file is replaced as a whole, base.json last."""
    config = decoder.peft_config[NAME].to_dict()  # type: ignore[operator, index, union-attr]
    config |= {"target_modules": sorted(config["target_modules"]), "inference_mode": True}
    tensors = {f"{PREFIX}{name}": t.detach().cpu().contiguous() for name, t in adapter_weights(decoder).items()}
    with said_if_unwritable(folder):
        folder.mkdir(exist_ok=True)
    write_json(folder / CONFIG, config)
    with replacing(folder / TENSORS) as temporary:
        temporary.write_bytes(save(tensors, metadata={"format": "pt"}))
    weights = digest(base_weights(decoder))
    write_json(folder / BASE, {"format": FORMAT, "model": spec.name, "spec_hash": spec.hash, "weights": weights})


def with_adapter(decoder: Decoder, spec: ModelSpec, folder: Path, ref: str) -> Decoder:
    """The decoder with the adapter in `folder` merged into it. ref: how messages call the model.

    Raises:
        UserError: the folder is no adapter, is damaged, or belongs to other weights.
    """
    base = _read_base(folder)
    if base["spec_hash"] != spec.hash:
        raise UserError(
            f"{folder} is an adapter for another model ('{base['model']}', {base['spec_hash'][:12]}; {ref} is "
            f"'{spec.name}', {spec.hash[:12]}); expected the model that it was trained from"
        )
    said, tensors = _object(folder / CONFIG), _read_tensors(folder)
    lora = _read_config(folder / CONFIG, said)
    # What is stored in fewer bits was trained in float32 too.
    weights = {name: tensor.float() for name, tensor in wide(decoder.state_dict()).items()}
    found = digest(weights)
    if base["weights"] != found:
        raise UserError(
            f"{folder} is an adapter for other weights of '{spec.name}' (sha256 {base['weights'][:12]} of all tensors; "
            f"{ref} has {found[:12]}); expected the model that it was trained from"
        )
    _refuse_more(folder / CONFIG, said)  # last: peft takes seconds to import
    with torch.device("meta"):
        plain, merged = spec.build(), spec.build()
    plain.load_state_dict(weights, assign=True)
    with torch.random.fork_rng(devices=[]):
        adapt(plain, lora)
    wanted = adapter_weights(plain)
    _compare(folder / TENSORS, tensors, wanted)
    put_adapter(plain, {name: tensors[name].to(wanted[name].device) for name in wanted})
    merged.load_state_dict(plain_weights(plain), assign=True)
    return merged


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors, with their names and shapes."""
    found = sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _read_base(folder: Path) -> dict[str, Any]:
    base = _object(folder / BASE)
    if base.get("format") != FORMAT or not all(isinstance(base.get(n), str) for n in ("model", "spec_hash", "weights")):
        raise UserError(f"{folder / BASE} does not say whose adapter this is; put back what `miniwin train` wrote")
    return base


def _read_config(path: Path, said: dict[str, Any]) -> LoraSpec:
    """What adapter_config.json says of the adapter."""
    try:
        return LoraSpec.model_validate({name: said[name] for name in LoraSpec.model_fields if name in said})
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _refuse_more(path: Path, said: dict[str, Any]) -> None:
    """Raise UserError if adapter_config.json says more than a LoraSpec can say."""
    from peft import LoraConfig

    usual = json.loads(json.dumps(LoraConfig().to_dict(), default=list))  # as a file says it
    for name, value in said.items():
        if name not in LoraSpec.model_fields and name not in MEANINGLESS and value != usual.get(name):
            raise UserError(
                f"{path}: {name}: got {value!r}; expected {usual.get(name)!r}: only adapters as `miniwin train` makes "
                "them can be put on a model"
            )


def _object(path: Path) -> dict[str, Any]:
    try:
        said = read_json(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}); expected an adapter's folder, as `miniwin train` "
            "writes it with lora"
        ) from None
    except JSONProblem as error:
        raise UserError(f"{path} is {error}; expected what `miniwin train` wrote") from None
    if not isinstance(said, dict):
        raise UserError(f"{path} holds no object; expected what `miniwin train` wrote")
    return said


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / TENSORS
    try:
        return {name.removeprefix(PREFIX): tensor for name, tensor in load_tensors(path).items()}
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} cannot be read as safetensors ({error}); expected what `miniwin train` wrote"
        ) from None


def _compare(path: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise UserError if these are not finite tensors of the names and shapes that are wanted."""
    if odd := sorted(set(tensors) ^ set(wanted)):
        raise UserError(f"{path} and {CONFIG} beside it name different tensors ({some(odd, 3)}); is a file damaged?")
    for name, tensor in tensors.items():
        shape = tuple(wanted[name].shape)
        if tuple(tensor.shape) != shape or not tensor.is_floating_point():
            raise UserError(f"{path}: {name}: got {tensor.dtype} {tuple(tensor.shape)}; expected floats {shape}")
        if not bool(tensor.isfinite().all()):
            raise UserError(f"{path}: {name} holds what is no number; is the file damaged?")

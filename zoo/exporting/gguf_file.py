"""Write a model as a GGUF file, which llama.cpp reads: metadata, tokenizer, chat template and weights.

    float32, float16, bfloat16   the type of all matrices
    q8_0                         eight bits and a scale for 32 weights; rows that do not divide by 32 are float16

Norms, biases, routers and tables of positions are float32 in any file, as llama.cpp wants them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from miniwin.files.writing import replacing, said_if_unwritable
from miniwin.language_model import LanguageModel
from miniwin.licences import UNKNOWN, licence_of
from miniwin.loading import load
from miniwin.specs import UserError, user_path
from miniwin.tokenizer import ByteTokenizer, HFTokenizer
from miniwin.weights import wide
from miniwin.zoo.exporting.folder import special_ids
from miniwin.zoo.exporting.gguf_stock import Plan, Refusal, find_gguf
from miniwin.zoo.exporting.gguf_tokenizer import byte_fields, tokenizer_fields
from miniwin.zoo.importing.family import CannotSay
from miniwin.zoo.importing.gguf.library import library
from miniwin.zoo.importing.gguf.source import ENDS

# name -> the type of matrices in ggml, and general.file_type
DTYPES = {"float32": ("F32", "ALL_F32"), "float16": ("F16", "MOSTLY_F16")}
DTYPES |= {"bfloat16": ("BF16", "MOSTLY_BF16"), "q8_0": ("Q8_0", "MOSTLY_Q8_0")}
EXACT = ("norm.weight", "ffn_gate_inp.weight", "position_embd.weight")  # ends of names of what is never rounded


@dataclass(frozen=True)
class ExportedFile:
    """What an export made. random: the reference was a spec, so the weights are not trained."""

    path: Path
    architecture: str
    refusals: list[Refusal]
    random: bool = False
    notes: list[str] = field(default_factory=list)


def export_gguf(
    ref: str | LanguageModel, to: str | Path, dtype: str | None = None, architecture: str | None = None
) -> ExportedFile:
    """Write the model that `ref` names as the GGUF file `to`.

    dtype: of the matrices, of DTYPES; by default that of the weights. architecture: the one to take, such as llama.

    Raises:
        UserError: `to` exists, there is no such model, or llama.cpp has no architecture or tokenizer that says it.
    """
    gguf, path = library(), user_path(to)
    if path.suffix != ".gguf":
        raise UserError(f"--to {path}: expected the name of a file that ends with .gguf")
    if path.exists() or path.is_symlink():
        raise UserError(f"{path}: exists already; give --to the name of a new file, or remove this one")
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"--dtype: got {dtype!r}; expected one of {', '.join(DTYPES)}")
    model = ref if isinstance(ref, LanguageModel) else load(ref)
    chosen = dtype or str(model.dtype).removeprefix("torch.")
    if chosen not in DTYPES:
        raise UserError(f"--dtype: the weights are {chosen}; expected one of {', '.join(DTYPES)}")
    plan, refusals = find_gguf(model.spec, architecture)
    if plan is None:
        if not refusals:
            raise UserError(f"--architecture {architecture}: there is no such architecture to export to")
        raise UserError("llama.cpp has no architecture that says this model:\n" + "\n".join(f"  {r}" for r in refusals))
    try:
        words = _tokenizer(model)
    except CannotSay as error:
        raise UserError(f"llama.cpp has no tokenizer that says this one: {error}") from None
    kind, file_type = DTYPES[chosen]
    fields = {
        "general.type": "model",
        "general.name": model.spec.name,
        "general.quantization_version": gguf.GGML_QUANT_VERSION,
        "general.file_type": int(gguf.LlamaFileType[file_type]),
        **_licence(model),
        **plan.fields,
        **words,
    }
    with said_if_unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            notes = _write(part, plan, fields, model, gguf.GGMLQuantizationType[kind])
    random = model is not ref and model.folder is None
    return ExportedFile(path, plan.architecture.name, refusals, random, notes)


def _licence(model: LanguageModel) -> dict[str, str]:
    known = None if model.folder is None else licence_of(model.folder)
    return {} if known in (None, UNKNOWN) else {"general.license": str(known)}


def _write(path: Path, plan: Plan, fields: dict[str, Any], model: LanguageModel, kind: Any) -> list[str]:
    gguf, ours = library(), wide(model.decoder.state_dict())
    writer = gguf.GGUFWriter(path, plan.architecture.name)
    for name, value in fields.items():
        _add(writer, name, value)
    with torch.device("meta"):
        empty = model.spec.build().state_dict()
    shapes = {name: tuple(one.values(empty).shape) for name, one in plan.tensors.items()}
    shapes |= {name: tuple(table.shape) for name, table in plan.tables.items()}
    kinds = {name: _kind(name, shape, kind) for name, shape in shapes.items()}
    for name, shape in shapes.items():
        values, size = gguf.GGML_QUANT_SIZES[kinds[name]]
        count = int(np.prod(shape)) // values * size
        writer.add_tensor_info(name, shape, np.dtype(np.float32), count, kinds[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in _all(plan, ours):
        writer.write_tensor_data(_quantised(name, tensor, kinds[name]))
    writer.close()
    other = [name for name, one in kinds.items() if one.name == "F16" != kind.name]
    return [f"{len(other)} matrices are float16: their rows do not divide by 32"] if other else []


def _add(writer: Any, name: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)


def _all(plan: Plan, ours: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, one in plan.tensors.items():
        yield name, one.values(ours)
    yield from plan.tables.items()


def _kind(name: str, shape: tuple[int, ...], kind: Any) -> Any:
    kinds = library().GGMLQuantizationType
    if len(shape) < 2 or name.endswith(EXACT):
        return kinds.F32
    return kinds.F16 if shape[-1] % library().GGML_QUANT_SIZES[kind][0] else kind


def _quantised(name: str, tensor: Tensor, kind: Any) -> np.ndarray:
    plain = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
    with np.errstate(over="ignore"):
        made: np.ndarray = library().quantize(plain, kind)
    if kind.name == "F16" and not np.isfinite(made).all():
        raise UserError(f"--dtype float16: {name} holds values that are too large for it; use float32 or bfloat16")
    return made


def _tokenizer(model: LanguageModel) -> dict[str, Any]:
    """The fields of the tokenizer, of the special ids and of the chat template."""
    tokenizer, size = model.tokenizer, model.spec.vocab_size
    if tokenizer is None:
        return {"tokenizer.ggml.model": "no_vocab"}
    if isinstance(tokenizer, ByteTokenizer):
        fields = byte_fields(size)
    else:
        assert isinstance(tokenizer, HFTokenizer)
        fields = tokenizer_fields(tokenizer.json, size)
    ids = special_ids(model)
    end = ids["eos_token_id"]
    ends = end if isinstance(end, list) else [] if end is None else [end]
    if len(ends) > 1 + len(ENDS):
        raise CannotSay("tokenizer", f"texts end at {len(ends)} tokens; a file names {1 + len(ENDS)}")
    said = dict(zip(("eos", *ENDS), ends, strict=False)) | {"bos": ids["bos_token_id"], "padding": ids["pad_token_id"]}
    for name, number in said.items():
        key = f"tokenizer.ggml.{name}_token_id"
        if number is not None and fields.setdefault(key, number) != number:
            raise CannotSay("tokenizer", f"{name}: texts are framed by id {fields[key]}, and the model says {number}")
    if model.chat_format is not None:
        fields["tokenizer.chat_template"] = model.chat_format.template
    return fields

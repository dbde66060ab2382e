"""Rotary parameters in metadata and tensors <-> `rope_parameters` of a Hugging Face config.

    rope.scaling.type   none, linear {factor}, yarn {factor, original_context_length, ..}, longrope {tensors}
    rope_freqs          llama.cpp's form of `llama3`: a factor for each rotated pair, made when the file was made

Factors that are those of a published `llama3` scaling become that. Any others become `longrope` with one list for
every length, which divides the same frequencies by the same factors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from miniwin.zoo.importing.gguf.metadata import Metadata

FREQS, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
TABLES = (FREQS, LONG, SHORT)
# low_freq_factor, high_freq_factor and original_max_position_embeddings of every published llama3 scaling
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def rope_parameters(metadata: Metadata, head_dim: int, theta: float = 10_000.0) -> dict[str, Any]:
    """The rotary parameters of the metadata. theta: what llama.cpp takes where the file does not say it."""
    dims = metadata.count("rope.dimension_count", head_dim)
    if dims > head_dim or dims % 2:
        raise metadata.refuse("rope.dimension_count", f"expected an even number of at most {head_dim}, of each head")
    theta = metadata.real("rope.freq_base", theta)
    said: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if dims != head_dim:
        said["partial_rotary_factor"] = dims / head_dim
    kind = metadata.text("rope.scaling.type", "linear")
    kind = "longrope" if LONG in metadata.tensors else kind  # older files have the tables only
    factor = metadata.real("rope.scaling.factor", metadata.real("rope.scale_linear", 0.0)) or 1.0
    if kind == "linear":
        said |= {"rope_type": "linear", "factor": factor} if factor != 1.0 else {}
    elif kind == "yarn":
        said |= _yarn(metadata, factor)
    elif kind == "longrope":
        said |= _longrope(metadata, dims)
    elif kind != "none":
        raise metadata.refuse("rope.scaling.type", "expected none, linear, yarn or longrope")
    if FREQS in metadata.tensors:
        if said["rope_type"] != "default":
            raise metadata.refuse("rope.scaling.type", f"the tensor {FREQS} scales the rotation too; one may do it")
        said |= _from_factors(_table(metadata, FREQS, dims), theta, dims)
    return said


def _yarn(metadata: Metadata, factor: float) -> dict[str, Any]:
    said: dict[str, Any] = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": metadata.count(
            "rope.scaling.original_context_length", metadata.count("context_length")
        ),
    }
    for name, key in (("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")):
        if f"rope.scaling.{name}" in metadata:
            said[key] = metadata.real(f"rope.scaling.{name}")
    if metadata.real("rope.scaling.yarn_ext_factor", 1.0) != 1.0:
        raise metadata.refuse("rope.scaling.yarn_ext_factor", "expected 1")
    # llama.cpp multiplies its own 0.1 ln(factor) + 1 by this one
    times = metadata.real("rope.scaling.attn_factor", metadata.real("rope.scaling.yarn_attn_factor", 1.0))
    if times != 1.0:
        said["attention_factor"] = times * (1.0 + 0.1 * math.log(factor))
    return said


def _longrope(metadata: Metadata, dims: int) -> dict[str, Any]:
    lists = {
        key: _table(metadata, name, dims).tolist() for key, name in (("long_factor", LONG), ("short_factor", SHORT))
    }
    said: dict[str, Any] = {"rope_type": "longrope", **lists}
    if "rope.scaling.original_context_length" in metadata:
        said["original_max_position_embeddings"] = metadata.count("rope.scaling.original_context_length")
    if "rope.scaling.attn_factor" in metadata:
        said["attention_factor"] = metadata.real("rope.scaling.attn_factor")
    return said


def _table(metadata: Metadata, name: str, dims: int) -> Tensor:
    """A tensor with a factor for each rotated pair."""
    shape = metadata.shape(name)
    if shape != (dims // 2,):
        raise metadata.refuse("rope.dimension_count", f"{name} has shape {shape}; expected {(dims // 2,)}")
    return metadata.table(name)


def _from_factors(factors: Tensor, theta: float, dims: int) -> dict[str, Any]:
    """The rotary parameters that these factors come from."""
    llama3 = {"rope_type": "llama3", "factor": float(factors.max()), **LLAMA3}
    if torch.allclose(llama3_factors(llama3, theta, dims), factors, rtol=1e-5, atol=0):
        return llama3
    return {
        "rope_type": "longrope",
        "short_factor": factors.tolist(),
        "long_factor": factors.tolist(),
        "attention_factor": 1.0,
    }


def llama3_factors(said: Mapping[str, Any], theta: float, dims: int) -> Tensor:
    """What llama.cpp divides each frequency by for a `llama3` scaling, (dims / 2,)."""
    frequencies = theta ** (-torch.arange(0, dims, 2, dtype=torch.float64) / dims)
    original, factor = said["original_max_position_embeddings"], said["factor"]
    low, high = said["low_freq_factor"], said["high_freq_factor"]
    turns = original * frequencies / (2 * math.pi)  # within the original context
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).float()


def rope_fields(said: Mapping[str, Any], head_dim: int) -> dict[str, Any]:
    """The inverse of `rope_parameters`: fields of metadata. Tables that stand in tensors: `rope_tables`."""
    dims = int(head_dim * said.get("partial_rotary_factor", 1.0))
    fields: dict[str, Any] = {"rope.dimension_count": dims, "rope.freq_base": said.get("rope_theta")}
    kind = said.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        fields |= {"rope.scaling.type": kind, "rope.scaling.factor": float(said["factor"])}
    if kind == "yarn":
        factor = said.get("attention_factor")
        fields |= {
            "rope.scaling.original_context_length": said["original_max_position_embeddings"],
            "rope.scaling.yarn_beta_fast": said.get("beta_fast"),
            "rope.scaling.yarn_beta_slow": said.get("beta_slow"),
            "rope.scaling.attn_factor": None if factor is None else factor / (1.0 + 0.1 * math.log(said["factor"])),
        }
    if kind == "longrope":
        fields |= {
            "rope.scaling.type": kind,
            "rope.scaling.original_context_length": said.get("original_max_position_embeddings"),
            "rope.scaling.attn_factor": said.get("attention_factor"),
        }
    return fields


def rope_tables(said: Mapping[str, Any], head_dim: int) -> dict[str, Tensor]:
    """The tensors that these rotary parameters need."""
    dims = int(head_dim * said.get("partial_rotary_factor", 1.0))
    kind = said.get("rope_type", "default")
    if kind == "llama3":
        return {FREQS: llama3_factors(said, said["rope_theta"], dims)}
    if kind == "longrope":
        return {LONG: torch.tensor(said["long_factor"]), SHORT: torch.tensor(said["short_factor"])}
    return {}

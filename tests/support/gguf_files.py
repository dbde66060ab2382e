"""GGUF files for tests: written field by field, so that a test can write what no program would.

file = Plain()                                    # a small llama, every tensor float32
file.fields["llama.block_count"] = (4, 7)         # type of the value in GGUF, value
path.write_bytes(file.bytes())
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

STRING, ARRAY = 8, 9
FORMS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
SIZES = {"vocab": 24, "hidden": 16, "wide": 24, "heads": 2, "kv": 1, "layers": 2}


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def packed(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return text(value)
    if kind == ARRAY:
        inner, values = value
        return struct.pack("<IQ", inner, len(values)) + b"".join(packed(inner, one) for one in values)
    return struct.pack(FORMS[kind], value)


@dataclass
class Tensor:
    """dims: the fastest first. kind: number of the type. offset: None for what comes next."""

    dims: tuple[int, ...]
    kind: int
    data: bytes
    offset: int | None = None


def fields() -> dict[str, tuple[int, Any]]:
    alphabet = [chr(ord("!") + i) for i in range(SIZES["vocab"] - 2)]
    return {
        "general.architecture": (STRING, "llama"),
        "general.name": (STRING, "small"),
        "llama.block_count": (4, SIZES["layers"]),
        "llama.context_length": (4, 64),
        "llama.embedding_length": (4, SIZES["hidden"]),
        "llama.feed_forward_length": (4, SIZES["wide"]),
        "llama.attention.head_count": (4, SIZES["heads"]),
        "llama.attention.head_count_kv": (4, SIZES["kv"]),
        "llama.attention.layer_norm_rms_epsilon": (6, 1e-5),
        "llama.rope.freq_base": (6, 10_000.0),
        "tokenizer.ggml.model": (STRING, "gpt2"),
        "tokenizer.ggml.pre": (STRING, "gpt-2"),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, ["<s>", "</s>", *alphabet])),
        "tokenizer.ggml.token_type": (ARRAY, (5, [3, 3] + [1] * len(alphabet))),
        "tokenizer.ggml.merges": (ARRAY, (STRING, [""])),
        "tokenizer.ggml.bos_token_id": (4, 0),
        "tokenizer.ggml.eos_token_id": (4, 1),
    }


def tensors() -> dict[str, Tensor]:
    h, w, kv = SIZES["hidden"], SIZES["wide"], SIZES["hidden"] // SIZES["heads"] * SIZES["kv"]
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (h, SIZES["vocab"]), "output_norm.weight": (h,)}
    for i in range(SIZES["layers"]):
        at = f"blk.{i}."
        shapes |= {at + "attn_norm.weight": (h,), at + "ffn_norm.weight": (h,)}
        shapes |= {at + "attn_q.weight": (h, h), at + "attn_k.weight": (h, kv), at + "attn_v.weight": (h, kv)}
        shapes |= {at + "attn_output.weight": (h, h), at + "ffn_down.weight": (w, h)}
        shapes |= {at + "ffn_gate.weight": (h, w), at + "ffn_up.weight": (h, w)}
    drawn = np.random.default_rng(0)
    return {
        name: Tensor(dims, 0, drawn.normal(size=int(np.prod(dims))).astype(np.float32).tobytes())
        for name, dims in shapes.items()
    }


@dataclass
class Plain:
    """A small llama. Everything may be changed before `bytes` writes it."""

    magic: bytes = b"GGUF"
    version: int = 3
    fields: dict[str, tuple[int, Any]] = field(default_factory=fields)
    tensors: dict[str, Tensor] = field(default_factory=tensors)
    tensor_count: int | None = None
    field_count: int | None = None
    alignment: int = 32

    def bytes(self) -> bytes:
        counts = (self.tensor_count, len(self.tensors)), (self.field_count, len(self.fields))
        head = self.magic + struct.pack("<I", self.version)
        head += b"".join(struct.pack("<Q", real if said is None else said) for said, real in counts)
        for key, (kind, value) in self.fields.items():
            head += text(key) + struct.pack("<I", kind) + packed(kind, value)
        data, at = b"", 0
        for name, one in self.tensors.items():
            offset = at if one.offset is None else one.offset
            head += text(name) + struct.pack("<I", len(one.dims)) + struct.pack(f"<{len(one.dims)}Q", *one.dims)
            head += struct.pack("<IQ", one.kind, offset)
            data += one.data + b"\0" * (-len(one.data) % self.alignment)
            at = len(data)
        return head + b"\0" * (-len(head) % self.alignment) + data

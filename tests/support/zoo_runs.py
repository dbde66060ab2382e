"""Tiny run folders for the tests of the zoo: what training leaves behind, without the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from miniwin.files.hashing import sha256_file
from miniwin.files.writing import write_json
from miniwin.specs import ModelSpec, dump_yaml, parse_spec
from miniwin.tokenizer import load_tokenizer
from miniwin.zoo.entry import MANIFEST, FileRecord, read_manifest, write_manifest

METRICS: dict[str, Any] = {
    "model": "tiny",
    "parameters": 1,
    "data": {"source": "python-stdlib"},
    "tokens": 4096,
    "loss": {"32": 1.5, "512": 1.6},
    "bits_per_byte": {"32": 2.1640, "512": 2.3083},
    "by_position": {"0-128": 2.4, "128-256": 2.2},
    "recall": {"32": 0.25, "512": None},
    "cache_bytes": {"32": 4096, "512": 36864},
    "prefill_tokens_per_second": 1234.0,
    "decode_tokens_per_second": None,
    "speed_length": 2048,
    "device": "cpu",
}


def tiny_spec(window: int = 8, hidden_size: int = 16) -> ModelSpec:
    heads = {"num_heads": 2, "num_kv_heads": 1}
    mlp = {"type": "swiglu", "intermediate_size": 24}
    local = {**heads, "window": window, "position": {"type": "p-rope", "period": 2 * window, "harmonic": True}}
    data = {
        "kind": "model",
        "format": 1,
        "name": "tiny",
        "vocab_size": 256,
        "hidden_size": hidden_size,
        "num_layers": 2,
        "pattern": "SG",
        "blocks": {
            "S": {"attention": local, "mlp": mlp},
            "G": {"attention": {**heads, "window": None, "position": {"type": "nope"}}, "mlp": mlp},
        },
    }
    spec = parse_spec(data, "model")
    assert isinstance(spec, ModelSpec)
    return spec


def make_run(folder: Path, *, seed: int = 0, window: int = 8, hidden_size: int = 16, **changes: Any) -> Path:
    """A complete run folder; `changes` replace keys of run.json."""
    folder.mkdir(parents=True)
    spec = tiny_spec(window, hidden_size)
    torch.manual_seed(seed)
    weights = {name: tensor.contiguous() for name, tensor in spec.build().state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"made": "by a test"})
    (folder / "model.yaml").write_text(dump_yaml(spec), encoding="utf-8")
    load_tokenizer("byte").save(folder)
    run = {
        "format": 1,
        "status": "complete",
        "reason": None,
        "model": "tiny",
        "spec_hash": spec.hash,
        "parameters": spec.parameters(),
        "train": {"name": "tiny-train", "seq_len": 32, "seed": seed},
        "seed": seed,
        "data": {"source": "python-stdlib", "fingerprint": "f" * 64},
        "code": "0.1.0+gabcdef",
        "machine": {"cpu": "Test CPU", "cores": 2},
        "device": "cpu",
        "started": "2026-11-01T12:00:00+00:00",
        "tracking": {"uri": "postgresql://user:secret@host/db", "run_id": "1"},
        "steps": 10,
        "tokens": 4096,
        "seconds": 12.5,
        "tokens_per_second": 327.7,
        "final_loss": 1.5,
    }
    write_json(folder / "run.json", run | changes)
    return folder


def overwrite(path: Path, content: bytes) -> None:
    """Change a file of an entry, which may only be read."""
    path.chmod(0o644)
    path.write_bytes(content)


def sign_again(folder: Path, **changes: Any) -> None:
    """What somebody who knows the format would do: make entry.json right for the files that are there now.

    changes: of entry.json.
    """
    manifest = read_manifest(folder)
    names = sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)
    files = {n: FileRecord(size=(folder / n).stat().st_size, sha256=sha256_file(folder / n)) for n in names}
    overwrite(folder / MANIFEST, write_manifest(manifest.model_copy(update={"files": files, **changes})).encode())

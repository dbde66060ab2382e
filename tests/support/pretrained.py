"""A tiny full-attention model with random weights in an imported folder, for what begins with a pretrained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import miniwin
from miniwin.files.tensor_files import save_tensors
from miniwin.specs import ModelSpec, dump_yaml, parse_spec
from miniwin.tokenizer import load_tokenizer

LAYER: dict[str, Any] = {
    "attention": {"num_heads": 4, "num_kv_heads": 2, "window": None, "position": {"type": "rope"}},
    "mlp": {"type": "swiglu", "intermediate_size": 32},
}
SPEC: dict[str, Any] = {
    "kind": "model",
    "format": 1,
    "name": "pretrained",
    "vocab_size": 256,
    "hidden_size": 32,
    "num_layers": 6,
    "pattern": "G",
    "blocks": {"G": LAYER},
    "init": {"type": "normal", "std": 0.3},
}


def imported(folder: Path, **fields: Any) -> Path:
    """An imported model in a new folder. fields: of the spec, in place of SPEC's."""
    spec = parse_spec({**SPEC, **fields}, "model")
    assert isinstance(spec, ModelSpec)
    model = miniwin.build(spec, seed=0)
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text(dump_yaml(spec))
    save_tensors(dict(model.decoder.state_dict()), folder / "model.safetensors", {"format": "pt"})
    load_tokenizer("byte").save(folder)
    record = {"format": 1, "source": folder.name, "special_ids": {}, "licence": "mit", "spec_hash": spec.hash}
    (folder / "import.json").write_text(json.dumps(record))
    return folder

"""A family of models that exists in tests only: fused queries, keys and values, tied or untied embeddings.

`toy_folder` writes a folder for `miniwin import`; `toy_model` is the model that the import has to make.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from miniwin.specs import ModelSpec
from miniwin.zoo.importing import Asked, converting
from miniwin.zoo.importing.family import Family, Rule, join_rows, split_rows

CONFIG = {"model_type": "toy", "vocab_size": 40, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "tied": True}


class Toy:
    model_types = ("toy",)

    def spec(self, config: dict[str, Any], name: str, asked: Any) -> dict[str, Any]:
        position = {"type": "nope", "logit_scale": None}
        attention = {"num_heads": config["num_heads"], "window": asked.get("window"), "position": position}
        return {
            "kind": "model",
            "format": 1,
            "name": name,
            "vocab_size": config["vocab_size"],
            "hidden_size": config["hidden_size"],
            "num_layers": config["num_layers"],
            "pattern": "G",
            "blocks": {"G": {"attention": attention, "mlp": {"type": "swiglu", "intermediate_size": 12}}},
            "tie_word_embeddings": config["tied"],
        }

    def rules(self, spec: ModelSpec) -> list[Rule]:
        head = "lm_head.weight"
        tied = spec.tie_word_embeddings
        rules = [Rule(("embed_tokens.weight",), ("model.wte.weight",), copies=(head,) if tied else ())]
        for i in range(spec.num_layers):
            ours, theirs, width = f"layers.{i}.", f"model.h.{i}.", spec.hidden_size
            qkv = tuple(f"{ours}attention.{part}_proj.weight" for part in "qkv")
            rules.append(Rule(qkv, (f"{theirs}qkv.weight",), split_rows(width, width, width), join_rows))
            rules += [
                Rule((ours + mine,), (theirs + other,))
                for mine, other in {
                    "attention.o_proj.weight": "out.weight",
                    "attention_norm.weight": "ln1.weight",
                    "mlp_norm.weight": "ln2.weight",
                    "mlp.gate_proj.weight": "gate.weight",
                    "mlp.up_proj.weight": "up.weight",
                    "mlp.down_proj.weight": "down.weight",
                }.items()
            ]
        rules.append(Rule(("norm.weight",), ("model.ln.weight",)))
        return rules if tied else [*rules, Rule((head,), (head,))]

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        raise NotImplementedError


class Bare(Toy):
    """The same family from a checkpoint file: sizes come from shapes, the rest is asked for."""

    model_types = ("minimind",)

    def spec(self, config: dict[str, Any], name: str, asked: Any) -> dict[str, Any]:
        assert isinstance(asked, Asked)
        vocab, hidden = asked.shapes["model.wte.weight"]
        asked.infer("hidden_size", hidden, f"model.wte.weight is ({vocab}, {hidden})")
        heads, tied = asked.require(
            num_heads="heads that attend, such as 2", tied="true where head and embedding are one"
        )
        layers = sum(shape_of.endswith("qkv.weight") for shape_of in asked.shapes)
        sizes = {"vocab_size": vocab, "hidden_size": hidden, "num_layers": layers, "num_heads": heads, "tied": tied}
        return super().spec(sizes, name, asked)


def use_toys(monkeypatch: pytest.MonkeyPatch) -> None:
    families: dict[str, Family] = {"toy": Toy(), "minimind": Bare()}
    monkeypatch.setattr(converting, "families", lambda: families)


def toy_tensors(config: dict[str, Any] | None = None, seed: int = 0) -> dict[str, Tensor]:
    config = config or CONFIG
    generator = torch.Generator().manual_seed(seed)
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.wte.weight": (vocab, hidden)}
    for i in range(config["num_layers"]):
        at = f"model.h.{i}."
        shapes |= {at + "qkv.weight": (3 * hidden, hidden), at + "out.weight": (hidden, hidden)}
        shapes |= {at + "ln1.weight": (hidden,), at + "ln2.weight": (hidden,)}
        shapes |= {at + "gate.weight": (12, hidden), at + "up.weight": (12, hidden), at + "down.weight": (hidden, 12)}
    shapes["model.ln.weight"] = (hidden,)
    if not config["tied"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def toy_folder(folder: Path, tensors: dict[str, Tensor] | None = None, **changes: Any) -> Path:
    """A Hugging Face folder of the toy family; `changes` to its config."""
    config = {**CONFIG, **changes}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors or toy_tensors(config), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def shard(folder: Path, parts: int = 2) -> dict[str, str]:
    """Split the folder's one file into shards with an index; the index's weight_map."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for part in range(parts):
        name = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        mine = {key: tensors[key] for i, key in enumerate(sorted(tensors)) if i % parts == part}
        save_file(mine, folder / name)
        weight_map |= dict.fromkeys(mine, name)
    write_index(folder, weight_map)
    return weight_map


def write_index(folder: Path, weight_map: Any) -> None:
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def toy_model(tensors: dict[str, Tensor], made: ModelSpec) -> Any:
    """The decoder with these weights, put there by hand."""
    decoder = made.build().eval()
    state = {"embed_tokens.weight": tensors["model.wte.weight"], "norm.weight": tensors["model.ln.weight"]}
    for i in range(made.num_layers):
        q, k, v = tensors[f"model.h.{i}.qkv.weight"].chunk(3)
        state |= {f"layers.{i}.attention.{n}_proj.weight": t for n, t in zip("qkv", (q, k, v), strict=True)}
        state[f"layers.{i}.attention.o_proj.weight"] = tensors[f"model.h.{i}.out.weight"]
        state[f"layers.{i}.attention_norm.weight"] = tensors[f"model.h.{i}.ln1.weight"]
        state[f"layers.{i}.mlp_norm.weight"] = tensors[f"model.h.{i}.ln2.weight"]
        for part in ("gate", "up", "down"):
            state[f"layers.{i}.mlp.{part}_proj.weight"] = tensors[f"model.h.{i}.{part}.weight"]
    if "lm_head.weight" in tensors:
        state["lm_head.weight"] = tensors["lm_head.weight"]
    decoder.load_state_dict(state, strict=True)
    return decoder

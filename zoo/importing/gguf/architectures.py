"""The architectures of llama.cpp that are families of Hugging Face's which can be imported, by `general.architecture`.

A new architecture is a class here and a line in EVERY. Which modules and fields a file has, and what llama.cpp computes
from them: conversion/ and src/models/ of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from miniwin.specs.base import UserError
from miniwin.specs.yaml_scalars import shown
from miniwin.zoo.importing.gguf.architecture import (
    ATTENTION,
    FULL,
    MLP,
    POST,
    PRE,
    QK_NORMS,
    SANDWICH,
    SLIDING,
    Architecture,
    found_biases,
    said_types,
    scalar,
    sliding_types,
)
from miniwin.zoo.importing.gguf.metadata import Metadata
from miniwin.zoo.importing.gguf.names import TRANSPOSED, Change, by_head

WINDOW = "attention.sliding_window"
EPS = "attention.layer_norm_epsilon"
ALL = ("",)  # every module
EXPERTS = {f"mlp.experts.{part}_proj": f"mlp.experts.{{}}.{part}_proj" for part in ("gate", "up", "down")}


class Llama(Architecture):
    name, model_type = "llama", "llama"
    permuted = True
    biases = (*ATTENTION, *MLP)

    def more(self, metadata: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
        return found_biases(metadata)


class Mixtral(Architecture):
    name, model_type = "llama", "mixtral"
    permuted = True
    layer = (*PRE, *ATTENTION, "block_sparse_moe.gate")
    experts = {
        f"mlp.experts.{part}_proj": f"block_sparse_moe.experts.{{}}.{other}"
        for part, other in (("gate", "w1"), ("down", "w2"), ("up", "w3"))
    }

    def fits(self, metadata: Metadata) -> bool:
        return bool(metadata.raw("expert_count", 0))

    def more(self, metadata: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "num_local_experts": metadata.count("expert_count"),
            "num_experts_per_tok": metadata.count("expert_used_count"),
        }

    def said(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "expert_count": config["num_local_experts"],
            "expert_used_count": config["num_experts_per_tok"],
        }


class Granite(Architecture):
    name, model_type = "granite", "granite"
    permuted = True
    biases = (*ATTENTION, *MLP)
    SCALES = {
        "attention.scale": "attention_multiplier",
        "embedding_scale": "embedding_multiplier",
        "residual_scale": "residual_multiplier",
        "logit_scale": "logits_scaling",
    }

    def more(self, metadata: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
        return found_biases(metadata) | {key: metadata.real(name) for name, key in self.SCALES.items()}

    def said(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {name: float(config[key]) for name, key in self.SCALES.items()}


class SmolLM3(Architecture):
    name, model_type = "smollm3", "smollm3"
    permuted = True

    def more(self, metadata: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
        return found_biases(metadata) | {
            "no_rope_layers": [int((i + 1) % 4 != 0) for i in range(config["num_hidden_layers"])]
        }


class Qwen2(Architecture):
    name, model_type = "qwen2", "qwen2"
    biases = ATTENTION[:3]


class Qwen3(Architecture):
    name, model_type = "qwen3", "qwen3"
    layer = (*Architecture.layer, *QK_NORMS)

    def more(self, metadata: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"attention_bias": found_biases(metadata)["attention_bias"]}


class Qwen3MoE(Architecture):
    name, model_type = "qwen3moe", "qwen3_moe"
    layer = (*PRE, *ATTENTION, *QK_NORMS, "mlp.gate")
    experts = EXPERTS

    def more(self, metadata: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "num_experts": metadata.count("expert_count"),
            "num_experts_per_tok": metadata.count("expert_used_count"),
            "moe_intermediate_size": metadata.count("expert_feed_forward_length"),
            "norm_topk_prob": True,
        }

    def said(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "expert_count": config["num_experts"],
            "expert_used_count": config["num_experts_per_tok"],
            "expert_feed_forward_length": config["moe_intermediate_size"],
        }


class Phi3(Architecture):
    name, model_type = "phi3", "phi3"
    layer = (*PRE, "self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")

    def more(self, metadata: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
        longest = config["max_position_embeddings"]
        return {
            "sliding_window": metadata.count(WINDOW) if metadata.raw(WINDOW) else None,
            "original_max_position_embeddings": metadata.count("rope.scaling.original_context_length", longest),
        }

    def said(self, config: Mapping[str, Any]) -> dict[str, Any]:
        original = config.get("original_max_position_embeddings")
        return {WINDOW: config.get("sliding_window") or 0, "rope.scaling.original_context_length": original}


class Gemma(Architecture):
    name, model_type = "gemma", "gemma"
    plus_one = True
    ties = (True,)


class Gemma2(Architecture):
    name, model_type = "gemma2", "gemma2"
    plus_one = True
    ties = (True,)
    layer = (*SANDWICH, *ATTENTION, *MLP)

    def more(self, metadata: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "sliding_window": metadata.count(WINDOW, 4096),
            "layer_types": sliding_types(metadata, config["num_hidden_layers"], 2),
            "query_pre_attn_scalar": scalar(config, 46),
            "attn_logit_softcapping": metadata.real("attn_logit_softcapping", 50.0),
            "final_logit_softcapping": metadata.real("final_logit_softcapping", 30.0),
        }

    def said(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {
            WINDOW: config["sliding_window"],
            "attn_logit_softcapping": config["attn_logit_softcapping"],
            "final_logit_softcapping": config["final_logit_softcapping"],
            **said_types(config["layer_types"], 2),
        }


class Gemma3(Architecture):
    name, model_type = "gemma3", "gemma3_text"
    plus_one = True
    layer = (*SANDWICH, *ATTENTION, *QK_NORMS, *MLP)

    def more(self, metadata: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
        layers, local = config["num_hidden_layers"], metadata.real("rope.freq_base_swa", 10_000.0)
        types = sliding_types(metadata, layers, 6)
        window = metadata.count(WINDOW) if metadata.raw(WINDOW) else None
        rotary = {FULL: config["rope_parameters"], SLIDING: {"rope_type": "default", "rope_theta": local}}
        return {
            "sliding_window": window,
            "layer_types": [FULL] * layers if window is None else types,
            "rope_parameters": rotary,
            "query_pre_attn_scalar": scalar(config, 62),
            "final_logit_softcapping": metadata.real("final_logit_softcapping", 0.0) or None,
        }

    def rotary(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        return by_type(config, FULL)

    def said(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {
            WINDOW: config["sliding_window"],
            "final_logit_softcapping": config.get("final_logit_softcapping"),
            "rope.freq_base_swa": by_type(config, SLIDING).get("rope_theta"),
            **said_types(config["layer_types"], 6),
        }


class Cohere2(Architecture):
    name, model_type = "cohere2", "cohere2"
    ties = (True,)
    norm = (EPS, "layer_norm_eps")
    layer = ("input_layernorm", *ATTENTION, *MLP)

    def more(self, metadata: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "logit_scale": metadata.real("logit_scale"),
            "sliding_window": metadata.count(WINDOW),
            "layer_types": sliding_types(metadata, config["num_hidden_layers"], 4),
            "attention_bias": found_biases(metadata)["attention_bias"],
        }

    def said(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "logit_scale": float(config["logit_scale"]),
            WINDOW: config["sliding_window"],
            **said_types(config["layer_types"], 4),
        }


class Olmo2(Architecture):
    name, model_type = "olmo2", "olmo2"
    ties = (False,)
    layer = (*POST, *ATTENTION, *QK_NORMS, *MLP)


class Olmo3(Olmo2):
    model_type = "olmo3"

    def fits(self, metadata: Metadata) -> bool:
        return bool(metadata.raw(WINDOW, 0))

    def more(self, metadata: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
        full = config["rope_parameters"]
        local = metadata.real("rope.freq_base_swa", full["rope_theta"])
        return {
            "sliding_window": metadata.count(WINDOW),
            "layer_types": sliding_types(metadata, config["num_hidden_layers"], 4),
            "rope_parameters": {FULL: full, SLIDING: {"rope_type": "default", "rope_theta": local}},
        }

    def rotary(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        return by_type(config, FULL)

    def said(self, config: Mapping[str, Any]) -> dict[str, Any]:
        local = by_type(config, SLIDING).get("rope_theta")
        same = local == self.rotary(config).get("rope_theta")
        return {
            WINDOW: config["sliding_window"],
            "rope.freq_base_swa": None if same else local,
            **said_types(config["layer_types"], 4),
        }


class Exaone4(Architecture):
    name, model_type = "exaone4", "exaone4"
    layer = (*POST, *ATTENTION, *QK_NORMS, *MLP)

    def more(self, metadata: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
        types = sliding_types(metadata, config["num_hidden_layers"], 4)
        window = metadata.count(WINDOW) if metadata.raw(WINDOW) else None
        return {
            "sliding_window": window,
            "layer_types": [FULL] * config["num_hidden_layers"] if window is None else types,
        }

    def said(self, config: Mapping[str, Any]) -> dict[str, Any]:
        window = config["sliding_window"]
        return {WINDOW: window} | ({} if window is None else said_types(config["layer_types"], 4))


class StarCoder2(Architecture):
    name, model_type = "starcoder2", "starcoder2"
    biases = ALL
    norm = (EPS, "norm_epsilon")
    layer = (*PRE, *ATTENTION, "mlp.c_fc", "mlp.c_proj")

    def more(self, metadata: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"use_bias": "blk.0.attn_q.bias" in metadata.tensors, "sliding_window": None}


class GPTNeoX(Architecture):
    name, model_type = "gptneox", "gpt_neox"
    ties = (False,)
    biases = ALL
    norm = (EPS, "layer_norm_eps")
    outer = ("gpt_neox.embed_in", "gpt_neox.final_layer_norm", "embed_out")
    stack = "gpt_neox.layers"
    layer = (*PRE, "attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")

    def more(self, metadata: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
        parallel = metadata.raw("use_parallel_residual", True)
        if not isinstance(parallel, bool):
            raise metadata.refuse("use_parallel_residual", "expected true or false")
        return {
            "use_parallel_residual": parallel,
            "attention_bias": "blk.0.attn_qkv.bias" in metadata.tensors,
        }

    def said(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"use_parallel_residual": config["use_parallel_residual"]}

    def change(self, name: str, config: Mapping[str, Any]) -> Change | None:
        return by_head(config["num_attention_heads"]) if ".query_key_value." in name else None


class GPT2(Architecture):
    name, model_type = "gpt2", "gpt2"
    biases = ALL
    norm = (EPS, "layer_norm_epsilon")
    outer = ("transformer.wte", "transformer.wpe", "transformer.ln_f", "lm_head")
    stack = "transformer.h"
    layer = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    RENAMED = {
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
        "intermediate_size": "n_inner",
    }

    def config(self, metadata: Metadata) -> dict[str, Any]:
        config = super().config(metadata)
        for name in ("head_dim", "num_key_value_heads", "rope_parameters"):
            del config[name]
        return {self.RENAMED.get(name, name): value for name, value in config.items()}

    def fields(self, config: Mapping[str, Any]) -> dict[str, Any]:
        usual = {name: config.get(theirs) for name, theirs in self.RENAMED.items()}
        usual["intermediate_size"] = usual["intermediate_size"] or 4 * config["n_embd"]
        fields = super().fields({**config, **usual})
        return {
            name: value
            for name, value in fields.items()
            if not name.startswith(("rope.", "attention.key", "attention.value"))
        }

    def change(self, name: str, config: Mapping[str, Any]) -> Change | None:
        return TRANSPOSED if name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")) else None


# Of several with one name, the first that fits is taken.
EVERY: tuple[Architecture, ...] = (
    Mixtral(),
    Llama(),
    Qwen2(),
    Qwen3(),
    Qwen3MoE(),
    Phi3(),
    Gemma(),
    Gemma2(),
    Gemma3(),
    Cohere2(),
    Olmo3(),
    Olmo2(),
    Exaone4(),
    SmolLM3(),
    Granite(),
    StarCoder2(),
    GPTNeoX(),
    GPT2(),
)


def find_architecture(metadata: Metadata) -> Architecture:
    """The architecture of a file. Raises UserError where none is known."""
    for one in EVERY:
        if one.name == metadata.architecture and one.fits(metadata):
            return one
    known = ", ".join(sorted({one.name for one in EVERY}))
    raise UserError(
        f"{metadata.where}: general.architecture: got {shown(metadata.architecture)}, which cannot be imported; "
        f"known are {known}"
    )


def by_type(config: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The rotary parameters of layers of this type."""
    found: Mapping[str, Any] = config["rope_parameters"].get(kind) or {}
    return found

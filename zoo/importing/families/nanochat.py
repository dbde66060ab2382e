"""nanochat (Karpathy, 2025) as transformers has it: norms without weights, one of them right after the embedding,
squared ReLU, QK-norm after the rotation, soft-capped logits; full attention in every layer.

nanochat rotates each pair of channels (a, b) the other way round, which is the usual rotation of (b, a). So the halves
of each head's rows of q and k change places here. QK-norms without weights are not affected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from miniwin.specs import ModelSpec
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.basic_config import basic_config, bound, one_activation, one_bias, one_eps
from miniwin.zoo.importing.dense import DenseFamily, head_counts, model_data
from miniwin.zoo.importing.families.gpt_neox import PLAIN_ACTIVATIONS, plain_mlp, same
from miniwin.zoo.importing.family import Fields, Rule
from miniwin.zoo.importing.rope import rope_parameters, rope_position, rope_table
from miniwin.zoo.importing.words import Words

NORM = {"type": "rmsnorm", "gain": "none"}


class NanoChat(DenseFamily):
    model_types = ("nanochat",)
    architecture = "NanoChatForCausalLM"
    defaults = {
        "hidden_act": "relu2",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "max_position_embeddings": 2048,
        "final_logit_softcapping": 15.0,
    }

    def spec(self, config: dict[str, Any], name: str, asked: Asked) -> dict[str, Any]:
        fields = Fields(config, "nanochat", self.defaults)
        norm = {**NORM, "eps": fields.real("rms_norm_eps")}
        attention: dict[str, Any] = {**head_counts(fields), "qk_norm": norm, "qk_norm_order": "after", "window": None}
        if fields.flag("attention_bias"):
            attention |= {"qkv_bias": True, "o_bias": True}
        attention["position"] = rope_position(fields, asked, rope_table(fields)[None])
        layer = {"attention": attention, "mlp": plain_mlp(fields), "norm": norm}
        data = model_data(fields, name, [layer] * fields.count("num_hidden_layers"), norm) | {"embed_norm": norm}
        cap = bound(fields, "final_logit_softcapping")
        fields.finish()
        return data if cap is None else data | {"logit_softcap": cap}

    def layer_rules(self, layer: Any, ours: str, theirs: str) -> list[Rule]:
        attention = layer.attention
        swap = _swap_halves(attention.head_dim)
        kinds = ("weight", "bias") if attention.qkv_bias else ("weight",)
        turned = [
            Rule((f"{ours}.attention.{part}.{kind}",), (f"{theirs}.self_attn.{part}.{kind}",), swap, swap)
            for part in ("q_proj", "k_proj")
            for kind in kinds
        ]
        return [
            *turned,
            *same(f"{ours}.attention.v_proj", f"{theirs}.self_attn.v_proj", attention.qkv_bias),
            *same(f"{ours}.attention.o_proj", f"{theirs}.self_attn.o_proj", attention.o_bias),
            *same(f"{ours}.mlp.up_proj", f"{theirs}.mlp.fc1", False),
            *same(f"{ours}.mlp.down_proj", f"{theirs}.mlp.fc2", False),
        ]

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        words = Words(spec, "nanochat")
        for field in ("embed_scale", "logit_scale"):
            words.outer(field, None)
        words.must("residual", "pre")
        words.plain_attention()
        words.must("attention.window", None)
        words.must("attention.qk_norm_scope", "head")
        words.must("attention.qk_norm_order", "after")
        activation = one_activation(words, words.each("mlp"), PLAIN_ACTIVATIONS)
        words.must("mlp.bias", False)
        norms = [("attention.qk_norm", norm) for norm in words.each("attention.qk_norm")]
        return basic_config(words, "nanochat", self.architecture) | {
            "intermediate_size": words.same("mlp.intermediate_size"),
            "hidden_act": activation,
            "rms_norm_eps": one_eps(words, NORM, [*norms, ("embed_norm", spec.embed_norm)]),
            "attention_bias": one_bias(words),
            "final_logit_softcapping": spec.logit_softcap,
            "rope_parameters": rope_parameters(words.same("attention.position"), "attention.position"),
        }


def _swap_halves(head_dim: int) -> Callable[[list[Tensor]], list[Tensor]]:
    """A `read` that puts the second half of each head's rows (H * D, ..) first. It is its own inverse."""

    def swap(tensors: list[Tensor]) -> list[Tensor]:
        return [tensors[0].unflatten(0, (-1, 2, head_dim // 2)).flip(1).flatten(0, 2)]

    return swap

"""GPT-NeoX (arXiv 2204.06745) and Pythia: RoPE on a part of each head, LayerNorm and biases everywhere, attention and
MLP side by side with a norm each (or one after the other, `use_parallel_residual: false`), a plain MLP.

q, k and v are one matrix whose rows are head by head: the head's q, then its k, then its v.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from miniwin.specs import ModelSpec
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.basic_config import basic_config, one_activation, one_bias, one_eps
from miniwin.zoo.importing.dense import DenseFamily, head_counts, model_data
from miniwin.zoo.importing.family import CannotSay, Fields, Rule
from miniwin.zoo.importing.rope import rope_parameters, rope_position, rope_table
from miniwin.zoo.importing.words import Words

NORM = {"type": "layernorm", "bias": True}
# `gelu_fast` and `gelu_accurate` are the tanh approximation too, with its constant written out.
PLAIN_ACTIVATIONS: dict[str, dict[str, Any]] = {
    "gelu": {"type": "gelu"},
    "gelu_python": {"type": "gelu"},
    "gelu_pytorch_tanh": {"type": "gelu", "approximate": "tanh"},
    "gelu_python_tanh": {"type": "gelu", "approximate": "tanh"},
    "gelu_new": {"type": "gelu", "approximate": "tanh"},
    "gelu_fast": {"type": "gelu", "approximate": "tanh"},
    "gelu_accurate": {"type": "gelu", "approximate": "tanh"},
    "relu2": {"type": "relu2"},
}


class GPTNeoX(DenseFamily):
    model_types = ("gpt_neox",)
    architecture = "GPTNeoXForCausalLM"
    defaults = {
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "attention_bias": True,
        "max_position_embeddings": 2048,
        "use_parallel_residual": True,
        "rotary_pct": 0.25,
    }

    def spec(self, config: dict[str, Any], name: str, asked: Asked) -> dict[str, Any]:
        fields = Fields(config, "gpt_neox", self.defaults)
        for field in ("attention_probs_dropout_prob", "hidden_dropout_prob"):
            fields.raw(field)  # training only
        heads: dict[str, Any] = head_counts(fields)
        if heads["num_kv_heads"] != heads["num_heads"]:
            raise fields.refuse("num_key_value_heads", "a gpt_neox model has as many as num_attention_heads")
        if heads["num_heads"] * heads["head_dim"] != fields.count("hidden_size"):
            raise fields.refuse("num_attention_heads", "hidden_size must be num_attention_heads * head_dim")
        if fields.flag("attention_bias"):
            heads |= {"qkv_bias": True, "o_bias": True}
        norm = {**NORM, "eps": fields.real("layer_norm_eps")}
        layer = {
            "attention": {**heads, "window": None, "position": self._position(fields, asked)},
            "mlp": plain_mlp(fields) | {"bias": True},
            "norm": norm,
            "residual": "parallel-two-norms" if fields.flag("use_parallel_residual") else "pre",
        }
        data = model_data(fields, name, [layer] * fields.count("num_hidden_layers"), norm)
        fields.finish()
        return data

    @staticmethod
    def _position(fields: Fields, asked: Asked) -> dict[str, Any]:
        parameters = rope_table(fields)[None]
        theta, share = fields.raw("rotary_emb_base"), fields.raw("rotary_pct")
        if parameters.get("rope_theta") is None and theta is not None:
            parameters["rope_theta"] = theta
        if parameters.get("partial_rotary_factor") is None:
            parameters["partial_rotary_factor"] = share
        for field, default in (("rope_theta", 10_000), ("partial_rotary_factor", None)):
            counts = parameters.get(field, default)
            if fields.raw(field) not in (None, counts):
                raise fields.refuse(
                    field, f"transformers looks at rotary_emb_base and rotary_pct here, and takes {counts}; remove it"
                )
        return rope_position(fields, asked, parameters, partial=True)

    def rules(self, spec: ModelSpec) -> list[Rule]:
        # Checkpoints call the head embed_out; transformers 5, in memory, calls it lm_head.
        heads = ("embed_out.weight", "lm_head.weight")
        tied = spec.tie_word_embeddings
        rules = [Rule(("embed_tokens.weight",), ("gpt_neox.embed_in.weight",), copies=heads if tied else ())]
        if not tied:
            rules.append(Rule(("lm_head.weight",), heads[:1], instead=(Rule(("lm_head.weight",), heads[1:]),)))
        rules += same("norm", "gpt_neox.final_layer_norm", True)
        for i, layer in enumerate(spec.layer_specs):
            rules += self.layer_rules(layer, f"layers.{i}", f"gpt_neox.layers.{i}")
        return rules

    def layer_rules(self, layer: Any, ours: str, theirs: str) -> list[Rule]:
        attention = layer.attention
        kinds = ("weight", "bias") if attention.qkv_bias else ("weight",)
        read, write = _split_heads(attention.num_heads), _join_heads(attention.num_heads)
        fused = [
            Rule(
                tuple(f"{ours}.attention.{part}_proj.{kind}" for part in "qkv"),
                (f"{theirs}.attention.query_key_value.{kind}",),
                read,
                write,
            )
            for kind in kinds
        ]
        return [
            *fused,
            *same(f"{ours}.attention.o_proj", f"{theirs}.attention.dense", attention.o_bias),
            *same(f"{ours}.mlp.up_proj", f"{theirs}.mlp.dense_h_to_4h", True),
            *same(f"{ours}.mlp.down_proj", f"{theirs}.mlp.dense_4h_to_h", True),
            *same(f"{ours}.attention_norm", f"{theirs}.input_layernorm", True),
            *same(f"{ours}.mlp_norm", f"{theirs}.post_attention_layernorm", True),
        ]

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        words = Words(spec, "gpt_neox")
        words.plain_decoder()
        words.plain_attention()
        words.must("attention.window", None)
        words.must("attention.qk_norm", None)
        residual = words.must("residual", "pre", "parallel-two-norms")
        activation = one_activation(words, words.each("mlp"), PLAIN_ACTIVATIONS)
        words.must("mlp.bias", True)
        said = basic_config(words, "gpt_neox", self.architecture)
        num_heads, head_dim = said["num_attention_heads"], said.pop("head_dim")
        if said.pop("num_key_value_heads") != num_heads:
            raise CannotSay("attention.num_kv_heads", f"a gpt_neox model has as many as num_heads, {num_heads}")
        if num_heads * head_dim != spec.hidden_size:
            raise CannotSay("attention.head_dim", f"got {head_dim}; a gpt_neox model has hidden_size / num_heads")
        position = rope_parameters(words.same("attention.position"), "attention.position", partial=True)
        position.setdefault("partial_rotary_factor", 1.0)
        return said | {
            "intermediate_size": words.same("mlp.intermediate_size"),
            "hidden_act": activation,
            "layer_norm_eps": one_eps(words, NORM),
            "attention_bias": one_bias(words),
            "use_parallel_residual": residual != "pre",
            "rope_parameters": position,
        }


def plain_mlp(fields: Fields, activation: str = "hidden_act", size: int | None = None) -> dict[str, Any]:
    """The MLP of two matrices, with the activation that the field `activation` names. Raises UserError.

    size: its inner size; None: as `intermediate_size` says.
    """
    act = fields.raw(activation)
    if act not in PLAIN_ACTIVATIONS:
        raise fields.refuse(activation, f"expected one of {', '.join(PLAIN_ACTIVATIONS)}")
    return {**PLAIN_ACTIVATIONS[act], "intermediate_size": size or fields.count("intermediate_size")}


def same(ours: str, theirs: str, bias: bool) -> list[Rule]:
    """The rules of a module's weight, and with `bias` of its bias, under another name."""
    return [Rule((f"{ours}.{kind}",), (f"{theirs}.{kind}",)) for kind in ("weight", "bias")[: 1 + bias]]


def _split_heads(num_heads: int) -> Any:
    """A `read` of the fused matrix as q, k and v."""

    def read(fused: list[Tensor]) -> list[Tensor]:
        q, k, v = fused[0].unflatten(0, (num_heads, 3, -1)).unbind(1)  # (3 C, ..) -> three of (H, D, ..)
        return [part.flatten(0, 1).contiguous() for part in (q, k, v)]

    return read


def _join_heads(num_heads: int) -> Any:
    """A `write` of q, k and v as the fused matrix: the inverse of `_split_heads`."""

    def write(parts: list[Tensor]) -> list[Tensor]:
        return [torch.stack([part.unflatten(0, (num_heads, -1)) for part in parts], dim=1).flatten(0, 2)]

    return write

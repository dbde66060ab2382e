"""What the Llama-like families share: one attention, one gated MLP and one norm for all layers. Layers differ only in
window and position encoding.

A family adds what is its own: its defaults, where its norms stand, and the window and position of each layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from miniwin.specs import ModelSpec
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.family import Fields, Rule
from miniwin.zoo.importing.layout import lay_out
from miniwin.zoo.importing.rope import longest_context
from miniwin.zoo.importing.words import Words

ACTIVATIONS: dict[str, dict[str, Any]] = {
    "silu": {"type": "swiglu"},
    "swish": {"type": "swiglu"},
    "gelu": {"type": "geglu"},
    "gelu_new": {"type": "geglu", "approximate": "tanh"},
    "gelu_pytorch_tanh": {"type": "geglu", "approximate": "tanh"},
}
LAYER_NORMS: dict[str, dict[str, str]] = {
    "pre": {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"},
    "post": {"attention_post_norm": "post_attention_layernorm", "mlp_post_norm": "post_feedforward_layernorm"},
    "sandwich": {
        "attention_norm": "input_layernorm",
        "attention_post_norm": "post_attention_layernorm",
        "mlp_norm": "pre_feedforward_layernorm",
        "mlp_post_norm": "post_feedforward_layernorm",
    },
    "parallel": {"attention_norm": "input_layernorm"},
}

Sight = tuple[int | None, dict[str, Any]]  # a layer's window and its position, as data


def gated_mlp(
    fields: Fields, bias: bool = False, size: str = "intermediate_size", activation: str = "hidden_act"
) -> dict[str, Any]:
    """The gated MLP that the config describes. size, activation: the names of the fields that say these."""
    act = fields.raw(activation)
    if not isinstance(act, str) or act not in ACTIVATIONS:
        raise fields.refuse(activation, f"expected one of {', '.join(ACTIVATIONS)}")
    mlp = {**ACTIVATIONS[act], "intermediate_size": fields.count(size)}
    return mlp | ({"bias": True} if bias else {})


def head_counts(fields: Fields) -> dict[str, int]:
    """num_heads, num_kv_heads and head_dim, with the defaults of transformers' config classes."""
    num_heads = fields.count("num_attention_heads")
    num_kv_heads = fields.maybe_count("num_key_value_heads") or num_heads
    head_dim = fields.maybe_count("head_dim") or fields.count("hidden_size") // num_heads
    if num_heads % num_kv_heads:
        raise fields.refuse("num_key_value_heads", f"it must divide num_attention_heads {num_heads}")
    return {"num_heads": num_heads, "num_kv_heads": num_kv_heads, "head_dim": head_dim}


def model_data(
    fields: Fields, name: str, layers: list[dict[str, Any]], norm: dict[str, Any], width: str = "hidden_size"
) -> dict[str, Any]:
    """The model spec as data. layers: one mapping for each layer. width: the name of the field for hidden_size."""
    return {
        "kind": "model",
        "format": 1,
        "name": name,
        "vocab_size": fields.count("vocab_size"),
        "hidden_size": fields.count(width),
        **lay_out(layers),
        "norm": norm,
        "tie_word_embeddings": fields.flag("tie_word_embeddings"),
    }


def norm_parameters(norm: Any) -> list[str]:
    """The names of a norm's parameters."""
    if norm is None or getattr(norm, "gain", "plain") == "none":
        return []
    return ["weight", "bias"] if getattr(norm, "bias", False) else ["weight"]


def outer_rules(spec: ModelSpec, embed: str, norm: str, head: str = "lm_head.weight") -> list[Rule]:
    """The rules of embedding, final norm and head. embed, head: names of tensors; norm: name of a module."""
    rules = [Rule(("embed_tokens.weight",), (embed,), copies=(head,) if spec.tie_word_embeddings else ())]
    rules += [Rule((f"norm.{name}",), (f"{norm}.{name}",)) for name in norm_parameters(spec.norm)]
    if not spec.tie_word_embeddings:
        rules.append(Rule(("lm_head.weight",), (head,)))
    return rules


def norm_rules(layer: Any, ours: str, theirs: str) -> list[Rule]:
    """The rules of a layer's norms, under the usual names of its kind of residual."""
    names = LAYER_NORMS[layer.residual].items()
    return [
        Rule((f"{ours}.{here}.{name}",), (f"{theirs}.{there}.{name}",))
        for here, there in names
        for name in norm_parameters(layer.norm)
    ]


def attention_rules(attention: Any, ours: str, theirs: str) -> list[Rule]:
    """The rules of four projections, their biases and the QK-norms, under the usual names."""
    rules = []
    for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
        biased = attention.o_bias if part == "o_proj" else attention.qkv_bias
        rules += [Rule((f"{ours}.{part}.{n}",), (f"{theirs}.{part}.{n}",)) for n in ("weight", "bias")[: 1 + biased]]
    for part in ("q_norm", "k_norm"):
        rules += [Rule((f"{ours}.{part}.{n}",), (f"{theirs}.{part}.{n}",)) for n in norm_parameters(attention.qk_norm)]
    return rules


def mlp_rules(mlp: Any, ours: str, theirs: str) -> list[Rule]:
    """The rules of three projections, with biases or without."""
    return [
        Rule((f"{ours}.{part}.{n}",), (f"{theirs}.{part}.{n}",))
        for part in ("gate_proj", "up_proj", "down_proj")
        for n in ("weight", "bias")[: 1 + mlp.bias]
    ]


class DenseFamily:
    """The shared part. A subclass gives the class attributes, `sights` for import and `said_sights` for export."""

    model_types: tuple[str, ...]
    architecture: ClassVar[str]
    defaults: ClassVar[Mapping[str, Any]]
    residual: ClassVar[str] = "pre"
    qk_norm: ClassVar[str | None] = None  # its scope, or None for a family without QK-norm
    biases: ClassVar[tuple[str, ...]] = ()  # those of attention_bias and mlp_bias that the family has

    def sights(self, fields: Fields, asked: Asked, num_layers: int) -> list[Sight]:
        """Each layer's window and position."""
        raise NotImplementedError

    def said_sights(self, words: Words) -> dict[str, Any]:
        """The fields of the config that say what `sights` reads."""
        raise NotImplementedError

    def attention_biases(self, fields: Fields) -> dict[str, Any]:
        """Which projections of the attention have biases."""
        said = "attention_bias" in self.biases and fields.flag("attention_bias")
        return {"qkv_bias": True, "o_bias": True} if said else {}

    def said_biases(self, words: Words) -> dict[str, Any]:
        """The inverse of `attention_biases`, and the field that says whether the MLP has biases."""
        return words.biases(self.biases)

    def spec(self, config: dict[str, Any], name: str, asked: Asked) -> dict[str, Any]:
        fields = Fields(config, self.model_types[0], self.defaults)
        num_layers = fields.count("num_hidden_layers")
        norm = {"type": "rmsnorm", "eps": fields.real("rms_norm_eps")}
        shared: dict[str, Any] = head_counts(fields)
        shared |= self.attention_biases(fields)
        if self.qk_norm is not None:
            shared |= {"qk_norm": norm} | ({} if self.qk_norm == "head" else {"qk_norm_scope": self.qk_norm})
        mlp = gated_mlp(fields, "mlp_bias" in self.biases and fields.flag("mlp_bias"))
        residual = {} if self.residual == "pre" else {"residual": self.residual}
        layers = [
            {"attention": {**shared, "window": window, "position": position}, "mlp": mlp, "norm": norm, **residual}
            for window, position in self.sights(fields, asked, num_layers)
        ]
        data = model_data(fields, name, layers, norm)
        fields.finish()
        return data

    def rules(self, spec: ModelSpec) -> list[Rule]:
        rules = outer_rules(spec, "model.embed_tokens.weight", "model.norm")
        for i, layer in enumerate(spec.layer_specs):
            rules += self.layer_rules(layer, f"layers.{i}", f"model.layers.{i}")
        return rules

    def layer_rules(self, layer: Any, ours: str, theirs: str) -> list[Rule]:
        return [
            *norm_rules(layer, ours, theirs),
            *attention_rules(layer.attention, f"{ours}.attention", f"{theirs}.self_attn"),
            *mlp_rules(layer.mlp, f"{ours}.mlp", f"{theirs}.mlp"),
        ]

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        words = Words(spec, self.model_types[0])
        words.plain_decoder()
        words.plain_attention()
        words.must("residual", self.residual)
        eps = words.rmsnorm_eps(self.qk_norm)
        config = {
            "model_type": self.model_types[0],
            "architectures": [self.architecture],
            "vocab_size": spec.vocab_size,
            "hidden_size": spec.hidden_size,
            "intermediate_size": words.same("mlp.intermediate_size"),
            "num_hidden_layers": spec.num_layers,
            "num_attention_heads": words.same("attention.num_heads"),
            "num_key_value_heads": words.same("attention.num_kv_heads"),
            "head_dim": words.same("attention.head_dim"),
            "hidden_act": words.activation(ACTIVATIONS),
            "rms_norm_eps": eps,
            "max_position_embeddings": longest_context(spec),
            "tie_word_embeddings": spec.tie_word_embeddings,
            # The tokenizer says these. Left out, they would default to ids of the family's own vocabulary.
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
        }
        return config | self.said_biases(words) | self.said_sights(words)

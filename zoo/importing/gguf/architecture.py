"""What the architectures of llama.cpp share: sizes, heads and rotation <-> the fields of a Hugging Face config.

    metadata --config()--> config.json --fields()--> metadata

Families read the config that comes of a file as they read any other (zoo/importing/families). An architecture adds what
is its own: fields, windows, modules, and what llama.cpp changes in values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from miniwin.zoo.importing.gguf.metadata import Metadata
from miniwin.zoo.importing.gguf.names import PLUS_ONE, Change, known_names, permuted
from miniwin.zoo.importing.gguf.rope import rope_fields, rope_parameters

OUTER = ("model.embed_tokens", "model.norm", "lm_head")
ATTENTION = tuple(f"self_attn.{part}_proj" for part in "qkvo")
QK_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
PRE = ("input_layernorm", "post_attention_layernorm")
POST = ("post_attention_layernorm", "post_feedforward_layernorm")
SANDWICH = (*PRE, "pre_feedforward_layernorm", "post_feedforward_layernorm")
FULL, SLIDING = "full_attention", "sliding_attention"


class Architecture:
    """One architecture of llama.cpp, or that of its forms which is one family of Hugging Face's."""

    name: ClassVar[str]  # general.architecture
    model_type: ClassVar[str]
    outer: ClassVar[tuple[str, ...]] = OUTER
    layer: ClassVar[tuple[str, ...]] = (*PRE, *ATTENTION, *MLP)
    stack: ClassVar[str] = "model.layers"
    experts: ClassVar[Mapping[str, str]] = {}
    norm: ClassVar[tuple[str, str]] = ("attention.layer_norm_rms_epsilon", "rms_norm_eps")
    permuted: ClassVar[bool] = False
    plus_one: ClassVar[bool] = False
    ties: ClassVar[tuple[bool, ...]] = (True, False)  # whether head and embedding may be one, or two, for llama.cpp
    biases: ClassVar[tuple[str, ...]] = ()  # ends of the modules that may have biases, for llama.cpp

    def fits(self, metadata: Metadata) -> bool:
        """Whether a file of this name is of this form."""
        return True

    # -- in

    def config(self, metadata: Metadata) -> dict[str, Any]:
        """The config.json of the model. Raises UserError for what it cannot say."""
        heads, hidden = metadata.count("attention.head_count"), metadata.count("embedding_length")
        head_dim = metadata.count("attention.key_length", max(1, hidden // heads))
        if metadata.count("attention.value_length", head_dim) != head_dim:
            raise metadata.refuse("attention.value_length", f"keys have {head_dim}; expected the same")
        config = {
            "model_type": self.model_type,
            "vocab_size": metadata.shape("token_embd.weight")[0],
            "hidden_size": hidden,
            "num_hidden_layers": metadata.count("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": metadata.count("attention.head_count_kv", heads),
            "head_dim": head_dim,
            self.norm[1]: metadata.real(self.norm[0]),
            "max_position_embeddings": metadata.count("context_length"),
            "rope_parameters": rope_parameters(metadata, head_dim),
            "tie_word_embeddings": "output.weight" not in metadata.tensors,
        }
        if "feed_forward_length" in metadata:
            config["intermediate_size"] = metadata.count("feed_forward_length")
        config |= self.more(metadata, config)
        metadata.finish()
        return config

    def more(self, metadata: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
        """Further fields of the config, from those that are there."""
        return {}

    # -- out

    def fields(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The metadata that says this config, without the architecture before each name; None for what is left out."""
        head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        fields = {
            "context_length": config["max_position_embeddings"],
            "embedding_length": config["hidden_size"],
            "block_count": config["num_hidden_layers"],
            "feed_forward_length": config.get("intermediate_size"),
            "attention.head_count": config["num_attention_heads"],
            "attention.head_count_kv": config.get("num_key_value_heads"),
            "attention.key_length": head_dim,
            "attention.value_length": head_dim,
            self.norm[0]: float(config[self.norm[1]]),
            "vocab_size": config["vocab_size"],
        }
        return fields | rope_fields(self.rotary(config), head_dim) | self.said(config)

    def rotary(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """The rotary parameters of the layers that see everything."""
        found: Mapping[str, Any] = config.get("rope_parameters") or {}
        return found

    def said(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse of `more`."""
        return {}

    # -- tensors

    def biased(self, module: str) -> bool:
        return module.endswith(self.biases)

    def names(self, layers: int) -> dict[str, str]:
        """The modules by their names in a file -> by their names in Hugging Face's models."""
        return known_names(self.name, layers, self.stack, (*self.layer, *self.experts), self.outer)

    def change(self, name: str, config: Mapping[str, Any]) -> Change | None:
        """What llama.cpp changes in the tensor of this name of Hugging Face's."""
        if self.plus_one and name.endswith("norm.weight"):
            return PLUS_ONE
        for part, key in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if self.permuted and name.endswith((f".{part}.weight", f".{part}.bias")):
                return permuted(config[key])
        return None


def found_biases(metadata: Metadata) -> dict[str, bool]:
    """attention_bias and mlp_bias, as the tensors of the first layer say."""
    return {
        "attention_bias": "blk.0.attn_q.bias" in metadata.tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in metadata.tensors,
    }


def sliding_types(metadata: Metadata, layers: int, period: int) -> list[str]:
    """The type of each layer: of `period` in a row all but the last slide, or as a list of the file says."""
    name = "attention.sliding_window_pattern"
    said = metadata.array(name)
    if said is not None:
        if len(said) != layers or not all(one in (0, 1) for one in said):
            raise metadata.refuse(name, f"expected true or false for each of {layers} layers")
        return [SLIDING if one else FULL for one in said]
    period = metadata.count(name, period)
    return [FULL if (i + 1) % period == 0 else SLIDING for i in range(layers)]


def said_types(types: list[str], period: int) -> dict[str, Any]:
    """The field that says these types of layers; nothing where llama.cpp takes this `period` by itself."""
    usual = [FULL if (i + 1) % period == 0 else SLIDING for i in range(len(types))]
    return {} if types == usual else {"attention.sliding_window_pattern": [one == SLIDING for one in types]}


def scalar(config: Mapping[str, Any], large: int) -> int:
    """Gemma's query_pre_attn_scalar, which no file says: llama.cpp knows the largest model by its number of layers."""
    wide = config["hidden_size"] // config["num_attention_heads"]
    return wide if config["num_hidden_layers"] == large else int(config["head_dim"])

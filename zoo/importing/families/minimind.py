"""MiniMind (github.com/jingyaogong/minimind): Llama with QK-norm per head before the rotation. Every layer may have a
mixture of experts.

Earlier checkpoints differ in three ways. They have no QK-norm, as their weights show. Their default epsilon is larger.
Their mixture (gated_mixture.py) has shared experts. A token's only expert keeps the share of the gate as its weight.

MiniMind's YaRN is on at every length once max_position_embeddings is beyond the original context. It clamps its ramp at
the last pair (`high_clamp: pairs`). Its attention factor is 1 unless the config gives one.
"""

from __future__ import annotations

from typing import Any

from miniwin.specs import ModelSpec
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.dense import (
    attention_rules,
    gated_mlp,
    head_counts,
    mlp_rules,
    model_data,
    norm_rules,
    outer_rules,
)
from miniwin.zoo.importing.family import CannotSay, Fields, Rule
from miniwin.zoo.importing.gated_mixture import FIELDS as GATED
from miniwin.zoo.importing.gated_mixture import gated_mixture, gated_rules, has_experts, inferred_mixture
from miniwin.zoo.importing.rope import rope_position
from miniwin.zoo.importing.shapes import inferred_heads, inferred_sizes, together

DEFAULTS: dict[str, Any] = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "max_position_embeddings": 32768,
    "inference_rope_scaling": False,
    "tie_word_embeddings": True,
    "use_moe": False,
    "num_experts": 4,
    "num_experts_per_tok": 1,
    "norm_topk_prob": True,
    "router_aux_loss_coef": 5e-4,
}
YARN = {"rope_type": "yarn", "factor": 16, "original_max_position_embeddings": 2048, "beta_fast": 32, "beta_slow": 1}
EARLIER = DEFAULTS | {
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "num_experts": None,
    "num_experts_per_tok": 2,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "aux_loss_alpha": 0.01,
}
# Fields of the mixtures of both versions. A model without a mixture, or with the other version's, ignores them.
MOE = (*GATED, "moe_intermediate_size", "router_aux_loss_coef")
Q_NORM = "model.layers.0.self_attn.q_norm.weight"


class MiniMind:
    model_types = ("minimind",)

    def spec(self, config: dict[str, Any], name: str, asked: Asked) -> dict[str, Any]:
        # Without weights, the config's fields tell the versions apart.
        earlier = Q_NORM not in asked.shapes if asked.shapes else "n_routed_experts" in config
        values = together(self._inferred(asked, earlier), asked)
        fields = Fields(values, "minimind", EARLIER if earlier else DEFAULTS)
        norm = {"type": "rmsnorm", "eps": fields.real("rms_norm_eps")}
        attention = {**head_counts(fields), "window": None, "position": self._position(fields, asked)}
        if not earlier:
            attention["qk_norm"] = norm
        layer = {"attention": attention, "mlp": self._mlp(fields, earlier), "norm": norm}
        data = model_data(fields, name, [layer] * fields.count("num_hidden_layers"), norm)
        fields.finish()
        return data

    def rules(self, spec: ModelSpec) -> list[Rule]:
        rules = outer_rules(spec, "model.embed_tokens.weight", "model.norm")
        for i, layer in enumerate(spec.layer_specs):
            ours, theirs = f"layers.{i}", f"model.layers.{i}"
            mlp: Any = layer.mlp
            rules += norm_rules(layer, ours, theirs)
            rules += attention_rules(layer.attention, f"{ours}.attention", f"{theirs}.self_attn")
            rules += (gated_rules if mlp.type == "moe" else mlp_rules)(mlp, f"{ours}.mlp", f"{theirs}.mlp")
        return rules

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        raise CannotSay("model_type", "transformers has no minimind model of its own")

    @staticmethod
    def _inferred(asked: Asked, earlier: bool) -> dict[str, Any]:
        values = inferred_sizes(asked)
        if len(asked.shapes.get(Q_NORM, ())) == 1:
            (size,) = asked.shapes[Q_NORM]
            values["head_dim"] = asked.infer("head_dim", size, f"{Q_NORM} has shape {asked.shapes[Q_NORM]}")
            inferred_heads(asked, "model.layers.0.self_attn", size, values)
        elif asked.shapes and not asked.config:
            asked.require(num_attention_heads="heads of attention, such as 8")
            heads, hidden = asked.get("num_attention_heads"), values.get("hidden_size")
            if isinstance(heads, int) and heads > 0 and hidden is not None:
                inferred_heads(asked, "model.layers.0.self_attn", asked.get("head_dim") or hidden // heads, values)
        if earlier:
            return values | (inferred_mixture(asked) if has_experts(asked) else {})
        experts = {name.split(".mlp.experts.")[1].split(".")[0] for name in asked.shapes if ".mlp.experts." in name}
        if experts:
            evidence = f"the weights have {len(experts)} experts in a layer"
            values["use_moe"] = asked.infer("use_moe", True, evidence)
            values["num_experts"] = asked.infer("num_experts", len(experts), evidence)
            first = "model.layers.0.mlp.experts.0.gate_proj.weight"
            if len(asked.shapes.get(first, ())) == 2:
                size = asked.shapes[first][0]
                values["moe_intermediate_size"] = asked.infer("moe_intermediate_size", size, f"{first} has {size} rows")
            if not asked.config:
                asked.require(num_experts_per_tok="how many experts a token goes through, such as 1")
        return values

    @staticmethod
    def _position(fields: Fields, asked: Asked) -> dict[str, Any]:
        said = fields.mapping("rope_scaling") or fields.mapping("rope_parameters")
        fields.raw("rope_parameters")
        kind = said.get("rope_type") or said.get("type") or "default"
        scaled = fields.flag("inference_rope_scaling")
        if kind not in ("default", "yarn"):
            raise fields.refuse("rope_parameters", "a minimind model has rope_type default or yarn")
        if kind == "yarn" and not scaled:
            raise fields.refuse("rope_parameters", "inference_rope_scaling is false: set it to true, or remove these")
        yarn = {**YARN, "attention_factor": 1.0, **(said if kind == "yarn" else {})}
        plain = {"rope_theta": said.get("rope_theta")}
        if not scaled:
            return rope_position(fields, asked, plain)
        if fields.count("max_position_embeddings") <= yarn["original_max_position_embeddings"]:
            if yarn["attention_factor"] != 1.0:
                raise fields.refuse("rope_parameters", "attention_factor without a scaling; set it to 1.0")
            return rope_position(fields, asked, plain)
        position = rope_position(fields, asked, yarn)
        position["scaling"]["high_clamp"] = "pairs"
        return position

    @staticmethod
    def _mlp(fields: Fields, earlier: bool) -> dict[str, Any]:
        mixture = fields.flag("use_moe")
        if mixture and earlier:
            fields.only("moe_intermediate_size", why="earlier versions have experts of intermediate_size")
        for unused in MOE:
            fields.raw(unused)
        if not mixture:
            return gated_mlp(fields)
        if earlier:
            return gated_mixture(fields)
        own = fields.maybe_count("moe_intermediate_size") is not None
        return {
            "type": "moe",
            "num_experts": fields.count("num_experts"),
            "experts_per_token": fields.count("num_experts_per_tok"),
            "expert": gated_mlp(fields, size="moe_intermediate_size" if own else "intermediate_size"),
            "router": {"type": "softmax-topk", "normalise": fields.flag("norm_topk_prob")},
            "balance_loss": fields.real("router_aux_loss_coef"),
        }

"""gpt-oss (arXiv 2508.10925): a mixture of clamped-SwiGLU experts with biases, a learned sink in every head, YaRN.
Every other layer, or those that `layer_types` names, have a window.

The experts are stacked and transposed; gate and up alternate. The published files hold the experts in MXFP4, which is
refused: transformers can write them in bfloat16.
"""

from __future__ import annotations

from typing import Any

from miniwin.specs import ModelSpec
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.basic_config import basic_config, one_bias, one_eps, positive
from miniwin.zoo.importing.dense import DenseFamily, attention_rules, head_counts, model_data, norm_rules
from miniwin.zoo.importing.experts import Stack, expert_counts, said_counts
from miniwin.zoo.importing.families.gpt_neox import same
from miniwin.zoo.importing.family import Fields, Rule
from miniwin.zoo.importing.rope import rope_parameters, rope_position, rope_table
from miniwin.zoo.importing.words import Words

FULL, SLIDING = "full_attention", "sliding_attention"
STACK = Stack(transposed=True, alternating=True, bias=True)
NORM = {"type": "rmsnorm", "gain": "plain"}
YARN = {  # the default of a config without rotary parameters
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}


class GptOss(DenseFamily):
    model_types = ("gpt_oss",)
    architecture = "GptOssForCausalLM"
    defaults = {
        "num_key_value_heads": 8,
        "head_dim": 64,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "attention_bias": True,
        "max_position_embeddings": 131_072,
        "sliding_window": 128,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "swiglu_alpha": 1.702,
        "swiglu_limit": 7.0,
        "router_aux_loss_coef": 0.001,
    }

    def spec(self, config: dict[str, Any], name: str, asked: Asked) -> dict[str, Any]:
        fields = Fields(config, "gpt_oss", self.defaults)
        if config.get("quantization_config"):
            raise fields.refuse(
                "quantization_config",
                "quantised experts cannot be imported; load the model in transformers with "
                "Mxfp4Config(dequantize=True) and save it, which writes them in bfloat16",
            )
        fields.only(
            "hidden_act", "silu", why="gpt-oss experts have a clamped SwiGLU, whatever this says; expected silu"
        )
        num_layers = fields.count("num_hidden_layers")
        window = fields.maybe_count("sliding_window")
        types = fields.layer_types(num_layers, (FULL, SLIDING))
        types = [FULL if i % 2 else SLIDING for i in range(num_layers)] if types is None else types
        if window is None and SLIDING in types:
            raise fields.refuse("sliding_window", "sliding layers need one")
        parameters = rope_table(fields)[None]
        silent = not parameters and fields.raw("rope_parameters") is None
        position = rope_position(fields, asked, dict(YARN) if silent else parameters, default_theta=150_000.0)
        attention: dict[str, Any] = {**head_counts(fields), "sinks": True, "position": position}
        if fields.flag("attention_bias"):
            attention |= {"qkv_bias": True, "o_bias": True}
        norm = {**NORM, "eps": fields.real("rms_norm_eps")}
        mlp = self._mixture(fields)
        layers = [
            {"attention": {**attention, "window": window if one == SLIDING else None}, "mlp": mlp, "norm": norm}
            for one in types
        ]
        data = model_data(fields, name, layers, norm)
        fields.finish()
        return data

    @staticmethod
    def _mixture(fields: Fields) -> dict[str, Any]:
        counts = expert_counts(fields)
        again = fields.raw("experts_per_token")  # published configs say this as well
        if again is not None and again != counts["experts_per_token"]:
            raise fields.refuse("experts_per_token", "num_experts_per_tok, which counts, says otherwise; remove it")
        expert = {
            "type": "clamped-swiglu",
            "intermediate_size": fields.count("intermediate_size"),
            "bias": True,
            "limit": positive(fields, "swiglu_limit"),
            "alpha": positive(fields, "swiglu_alpha"),
        }
        return {"type": "moe", **counts, "expert": expert, "router": {"type": "topk-softmax"}, "router_bias": True}

    def layer_rules(self, layer: Any, ours: str, theirs: str) -> list[Rule]:
        return [
            *norm_rules(layer, ours, theirs),
            *attention_rules(layer.attention, f"{ours}.attention", f"{theirs}.self_attn"),
            Rule((f"{ours}.attention.sinks",), (f"{theirs}.self_attn.sinks",)),
            *same(f"{ours}.mlp.router", f"{theirs}.mlp.router", True),
            STACK.rule(f"{ours}.mlp.experts", f"{theirs}.mlp.experts", layer.mlp.num_experts),
        ]

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        words = Words(spec, "gpt_oss")
        words.plain_decoder()
        words.must("residual", "pre")
        words.plain_attention("sinks")
        words.must("attention.sinks", True)
        words.must("attention.qk_norm", None)
        for path, value in (
            ("mlp.type", "moe"),
            ("mlp.shared", None),
            ("mlp.router.type", "topk-softmax"),
            ("mlp.router_bias", True),
            ("mlp.expert.type", "clamped-swiglu"),
            ("mlp.expert.bias", True),
        ):
            words.must(path, value)
        return basic_config(words, "gpt_oss", self.architecture) | {
            "intermediate_size": words.same("mlp.expert.intermediate_size"),
            "hidden_act": "silu",
            "swiglu_limit": words.same("mlp.expert.limit"),
            "swiglu_alpha": words.same("mlp.expert.alpha"),
            "rms_norm_eps": one_eps(words, NORM),
            "attention_bias": one_bias(words),
            "sliding_window": words.sliding() or 128,  # transformers wants one even where no layer has it
            "layer_types": words.layer_types(),
            "rope_parameters": rope_parameters(words.same("attention.position"), "attention.position"),
            **said_counts(words, words.each("mlp")),
        }

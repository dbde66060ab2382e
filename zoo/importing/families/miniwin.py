"""MiniWin as its authors wrote it (arXiv 2605.27980, github.com/Cominder/miniwin): sliding layers with P-RoPE or ALiBi,
and global layers without positions. `attention_pattern` (S and L) lays them out; the last layer is global by default.
With `use_moe` every layer has a mixture of experts (gated_mixture.py).

An import computes what the authors' code computes, defects included. The period is the window. A partial rotation takes
its frequencies from the whole head, so the two channels of a pair turn by different angles (`pairing:
half-mismatched`). The logit scale of global layers depends on the total length (`total_length: true`), so a prefill is
not causal.

A checkpoint file says neither window nor pattern: the user has to.
"""

from __future__ import annotations

from typing import Any

from miniwin.specs import ModelSpec
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.dense import attention_rules, gated_mlp, mlp_rules, model_data, norm_rules, outer_rules
from miniwin.zoo.importing.family import CannotSay, Fields, Rule
from miniwin.zoo.importing.gated_mixture import FIELDS as GATED
from miniwin.zoo.importing.gated_mixture import gated_mixture, gated_rules, has_experts, inferred_mixture
from miniwin.zoo.importing.shapes import inferred_heads, inferred_sizes, together

DEFAULTS: dict[str, Any] = {
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "attention_pattern_force_last_global": True,
    "sliding_pe_type": "rope",
    "partial_rotary_factor": 1.0,
    "tie_word_embeddings": True,
    "use_moe": False,
    "num_experts_per_tok": 1,
    "n_routed_experts": 4,
    "n_shared_experts": 0,
    "aux_loss_alpha": 0.01,
    "norm_topk_prob": True,
}


def _wanted(asked: Asked) -> dict[str, str]:
    """The fields that neither shapes nor defaults can say, and what each is, for the message."""
    wanted = {
        "sliding_window_size": "how many keys a query of a sliding layer sees, such as 64",
        "attention_pattern": "S for sliding and L for global layers, such as SSSL",
    }
    if not asked.config and asked.get("num_attention_heads") is None and asked.get("head_dim") is None:
        wanted = {"num_attention_heads": "heads of attention, such as 8", **wanted}
    return wanted


class MiniWin:
    model_types = ("miniwin",)

    def spec(self, config: dict[str, Any], name: str, asked: Asked) -> dict[str, Any]:
        asked.require(**_wanted(asked))
        values = self._inferred(asked)
        fields = Fields(together(values, asked), "miniwin", DEFAULTS)
        fields.only("rope_scaling", why="the authors' code has no scaling")
        fields.only("rope_parameters", why="the authors' code has no scaling")
        fields.raw("max_seq_len")  # the authors' class sets it, and nothing reads it
        hidden, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
        if hidden % heads or fields.maybe_count("head_dim") not in (None, hidden // heads):
            each = f"hidden_size / num_attention_heads = {hidden / heads:g}"
            raise fields.refuse("head_dim", f"the authors' code has {each}, a whole number")
        norm = {"type": "rmsnorm", "eps": fields.real("rms_norm_eps")}
        attention = {
            "num_heads": heads,
            "num_kv_heads": fields.maybe_count("num_key_value_heads") or heads,
            "head_dim": hidden // heads,
        }
        window = fields.count("sliding_window_size")
        local = {**attention, "window": window, "position": self._local(fields, window, hidden // heads)}
        whole = {**attention, "window": None, "position": self._global(fields)}
        mlp = gated_mixture(fields) if fields.flag("use_moe") else gated_mlp(fields)
        for unused in GATED:  # without a mixture nothing reads these
            fields.raw(unused)
        layout = self._layout(fields, asked)
        layers = [{"attention": local if one == "S" else whole, "mlp": mlp, "norm": norm} for one in layout]
        data = model_data(fields, name, layers, norm)
        fields.finish()
        return data

    def rules(self, spec: ModelSpec) -> list[Rule]:
        rules = outer_rules(spec, "model.embed_tokens.weight", "model.norm")
        for i, layer in enumerate(spec.layer_specs):
            attention: Any = layer.attention
            ours, theirs = f"layers.{i}", f"model.layers.{i}"
            part = "self_attn" if attention.window is None else "shared_attn"
            rules += norm_rules(layer, ours, theirs)
            rules += attention_rules(attention, f"{ours}.attention", f"{theirs}.{part}")
            mlp: Any = layer.mlp
            rules += (gated_rules if mlp.type == "moe" else mlp_rules)(mlp, f"{ours}.mlp", f"{theirs}.mlp")
        return rules

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        raise CannotSay("model_type", "transformers has no miniwin model of its own")

    def _inferred(self, asked: Asked) -> dict[str, Any]:
        values = inferred_sizes(asked)
        kind = "shared_attn" if any(".0.shared_attn." in name for name in asked.shapes) else "self_attn"
        heads, head_dim = asked.get("num_attention_heads"), asked.get("head_dim")
        hidden = values.get("hidden_size")
        if hidden is not None and heads is None and isinstance(head_dim, int) and head_dim > 0:
            heads = hidden // head_dim
        if hidden is not None and isinstance(heads, int) and heads > 0:
            inferred_heads(asked, f"model.layers.0.{kind}", hidden // heads, values)
        return values | (inferred_mixture(asked) if has_experts(asked) else {})

    @staticmethod
    def _layout(fields: Fields, asked: Asked) -> str:
        """S or L for each layer. Raises UserError where the names of the weights show the other kind."""
        num_layers, pattern = fields.count("num_hidden_layers"), fields.raw("attention_pattern")
        if not isinstance(pattern, str) or not pattern or set(pattern.upper()) - {"S", "L"}:
            raise fields.refuse("attention_pattern", "expected letters S (sliding) and L (global), such as SSSL")
        layout = (pattern.upper() * num_layers)[:num_layers]
        if fields.flag("attention_pattern_force_last_global"):
            layout = layout[:-1] + "L"
        for i, letter in enumerate(layout):
            wrong = "self_attn" if letter == "S" else "shared_attn"
            if f"model.layers.{i}.{wrong}.q_proj.weight" in asked.shapes:
                kinds = {"S": "sliding", "L": "global"}
                raise fields.refuse(
                    "attention_pattern",
                    f"it makes the layers {layout}, layer {i} {kinds[letter]}; the weights have a "
                    f"model.layers.{i}.{wrong}, a {kinds['L' if letter == 'S' else 'S']} one",
                )
        return layout

    @staticmethod
    def _local(fields: Fields, window: int, head_dim: int) -> dict[str, Any]:
        kind = fields.raw("sliding_pe_type")
        if str(kind).lower() not in ("rope", "alibi"):
            raise fields.refuse("sliding_pe_type", "expected rope or alibi")
        theta, share = fields.real("rope_theta"), fields.real("partial_rotary_factor")
        if kind.lower() == "alibi":
            return {"type": "alibi"}
        position = {"type": "p-rope", "period": window, "harmonic": False, "rope_theta": theta}
        if share >= 1 - 1e-9:
            return position
        if int(head_dim * share) < 2:
            raise fields.refuse("partial_rotary_factor", f"it leaves nothing of a head of {head_dim} to rotate")
        return position | {"partial_rotary_factor": share, "pairing": "half-mismatched"}

    @staticmethod
    def _global(fields: Fields) -> dict[str, Any]:
        if fields.raw("nope_logit_log_base") is None:
            return {"type": "nope", "logit_scale": None}
        base = fields.real("nope_logit_log_base")
        return {"type": "nope", "logit_scale": {"type": "log-ratio", "base": base, "total_length": True}}

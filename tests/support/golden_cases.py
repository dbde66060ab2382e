"""The golden cases: weights, inputs and outputs of independent implementations, and our spec for each case.

The spec is made from the fields of `case.yaml`. No code here is for a single case.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from float64 import assert_as_near
from helpers import largest
from paths import GOLDEN
from safetensors.torch import load_file
from torch import Tensor

from miniwin.blocks import Decoder
from miniwin.specs import ModelSpec, parse_spec

FOLDERS = sorted(path.parent for path in GOLDEN.glob("*/case.yaml"))


ROLES = {
    "q": "attention.q_proj.weight",
    "k": "attention.k_proj.weight",
    "v": "attention.v_proj.weight",
    "o": "attention.o_proj.weight",
    "q_norm": "attention.q_norm.weight",
    "k_norm": "attention.k_norm.weight",
    "attn_norm": "attention_norm.weight",
    "mlp_norm": "mlp_norm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}


class Case:
    """One folder. Fields of `changes` replace those of case.yaml of the same name (`position_schemes`, ...)."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.fields: dict[str, Any] = yaml.safe_load((folder / "case.yaml").read_text())
        self.io = load_file(folder / "io.safetensors")
        self.weights = load_file(folder / "weights.safetensors")
        self.ids = self.io["input_ids"]
        self.tolerance: float = self.fields["tolerance"]["suggested_atol_float32_logits"]

    def spec(self, **changes: Any) -> ModelSpec:
        fields = {"position_schemes": {}, "query_scales": {}, **self.fields, **changes}
        return to_spec(fields["model"], fields["position_schemes"], fields["query_scales"])

    def decoder(self, **changes: Any) -> Decoder:
        """The built spec with the case's weights under our names. Every weight of the case is used, and every weight of
        ours is set."""
        decoder = self.spec(**changes).build().eval()
        names = self.fields["weights"]
        ours = {"embed_tokens.weight": names["embed"], "norm.weight": names["final_norm"]}
        if names["lm_head"] != names["embed"]:
            ours["lm_head.weight"] = names["lm_head"]
        for i, roles in enumerate(names["layers"]):
            ours |= {f"layers.{i}.{ROLES[role]}": name for role, name in roles.items()}
        assert set(ours.values()) == set(self.weights)
        decoder.load_state_dict({name: self.weights[theirs] for name, theirs in ours.items()}, strict=True)
        return decoder

    def holds(self, ours: Tensor, theirs: Tensor, exact: Tensor) -> None:
        """Our float64 is what the source computes, within the case's tolerance; our float32 is as near to it as
        theirs."""
        assert largest(theirs, exact) < self.tolerance
        assert_as_near(ours, theirs, exact)


def expect(fields: dict[str, Any], **values: Any) -> None:
    """Refuse a case that asks for what our blocks do not do."""
    for name, value in values.items():
        assert fields[name] == value, f"{name}: {fields[name]}"


def to_spec(model: dict[str, Any], schemes: dict[str, Any], scales: dict[str, Any]) -> ModelSpec:
    shared, mlp = model["attention"], model["mlp"]
    head_dim = shared["head_dim"]
    expect(model, embedding={"scale": 1.0})
    expect(model["lm_head"], bias=False, logit_softcap=None)
    residual = {"pre": "pre", "parallel_shared_norm": "parallel"}[model["block_layout"]]
    multiplier = model["lm_head"]["logit_multiplier"]
    expect(shared, score_softcap=None, qkv_bias=False, out_bias=False, sinks=False, score_scale=head_dim**-0.5)
    expect(mlp, type="gated", act="silu", bias=False)
    qk_norm = shared["qk_norm"]
    if qk_norm is not None:
        expect(qk_norm, scope="per_head", layers="all")
    norm = to_norm(model["norm"])
    layers = [
        {
            "attention": {
                "num_heads": shared["num_heads"],
                "num_kv_heads": shared["num_kv_heads"],
                "head_dim": head_dim,
                "window": layer["window"] if layer["attention"] == "sliding" else None,
                "position": to_position(layer, schemes, scales, head_dim),
                "qk_norm": None if qk_norm is None else to_norm(qk_norm),
                "qk_norm_order": "after" if qk_norm and qk_norm["order"] == "after_rope" else "before",
            },
            "mlp": {"type": "swiglu", "intermediate_size": mlp["intermediate_size"]},
            "norm": norm,
            "residual": residual,
        }
        for layer in model["layers"]
    ]
    kinds = [layer for i, layer in enumerate(layers) if layer not in layers[:i]]
    letters = "ABCDEFGH"[: len(kinds)]
    data = {
        "kind": "model",
        "format": 1,
        "name": "golden",
        "vocab_size": model["vocab_size"],
        "hidden_size": model["hidden_size"],
        "num_layers": model["num_layers"],
        "pattern": "".join(letters[kinds.index(layer)] for layer in layers),
        "blocks": dict(zip(letters, kinds, strict=True)),
        "norm": norm,
        "tie_word_embeddings": model["lm_head"]["tied"],
        "logit_scale": None if multiplier == 1 else multiplier,
    }
    return parse_spec(data, "model")


def to_norm(fields: dict[str, Any]) -> dict[str, Any]:
    expect(fields, gain="weight")
    assert not fields.get("bias")
    return {"type": {"rmsnorm": "rmsnorm", "layernorm": "layernorm"}[fields["type"]], "eps": fields["eps"]}


def to_position(
    layer: dict[str, Any], schemes: dict[str, Any], scales: dict[str, Any], head_dim: int
) -> dict[str, Any]:
    assert layer["attention"] in ("full", "sliding")
    if layer["position"] == "none":
        if layer["query_scale"] == "none":
            return {"type": "nope", "logit_scale": None}
        scale = scales[layer["query_scale"]]
        total = {"log_total_len": True, "log_causal_len": False}[scale["type"]]
        return {"type": "nope", "logit_scale": {"type": "log-ratio", "base": scale["base"], "total_length": total}}
    assert layer["query_scale"] == "none"
    scheme = schemes[layer["position"]]
    if scheme["type"] == "alibi":
        return {"type": "alibi"}
    expect(scheme, type="rope")
    position: dict[str, Any] = {"rope_theta": scheme["theta"], "pairing": scheme["pairing"].replace("_", "-")}
    if scheme["rotary_dim"] != head_dim:
        position["partial_rotary_factor"] = scheme["rotary_dim"] / head_dim
    # The frequencies of the rotated channels, except where the source takes the whole head's.
    expect(scheme, freq_dim=head_dim if scheme["pairing"] == "half_mismatched" else scheme["rotary_dim"])
    if scheme["period"] is None:
        return {"type": "rope", **position, "scaling": to_scaling(scheme["scaling"], scheme["rotary_dim"])}
    expect(scheme, scaling=None)
    if "explicit_inv_freq" not in scheme:
        return {"type": "p-rope", "period": scheme["period"], "harmonic": False, **position}
    turns = [f * scheme["period"] / (2 * math.pi) for f in scheme["explicit_inv_freq"]]
    harmonics: Any = [round(turn) for turn in turns]
    assert max(abs(a - b) for a, b in zip(turns, harmonics, strict=True)) < 1e-9
    in_order = harmonics == list(range(1, len(harmonics) + 1))
    return {"type": "p-rope", "period": scheme["period"], "harmonics": "all" if in_order else harmonics}


def to_scaling(scaling: dict[str, Any] | None, rotary_dim: int) -> dict[str, Any] | None:
    if scaling is None:
        return None
    clamp = {rotary_dim - 1: "channels", rotary_dim // 2 - 1: "pairs"}[scaling["high_clamp"]]
    same = ("type", "factor", "beta_fast", "beta_slow", "truncate", "attention_factor")
    fields = {name: scaling[name] for name in same}
    return {**fields, "original_max_position_embeddings": scaling["original_max"], "high_clamp": clamp}


@cache
def golden(name: str) -> Case:
    return Case(next(folder for folder in FOLDERS if folder.name.startswith(name)))

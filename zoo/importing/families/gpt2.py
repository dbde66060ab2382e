"""GPT-2 (Radford et al., 2019): learned positions that are added to the embeddings, LayerNorm and biases everywhere, a
plain MLP.

Its matrices are stored the other way round, (inputs, outputs), and q, k and v are one of them. The first checkpoints
have no `transformer.` before their names. With `scale_attn_by_inverse_layer_idx` (Mistral's GPT-2, Stanford, 2021) the
scores of layer i are divided by i + 1, which makes every layer a block of its own here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

from torch import Tensor

from miniwin.specs import ModelSpec
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.basic_config import one_activation, one_bias, one_eps
from miniwin.zoo.importing.dense import model_data, outer_rules
from miniwin.zoo.importing.families.gpt_neox import PLAIN_ACTIVATIONS, plain_mlp, same
from miniwin.zoo.importing.family import CannotSay, Fields, Rule, UserError, join_rows, split_rows
from miniwin.zoo.importing.words import Words

NORM = {"type": "layernorm", "bias": True}
DEFAULTS: dict[str, Any] = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
}
# transformers takes these for other names of the same fields.
OTHER_NAMES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
# Of training, of heads for other tasks, and of how scores are rounded in float16.
UNUSED = ("attn_pdrop", "summary_activation", "reorder_and_upcast_attn")
PREFIX = "transformer."


class GPT2:
    model_types = ("gpt2",)
    architecture = "GPT2LMHeadModel"

    def spec(self, config: dict[str, Any], name: str, asked: Asked) -> dict[str, Any]:
        fields = Fields(_own_names(config), "gpt2", DEFAULTS)
        for field in UNUSED:
            fields.raw(field)
        fields.only("add_cross_attention", False, why="there is no other text to attend to")
        num_positions = fields.count("n_positions")
        fields.only("n_ctx", num_positions, why=f"n_positions, which counts, is {num_positions}; remove it")
        hidden_size, num_heads = fields.count("n_embd"), fields.count("n_head")
        if hidden_size % num_heads:
            raise fields.refuse("n_head", f"it must divide n_embd {hidden_size}")
        inner = fields.maybe_count("n_inner") or 4 * hidden_size
        norm = {**NORM, "eps": fields.real("layer_norm_epsilon")}
        scales = score_scales(
            hidden_size // num_heads,
            fields.count("n_layer"),
            fields.flag("scale_attn_weights"),
            fields.flag("scale_attn_by_inverse_layer_idx"),
        )
        mlp = plain_mlp(fields, "activation_function", inner) | {"bias": True}
        attention = {
            "num_heads": num_heads,
            "num_kv_heads": num_heads,
            "head_dim": hidden_size // num_heads,
            "window": None,
            "position": {"type": "nope", "logit_scale": None},
            "qkv_bias": True,
            "o_bias": True,
        }
        layers = [
            {"attention": attention if one is None else {**attention, "score_scale": one}, "mlp": mlp, "norm": norm}
            for one in scales
        ]
        data = model_data(fields, name, layers, norm, "n_embd") | {"embed_positions": num_positions}
        fields.finish()
        return data

    def rules(self, spec: ModelSpec) -> list[Rule]:
        rules = outer_rules(spec, f"{PREFIX}wte.weight", f"{PREFIX}ln_f")
        rules.append(Rule(("embed_positions.weight",), (f"{PREFIX}wpe.weight",)))
        for i in range(spec.num_layers):
            rules += _layer_rules(f"layers.{i}", f"{PREFIX}h.{i}", spec.hidden_size)
        return [replace(rule, instead=(replace(rule, theirs=_without_prefix(rule.theirs)),)) for rule in rules]

    def config(self, spec: ModelSpec) -> dict[str, Any]:
        words = Words(spec, "gpt2")
        for field in ("embed_scale", "embed_norm", "logit_scale", "logit_softcap"):
            words.outer(field, None)
        if spec.embed_positions is None:
            raise CannotSay("embed_positions", "got null; a gpt2 model has learned positions")
        words.must("residual", "pre")
        words.must("attention.position.type", "nope")
        words.must("attention.position.logit_scale", None)
        words.plain_attention("score_scale")
        words.must("attention.window", None)
        words.must("attention.qk_norm", None)
        activation = one_activation(words, words.each("mlp"), PLAIN_ACTIVATIONS)
        words.must("mlp.bias", True)
        if not one_bias(words):
            raise CannotSay("attention.qkv_bias", "got false; a gpt2 model has true")
        num_heads = words.same("attention.num_heads")
        words.must("attention.num_kv_heads", num_heads)
        if num_heads * words.same("attention.head_dim") != spec.hidden_size:
            raise CannotSay("attention.head_dim", "a gpt2 model has hidden_size / num_heads")
        return {
            "model_type": "gpt2",
            "architectures": [self.architecture],
            "vocab_size": spec.vocab_size,
            "n_positions": spec.embed_positions,
            "n_embd": spec.hidden_size,
            "n_layer": spec.num_layers,
            "n_head": num_heads,
            "n_inner": words.same("mlp.intermediate_size"),
            "activation_function": activation,
            "layer_norm_epsilon": one_eps(words, NORM),
            "tie_word_embeddings": spec.tie_word_embeddings,
            **_said_scales(words),
            # The tokenizer says these. Left out, they would default to ids of the family's own vocabulary.
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
        }


def _own_names(config: dict[str, Any]) -> dict[str, Any]:
    """The config with the family's own names of its fields."""
    own = dict(config)
    for other, name in OTHER_NAMES.items():
        if other in own:
            value = own.pop(other)
            if own.setdefault(name, value) != value:
                raise UserError(
                    f"{other}: got {value}; {name}, which means the same, is {own[name]}; remove one of them"
                )
    return own


def score_scales(head_dim: int, num_layers: int, by_width: bool, by_layer: bool) -> list[float | None]:
    """Each layer's scale of the scores; None where it is the usual one.

    by_width: 1 / sqrt(head_dim), else 1. by_layer: divided by the number of the layer, the first being 1.
    """
    usual = head_dim**-0.5
    first = usual if by_width else 1.0
    scales = [first / float(i + 1) if by_layer else first for i in range(num_layers)]
    return [None if scale == usual else scale for scale in scales]


def _said_scales(words: Words) -> dict[str, bool]:
    """The inverse of `score_scales`: the two fields. Raises CannotSay where none of their values gives these scales."""
    head_dim, scales = words.same("attention.head_dim"), words.each("attention.score_scale")
    found = [None if scale == head_dim**-0.5 else scale for scale in scales]
    for by_layer, by_width in product((False, True), (True, False)):
        if score_scales(head_dim, len(scales), by_width, by_layer) == found:
            return {"scale_attn_weights": by_width, "scale_attn_by_inverse_layer_idx": by_layer}
    raise CannotSay("attention.score_scale", "a gpt2 model has head_dim^-0.5 or 1, in layer i over i + 1 or in none")


def _layer_rules(ours: str, theirs: str, hidden_size: int) -> list[Rule]:
    fused = tuple(f"{ours}.attention.{part}_proj" for part in "qkv")
    turned = [
        (f"{ours}.attention.o_proj", f"{theirs}.attn.c_proj"),
        (f"{ours}.mlp.up_proj", f"{theirs}.mlp.c_fc"),
        (f"{ours}.mlp.down_proj", f"{theirs}.mlp.c_proj"),
    ]
    split, biases = split_rows(*[hidden_size] * 3), f"{theirs}.attn.c_attn.bias"
    return [
        *same(f"{ours}.attention_norm", f"{theirs}.ln_1", True),
        *same(f"{ours}.mlp_norm", f"{theirs}.ln_2", True),
        Rule(
            tuple(f"{name}.weight" for name in fused),
            (f"{theirs}.attn.c_attn.weight",),
            _after_turning(split),
            _then_turned(join_rows),
        ),
        Rule(tuple(f"{name}.bias" for name in fused), (biases,), split, join_rows),
        *(Rule((f"{mine}.weight",), (f"{name}.weight",), _turned, _turned) for mine, name in turned),
        *(Rule((f"{mine}.bias",), (f"{name}.bias",)) for mine, name in turned),
    ]


def _turned(tensors: list[Tensor]) -> list[Tensor]:
    """Matrices (a, b) as (b, a): its own inverse."""
    return [tensor.T.contiguous() for tensor in tensors]


def _after_turning(read: Callable[[list[Tensor]], list[Tensor]]) -> Callable[[list[Tensor]], list[Tensor]]:
    return lambda tensors: read(_turned(tensors))


def _then_turned(write: Callable[[list[Tensor]], list[Tensor]]) -> Callable[[list[Tensor]], list[Tensor]]:
    return lambda tensors: _turned(write(tensors))


def _without_prefix(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.removeprefix(PREFIX) for name in names)

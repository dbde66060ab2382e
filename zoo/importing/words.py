"""Read a model spec for a config with one field for all layers: the value that the layers share, or CannotSay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from miniwin.specs import ModelSpec
from miniwin.zoo.importing.family import CannotSay


class Words:
    """The layers of a spec, with defaults filled in, and the values that they share.

    Every method raises CannotSay for what a config of the family cannot express.
    """

    def __init__(self, spec: ModelSpec, family: str) -> None:
        self.spec, self.family = spec, family
        self.layers: tuple[Any, ...] = spec.layer_specs
        for layer in self.layers:
            if (windows := getattr(layer.attention, "windows", None)) is not None:
                got = f"got {in_words(windows)}, one for each key/value head"
                raise CannotSay("attention.windows", f"{got}; a {family} config has one for a whole layer")

    def each(self, path: str) -> list[Any]:
        """The value at a path such as attention.window in every layer."""
        return [self._at(layer, path) for layer in self.layers]

    def same(self, path: str) -> Any:
        """The value at a path, which all layers must share."""
        values = self.each(path)
        for value in values:
            if value != values[0]:
                both = f"{in_words(values[0])} and {in_words(value)}"
                raise CannotSay(path, f"layers have {both}; a {self.family} config has one for all")
        return values[0]

    def must(self, path: str, *allowed: Any) -> Any:
        """The value at a path, which all layers must share, and which must be one of `allowed`."""
        value = self.same(path)
        if not any(value == one for one in allowed):
            expected = " or ".join(json.dumps(one) for one in allowed)
            raise CannotSay(path, f"got {in_words(value)}; a {self.family} model has {expected}")
        return value

    def plain_decoder(self) -> None:
        """Require a decoder without scales, norm, positions or soft cap at embedding and head."""
        for field in ("embed_scale", "embed_norm", "embed_positions", "logit_scale", "logit_softcap"):
            self.outer(field, None)

    def outer(self, field: str, *allowed: Any) -> Any:
        """A field of the model, whose value must be one of `allowed`."""
        value = getattr(self.spec, field)
        if not any(value == one for one in allowed):
            expected = " or ".join(json.dumps(one) for one in allowed)
            raise CannotSay(field, f"got {in_words(value)}; a {self.family} model has {expected}")
        return value

    def plain_attention(self, *but: str) -> None:
        """Require softmax attention with nothing added. but: fields that the config of the family has."""
        expected: dict[str, Any] = {"type": "softmax", "keep_first": 0, "sinks": False, "softcap": None, "chunk": None}
        for field, value in expected.items():
            if field not in but:
                self.must(f"attention.{field}", value)
        if "score_scale" not in but:
            self.must("attention.score_scale", None, self.same("attention.head_dim") ** -0.5)

    def rmsnorm_eps(self, qk_norm: str | None) -> float:
        """The epsilon that all norms share. qk_norm: the scope of QK-norms; None requires that there are none."""
        norms = [("norm", self.spec.norm), *(("norm", norm) for norm in self.each("norm"))]
        if qk_norm is None:
            self.must("attention.qk_norm", None)
        else:
            self.must("attention.qk_norm_scope", qk_norm)
            self.must("attention.qk_norm_order", "before")
            norms += [("attention.qk_norm", norm) for norm in self.each("attention.qk_norm")]
        for path, norm in norms:
            if norm is None or norm.type != "rmsnorm" or norm.gain != "plain":
                got = "none" if norm is None else norm.type if norm.type != "rmsnorm" else f"gain {norm.gain}"
                raise CannotSay(path, f"got {got}; a {self.family} model has rmsnorm with plain gain")
            if norm.eps != norms[0][1].eps:  # type: ignore[attr-defined]
                raise CannotSay(f"{path}.eps", f"norms differ; a {self.family} config has one eps for all")
        return float(norms[0][1].eps)  # type: ignore[attr-defined]

    def activation(self, known: Mapping[str, Mapping[str, Any]]) -> str:
        """`hidden_act` of the MLP that all layers share."""
        kind = self.must("mlp.type", "swiglu", "geglu")
        approximate = self.same("mlp.approximate") if kind == "geglu" else None
        for name in reversed(list(known)):
            mlp = known[name]
            if mlp["type"] == kind and name != "swish" and mlp.get("approximate", "none") == (approximate or "none"):
                return name
        raise CannotSay("mlp.type", f"got {kind}; a {self.family} config has no activation for it")

    def biases(self, known: tuple[str, ...]) -> dict[str, bool]:
        """attention_bias and mlp_bias. known: which of the two the config of the family has."""
        said = {}
        attention = self.same("attention.qkv_bias")
        if self.same("attention.o_bias") != attention:
            raise CannotSay("attention.o_bias", f"a {self.family} config has one bias setting for q, k, v and o")
        for field, path, value in (
            ("attention_bias", "attention.qkv_bias", attention),
            ("mlp_bias", "mlp.bias", self.same("mlp.bias")),
        ):
            if field in known:
                said[field] = value
            elif value:
                raise CannotSay(path, f"got true; a {self.family} model has no such biases")
        return said

    def sliding(self) -> int | None:
        """The window that all local layers share; None where there are none."""
        windows = sorted({window for window in self.each("attention.window") if window is not None})
        if len(windows) > 1:
            raise CannotSay("attention.window", f"got {windows}; a {self.family} config has one for all local layers")
        return windows[0] if windows else None

    def layer_types(self) -> list[str]:
        """`full_attention` or `sliding_attention` for each layer."""
        windows = self.each("attention.window")
        return ["full_attention" if window is None else "sliding_attention" for window in windows]

    def position_of(self, layers: list[int]) -> Any:
        """The position encoding that these layers share; None where there are no such layers."""
        found = [self.layers[i].attention.position for i in layers]
        for position in found:
            if position != found[0]:
                raise CannotSay("attention.position", f"got several; a {self.family} config has one for these layers")
        return found[0] if found else None

    def _at(self, layer: Any, path: str) -> Any:
        for part in path.split("."):
            if not hasattr(layer, part):
                kind = path.removesuffix(f".{part}")
                got = getattr(layer, "type", layer)
                raise CannotSay(kind, f"got {got}; a {self.family} config has no words for it")
            layer = getattr(layer, part)
        return layer


def in_words(value: Any) -> str:
    """A value of a spec for a message: a block by its words or its type, anything else as YAML writes it."""
    if value is None or isinstance(value, bool | list):
        return json.dumps(value)
    words = getattr(value, "words", None)
    return ", ".join(words()) if words is not None else str(getattr(value, "type", value))

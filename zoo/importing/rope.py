"""Rotary parameters in configs <-> our `rope` position specs. A config has transformers 5's `rope_parameters` (one set,
or one for each layer type), or the older `rope_theta` with `rope_scaling`.

    default | linear {factor} | dynamic {factor} | yarn {..} | llama3 {..} | longrope {short_factor, long_factor, ..}

In transformers, two scalings depend on the length of the text at hand. `dynamic` changes with every token; `longrope`
changes where the text leaves the original context. Prefill and decoding then disagree, so ours fix the length. The user
gives it (`--set length=N`); for `longrope` the default is the model's longest context.
"""

from __future__ import annotations

import math
from typing import Any

from miniwin.blocks.spec import UserError
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.family import CannotSay, Fields, shown

YARN = {"beta_fast", "beta_slow", "truncate", "attention_factor", "mscale", "mscale_all_dim"}
KEYS: dict[str, set[str]] = {
    "default": set(),
    "linear": {"factor"},
    "dynamic": {"factor"},
    "yarn": {"factor", *YARN},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor"},
    "longrope": {"factor", "short_factor", "long_factor", "attention_factor"},
}
# Keys that every kind has, or that change nothing that is computed.
ALWAYS = {"rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings", "finetuned"}


def rope_table(fields: Fields, layer_types: tuple[str, ...] = ()) -> dict[str | None, dict[str, Any]]:
    """The rotary parameters of the config by layer type; under None where they are the same for all layers."""
    table = fields.mapping("rope_scaling") or fields.mapping("rope_parameters")
    fields.raw("rope_parameters")
    nested = [key for key in table if key in layer_types]
    if not nested:
        return {None: table}
    loose = sorted(set(table) - set(nested))
    if loose:
        raise fields.refuse("rope_parameters", f"{loose[0]} stands beside parameters by layer type; put it into each")
    for key in nested:
        if not isinstance(table[key], dict):
            raise fields.refuse("rope_parameters", f"{key}: expected a mapping")
    return {key: dict(table[key]) for key in nested}


def rope_position(
    fields: Fields,
    asked: Asked,
    parameters: dict[str, Any],
    *,
    default_theta: float = 10000.0,
    original: int | None = None,
    partial: bool = False,
    nested: bool = False,
) -> dict[str, Any]:
    """The position spec of one set of rotary parameters, as data. Raises UserError.

    original: the original context, where the family keeps it outside the parameters. partial: the family can rotate a
    part of each head. nested: the parameters are those of one layer type.
    """
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    where = "rope_parameters" if fields.config.get("rope_parameters") else "rope_scaling"
    if not isinstance(kind, str) or kind not in KEYS:
        raise fields.refuse(where, f"rope_type {shown(kind)} is not known; expected one of {', '.join(KEYS)}")
    for key, value in parameters.items():
        if key not in KEYS[kind] | ALWAYS and value is not None:
            raise fields.refuse(where, f"{key} has no meaning for rope_type '{kind}'; remove it")
    theta = parameters.get("rope_theta")
    if theta is None:
        theta = fields.raw("rope_theta")
    theta = default_theta if theta is None else theta
    fields.raw("rope_theta")
    position: dict[str, Any] = {"type": "rope", "rope_theta": _number(fields, where, "rope_theta", theta)}
    share = parameters.get("partial_rotary_factor")
    share = fields.raw("partial_rotary_factor") if share is None else share
    fields.raw("partial_rotary_factor")
    if share is not None and share != 1.0:
        if not partial:
            raise UserError(f"partial_rotary_factor: got {shown(share)}; a {fields.family} model rotates whole heads")
        position["partial_rotary_factor"] = _number(fields, where, "partial_rotary_factor", share)
    if kind != "default":
        longest = fields.maybe_count("max_position_embeddings")
        scaling = _Scaling(fields, where, asked, parameters, longest, original).read(kind, nested)
        if scaling is not None:
            position["scaling"] = scaling
    return position


def _number(fields: Fields, where: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise fields.refuse(where, f"{key}: expected a number, got {shown(value)}")
    return float(value)


class _Scaling:
    """Reads the scaling of one set of rotary parameters. Each method raises UserError for a value that cannot be."""

    def __init__(
        self,
        fields: Fields,
        where: str,
        asked: Asked,
        parameters: dict[str, Any],
        longest: int | None,
        original: int | None,
    ) -> None:
        self.fields, self.where, self.asked = fields, where, asked
        self.parameters, self.longest = parameters, longest
        self._original = original

    def number(self, key: str, default: float | None = None) -> float:
        value = self.parameters.get(key)
        return _number(self.fields, self.where, key, default if value is None else value)

    def original(self) -> int:
        """The context before scaling: the family's own, else that of the parameters, else max_position_embeddings."""
        value = self._original or self.parameters.get("original_max_position_embeddings") or self.longest
        value = int(value) if isinstance(value, float) and value.is_integer() else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.fields.refuse(self.where, "original_max_position_embeddings: expected a positive whole number")
        return value

    def read(self, kind: str, nested: bool) -> dict[str, Any] | None:
        if kind == "linear":
            return {"type": "linear", "factor": self.number("factor")}
        if kind == "dynamic":
            return self.dynamic()
        if kind == "llama3":
            numbers = {key: self.number(key) for key in ("factor", "low_freq_factor", "high_freq_factor")}
            return {"type": "llama3", **numbers, "original_max_position_embeddings": self.original()}
        if kind == "yarn":
            return self.yarn(nested)
        return self.longrope()

    def length(self) -> int | None:
        value = self.asked.get("length")
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise UserError(f"length: got {shown(value)}; expected the number of tokens the model will be run at")
        return value

    def dynamic(self) -> dict[str, Any] | None:
        length = self.length()
        said = self.parameters.get("original_max_position_embeddings")
        if self.longest is None or (said is not None and said != self.longest):
            raise self.fields.refuse(
                self.where, "dynamic scaling starts at max_position_embeddings; remove original_max_position_embeddings"
            )
        if length is None:
            raise self.fields.refuse(
                self.where,
                "dynamic scaling changes with every token beyond max_position_embeddings "
                f"({self.longest}), which a cache cannot follow; say the length that the model will be run at: "
                "--set length=N",
            )
        factor = self.number("factor")
        if length <= self.longest:  # up to there nothing is scaled
            return None
        original = {"original_max_position_embeddings": self.longest}
        return {"type": "dynamic-ntk", "factor": factor, **original, "length": length}

    def yarn(self, nested: bool) -> dict[str, Any]:
        original = self.original()
        scaling: dict[str, Any] = {
            "type": "yarn",
            "factor": self.number("factor", None if self.longest is None else self.longest / original),
            "original_max_position_embeddings": original,
            "beta_fast": self.number("beta_fast", 32.0) or 32.0,  # zero means the default in transformers
            "beta_slow": self.number("beta_slow", 1.0) or 1.0,
        }
        truncate = self.parameters.get("truncate")
        if truncate is not None and not isinstance(truncate, bool):
            raise self.fields.refuse(self.where, f"truncate: expected true or false, got {shown(truncate)}")
        if truncate is False and nested:
            raise self.fields.refuse(
                self.where, "truncate: transformers does not look at it in the parameters of a layer type; remove it"
            )
        if truncate is False:
            scaling["truncate"] = False
        if self.parameters.get("attention_factor") is not None:
            scaling["attention_factor"] = self.number("attention_factor")
        elif self.parameters.get("mscale") and self.parameters.get("mscale_all_dim"):
            scaling["mscale"], scaling["mscale_all_dim"] = self.number("mscale"), self.number("mscale_all_dim")
        return scaling

    def longrope(self) -> dict[str, Any]:
        original = self.original()
        if self.longest is None:
            raise self.fields.refuse("max_position_embeddings", "longrope scaling needs it")
        scaling: dict[str, Any] = {
            "type": "longrope",
            "original_max_position_embeddings": original,
            "max_position_embeddings": self.longest,
        }
        for key in ("short_factor", "long_factor"):
            values = self.parameters.get(key)
            if not isinstance(values, list) or not values:
                raise self.fields.refuse(self.where, f"{key}: expected a list of numbers, one for each rotated pair")
            scaling[key] = [_number(self.fields, self.where, key, value) for value in values]
        factor = self.parameters.get("factor")
        if self.parameters.get("attention_factor") is not None:
            scaling["attention_factor"] = self.number("attention_factor")
        elif factor is not None and factor != self.longest / original:
            ratio = self.number("factor")  # the ratio decides the attention factor only
            if original == 1:
                raise self.fields.refuse(self.where, "attention_factor: it has to be given with a context of 1")
            scaling["attention_factor"] = 1.0 if ratio <= 1 else math.sqrt(1 + math.log(ratio) / math.log(original))
        if self.length() is not None:
            scaling["length"] = self.length()
        return scaling


def rope_parameters(position: Any, field: str, *, partial: bool = False, nested: bool = False) -> dict[str, Any]:
    """The inverse of `rope_position`: a position spec as `rope_parameters` of transformers 5. Raises CannotSay."""
    if position.type != "rope":
        raise CannotSay(field, f"got {position.type}; only rope has words in this config")
    if position.pairing != "half":
        raise CannotSay(f"{field}.pairing", f"got {position.pairing}; this config means half")
    said: dict[str, Any] = {"rope_type": "default", "rope_theta": position.rope_theta}
    if position.partial_rotary_factor != 1.0:
        if not partial:
            raise CannotSay(f"{field}.partial_rotary_factor", "this config rotates whole heads")
        said["partial_rotary_factor"] = position.partial_rotary_factor
    scaling = position.scaling
    if scaling is None:
        return said
    numbers = {name: value for name, value in scaling.model_dump(mode="json").items() if value is not None}
    kind = numbers.pop("type")
    if kind == "yarn" and numbers.pop("high_clamp") != "channels":
        raise CannotSay(f"{field}.scaling.high_clamp", "transformers clamps at the last channel")
    if kind == "yarn" and nested and not numbers["truncate"]:
        raise CannotSay(f"{field}.scaling.truncate", "transformers always rounds where parameters are by layer type")
    if kind in ("linear", "llama3", "yarn"):
        return {**said, **numbers, "rope_type": kind}
    if kind == "longrope":
        # transformers chooses a list by the length at hand; ours has chosen one for good, so it is written as both.
        length = numbers.pop("length", numbers["max_position_embeddings"])
        chosen = "long_factor" if length > numbers["original_max_position_embeddings"] else "short_factor"
        factors = numbers[chosen]
        numbers.pop("max_position_embeddings")
        return {**said, **numbers, "rope_type": kind, "short_factor": factors, "long_factor": factors}
    raise CannotSay(f"{field}.scaling", f"got {kind} for one length; transformers changes it with the length at hand")


def longest_context(spec: Any) -> int:
    """`max_position_embeddings` for a config: as the scaling needs it, else a number that bounds nothing."""
    found = set()
    for layer in spec.layer_specs:
        scaling = getattr(layer.attention.position, "scaling", None)
        if scaling is not None and scaling.type == "longrope":
            found.add(scaling.max_position_embeddings)
        elif scaling is not None and scaling.type in ("yarn", "llama3"):
            found.add(math.ceil(scaling.factor * scaling.original_max_position_embeddings))
    return max(found, default=131072)

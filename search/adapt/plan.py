"""Which layers of a model can become local, how many of them may stay global, and the spec of each placement.

A placement is a set of units that stay global. A unit is a layer that sees the whole context. All other units get a
window and the sink tokens that go with it:

    cache_bytes(placement) <= share * cache_bytes(original)        both at `length` tokens, from the specs alone
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from miniwin.blocks.layer import LayerSpec
from miniwin.specs import ModelSpec, UserError, parse_spec
from miniwin.zoo.importing.layout import lay_out

Placement = tuple[int, ...]  # the units that stay global, in order


@dataclass(frozen=True)
class Plan:
    """spec: the original. window, sinks: of the units that become local. length: where cache bytes are counted."""

    spec: ModelSpec
    window: int
    sinks: int
    length: int

    @cached_property
    def layers(self) -> tuple[LayerSpec, ...]:
        return self.spec.layer_specs

    @cached_property
    def units(self) -> tuple[int, ...]:
        """The layers that see the whole context, which is what can be taken from them."""
        return tuple(i for i, layer in enumerate(self.layers) if _sees_all(layer))

    @property
    def all(self) -> Placement:
        """Everything stays global: the original."""
        return self.units

    def settings(self, placement: Placement) -> tuple[bool, ...]:
        """For each layer whether it is as in the original."""
        stay = set(placement) | (set(range(len(self.layers))) - set(self.units))
        return tuple(i in stay for i in range(len(self.layers)))

    def layer(self, number: int, original: bool) -> LayerSpec:
        return self.layers[number] if original else self._local[number]

    @cached_property
    def _local(self) -> dict[int, LayerSpec]:
        """Each unit with its window.

        Raises:
            UserError: a layer cannot have a window, or no sink tokens.
        """
        changed = {"window": self.window, **({"keep_first": self.sinks} if self.sinks else {})}
        found = {}
        for number in self.units:
            data = _data(self.layers[number])
            data["attention"] = {**data["attention"], **changed}
            found[number] = data
        names = {**{i: _data(layer) for i, layer in enumerate(self.layers)}, **found}
        whole = self._spec([names[i] for i in range(len(self.layers))], f"{self.spec.name}-local")
        return {number: whole.layer_specs[number] for number in self.units}

    def spec_of(self, placement: Placement, name: str | None = None) -> ModelSpec:
        """The spec of a placement: the original's, with windows."""
        settings = self.settings(placement)
        layers = [_data(self.layer(i, original)) for i, original in enumerate(settings)]
        return self._spec(layers, name or self.spec.name)

    def _spec(self, layers: list[dict[str, Any]], name: str) -> ModelSpec:
        data = self.spec.model_dump(mode="json")
        data |= {"last": None, **lay_out(layers), "name": name}
        try:
            made = parse_spec(data, "model")
        except UserError as error:
            raise UserError(
                f"{self.spec.name} with windows of {self.window} and {self.sinks} sink tokens is no model that can be "
                f"built: {error}"
            ) from None
        assert isinstance(made, ModelSpec)
        return made

    def cache_bytes(self, placement: Placement, length: int | None = None) -> int:
        return self.spec_of(placement).cache_bytes(length or self.length)

    def share(self, placement: Placement) -> float:
        """The cache bytes of a placement as a share of the original's."""
        return self.cache_bytes(placement) / self.spec.cache_bytes(self.length)

    def count(self, share: float) -> int:
        """How many units may stay global so that the cache holds at most this share of the original's bytes.

        Raises:
            UserError: no layer sees the whole context, or no number of them meets the share.
        """
        if not self.units:
            raise UserError(f"{self.spec.name}: no layer sees the whole context, so there is nothing to make local")
        least, most = self.share(()), self.share(self.all)
        if share < least or share >= most:
            raise UserError(
                f"--cache {share:.1%}: no layout meets it. With windows of {self.window} in all {len(self.units)} "
                f"layers that see the whole context, {least:.1%} of the cache at {self.length:,} tokens are left; "
                f"expected from {least:.1%} to below {most:.1%}, or another --window"
            )
        return max(k for k in range(len(self.units)) if self.share(self.units[:k]) <= share)


def _sees_all(layer: LayerSpec) -> bool:
    attention: Any = layer.attention
    return getattr(attention, "window", 0) is None and getattr(attention, "chunk", None) is None


def _data(layer: LayerSpec) -> dict[str, Any]:
    return layer.model_dump(mode="json")


def evenly(units: tuple[int, ...], count: int) -> Placement:
    """`count` of the units, evenly spaced, the last one among them, as patterns such as SSSG have them."""
    n = len(units)
    return tuple(units[n * (i + 1) // count - 1] for i in range(count))

"""What of a model can become local, how much of it may stay global, and the spec of each placement.

A placement is a set of units that stay global. A unit is a layer that sees the whole context, or one key/value head of
such a layer. All other units get a window and the sink tokens that go with it:

    cache_bytes(placement) <= share * cache_bytes(original)        both at `length` tokens, from the specs alone
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from typing import Any

from miniwin.blocks.layer import LayerSpec
from miniwin.specs import ModelSpec, UserError, parse_spec
from miniwin.zoo.importing.layout import lay_out

Placement = tuple[int, ...]  # the units that stay global, in order
Setting = tuple[
    bool, ...
]  # of a layer: whether each key/value head is as in the original; one for all if it has no units
WHOLE: Setting = (True,)
Named = int | str  # a layer, 7, or a head of one, "7.1"


@dataclass(frozen=True)
class Plan:
    """spec: the original. window, sinks: of the units that become local. length: where cache bytes are counted.

    heads: units are key/value heads. Head h of layer i is unit i * H + h, where H is the most heads that a layer has.
    widen: layers that have a window in the original may lose it. Where they are local, they are as they were.
    """

    spec: ModelSpec
    window: int
    sinks: int
    length: int
    heads: bool = False
    widen: bool = False
    _changed: dict[tuple[int, Setting], LayerSpec] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def layers(self) -> tuple[LayerSpec, ...]:
        return self.spec.layer_specs

    @cached_property
    def whole_layers(self) -> tuple[int, ...]:
        """The layers that see the whole context, or may come to see it. All others stay as they are."""
        return tuple(
            i for i, layer in enumerate(self.layers) if _sees_all(layer) or (self.widen and self._may_lose_window(i))
        )

    def _may_lose_window(self, number: int) -> bool:
        """False too where a layer needs its window: P-RoPE turns by it."""
        if not _has_window(self.layers[number]):
            return False
        try:
            self._with(number, {"window": None, "keep_first": 0})
        except UserError:
            return False
        return True

    def _kv_heads(self, number: int) -> int:
        attention: Any = self.layers[number].attention
        return int(attention.kv_heads)

    @cached_property
    def stride(self) -> int:
        """The numbers of units that belong to a layer."""
        return max(map(self._kv_heads, self.whole_layers), default=1) if self.heads else 1

    def units_of(self, number: int) -> Placement:
        first = number * self.stride
        return tuple(range(first, first + (self._kv_heads(number) if self.heads else 1)))

    def units_of_layers(self, numbers: Iterable[int]) -> Placement:
        return tuple(unit for number in numbers for unit in self.units_of(number))

    @cached_property
    def units(self) -> Placement:
        return self.units_of_layers(self.whole_layers)

    @cached_property
    def original(self) -> Placement:
        """What is global in the original."""
        return self.units_of_layers(i for i in self.whole_layers if _sees_all(self.layers[i]))

    def as_in_original(self, number: int, setting: Setting) -> bool:
        """Whether a layer with this setting is the original's."""
        return number not in self.whole_layers or all(one is _sees_all(self.layers[number]) for one in setting)

    def settings(self, placement: Placement) -> tuple[Setting, ...]:
        """One for each layer. Two layers with equal settings compute the same from the same states."""
        stay, whole = set(placement), set(self.whole_layers)
        return tuple(
            tuple(unit in stay for unit in self.units_of(i)) if i in whole else WHOLE for i in range(len(self.layers))
        )

    def named(self, placement: Placement) -> list[Named]:
        """Layers by their numbers; heads of layers that stay in part by 7.1."""
        found: list[Named] = []
        stay = set(placement)
        for number in self.whole_layers:
            mine = [unit for unit in self.units_of(number) if unit in stay]
            if mine and len(mine) == len(self.units_of(number)):
                found.append(number)
            else:
                found += [f"{number}.{unit - number * self.stride}" for unit in mine]
        return found

    def layer(self, number: int, setting: Setting) -> LayerSpec:
        """
        Raises:
            UserError: the layer cannot have such windows, or no sink tokens.
        """
        if self.as_in_original(number, setting):
            return self.layers[number]
        if (number, setting) not in self._changed:
            try:
                self._changed[number, setting] = self._with(number, self._windows(number, setting))
            except UserError as error:
                own = ", and --widen cannot change that" if self.widen else ""
                raise UserError(
                    f"{self.spec.name} with windows of {self.window} and {self.sinks} sink tokens is no model that can "
                    f"be built (layer {number}{own}): {error}"
                ) from None
        return self._changed[number, setting]

    def _with(self, number: int, windows: dict[str, Any]) -> LayerSpec:
        """A layer with other windows, as a model has it."""
        data = [_data(layer) for layer in self.layers]
        data[number]["attention"] = {**data[number]["attention"], **windows}
        return self._spec(data, self.spec.name).layer_specs[number]

    def _windows(self, number: int, setting: Setting) -> dict[str, Any]:
        """What a spec says about the windows of a layer that changes. A layer that was local keeps its own."""
        attention: Any = self.layers[number].attention
        own = getattr(attention, "window", None)
        window, sinks = (self.window, self.sinks) if own is None else (own, attention.keep_first)
        if all(setting):
            return {"window": None, "keep_first": 0}
        if any(setting):
            windows = [None if stays else window for stays in setting]
            return {"window": None, "windows": windows, "keep_first": sinks}
        return {"window": window, "keep_first": sinks}

    def spec_of(self, placement: Placement, name: str | None = None) -> ModelSpec:
        """The spec of a placement: the original's, with windows."""
        layers = [_data(self.layer(i, setting)) for i, setting in enumerate(self.settings(placement))]
        return self._spec(layers, name or self.spec.name)

    def _spec(self, layers: list[dict[str, Any]], name: str) -> ModelSpec:
        data = self.spec.model_dump(mode="json")
        data |= {"last": None, **lay_out(layers), "name": name}
        made = parse_spec(data, "model")
        assert isinstance(made, ModelSpec)
        return made

    def cache_bytes(self, placement: Placement, length: int | None = None) -> int:
        return self.spec_of(placement).cache_bytes(length or self.length)

    def share(self, placement: Placement) -> float:
        """The cache bytes of a placement as a share of the original's."""
        return self.cache_bytes(placement) / self.spec.cache_bytes(self.length)

    @cached_property
    def costs(self) -> dict[int, int]:
        """What each unit adds to the cache bytes where it is global. Costs add up: each unit has keys of its own."""
        none = self.cache_bytes(())
        return {unit: self.cache_bytes((unit,)) - none for unit in self.units}

    def dearest(self, count: int) -> Placement:
        """The `count` units that cost most: no placement of this size has more cache bytes."""
        return tuple(sorted(sorted(self.units, key=lambda unit: -self.costs[unit])[:count]))

    def windows(self) -> set[int]:
        """The windows that units have where they are local."""
        own = [getattr(self.layers[i].attention, "window", None) for i in self.whole_layers]
        return {self.window if one is None else one for one in own}

    def count(self, share: float) -> int:
        """How many units may stay global so that each placement of so many holds at most this share of the original's
        cache bytes.

        Raises:
            UserError: no layer sees the whole context, no number of them meets the share, or not one may stay.
        """
        if not self.units:
            raise UserError(f"{self.spec.name}: no layer sees the whole context, so there is nothing to make local")
        if self.widen and self.original == self.units:
            raise UserError(
                f"--widen: {self.spec.name} has no layer with a window that it could lose, so there is nothing to widen"
            )
        found = bisect_right(range(len(self.units)), share, key=lambda k: self.share(self.dearest(k))) - 1
        most = 1.0 if self.widen else self.share(self.units)
        if found < 1 or share > most or (share == most and not self.widen):
            raise UserError(f"--cache {share:.1%}: no layout meets it. {self._least(most)}")
        return found

    def _least(self, most: float) -> str:
        """Which shares there are layouts for."""
        none, one = (ceil(1000 * self.share(self.dearest(k))) / 1000 for k in (0, 1))  # a share to ask for: rounded up
        layers = f"{len(self.whole_layers)} layers that {'may have one' if self.widen else 'see the whole context'}"
        unit = "key/value head" if self.heads else "layer"
        said = (
            f"With windows of {', '.join(map(str, sorted(self.windows())))} in all {layers}, {none:.1%} of the cache "
            f"at {self.length:,} tokens are left, and with one global {unit} {one:.1%}"
        )
        if one > most or (one == most and not self.widen):
            return f"{said}: there is no smaller layout"
        return f"{said}; expected from {one:.1%} to {'' if self.widen else 'below '}{most:.1%}, or another --window"


def _sees_all(layer: LayerSpec) -> bool:
    attention: Any = layer.attention
    return all(getattr(attention, name, None) is None for name in ("window", "windows", "chunk"))


def _has_window(layer: LayerSpec) -> bool:
    attention: Any = layer.attention
    return getattr(attention, "window", None) is not None


def _data(layer: LayerSpec) -> dict[str, Any]:
    return layer.model_dump(mode="json")


def evenly(units: tuple[int, ...], count: int) -> Placement:
    """`count` of the units, evenly spaced, the last one among them, as patterns such as SSSG have them."""
    n = len(units)
    return tuple(units[n * (i + 1) // count - 1] for i in range(count))

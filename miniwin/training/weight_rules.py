"""What becomes of each tensor when a run begins with the weights of another model, the base. All rules are here.

    kept     the same name and shape in the base
    copied   from another layer of the base, where `layers=` says so; or the first rows of a table of embeddings that
             has grown, or of learned positions; or the embedding, into a head that is no longer tied
    fresh    drawn from the run's seed, as in a run without a base
    dropped  of the base, and of no use here

A tensor that is no matrix of a linear map and no table of embeddings, such as a bias, a gain, a logit scale or what
belongs to a position encoding, goes by the specs: where they differ, it is fresh or dropped. A matrix is never fresh or
dropped, and no layer is renumbered, unless the user says so in a map:

    layers=0-23,8-31        the base's layer for each layer, in order; `fresh` for a new one
    layers=stretched        layer i is the base's layer floor(i n / m), of n layers there and m here
    layers=stacked          layer i is the base's layer i mod n
    PATTERN=fresh           tensors of the new model, as in layers.*.mlp.*=fresh
    PATTERN=dropped         tensors of the base
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from miniwin.blocks import Decoder, PositionEncoding
from miniwin.blocks.messages.listing import some
from miniwin.blocks.messages.nearest import nearest
from miniwin.specs import UserError

Rule = Literal["kept", "copied", "fresh", "dropped"]
TABLES = ("embed_tokens.weight", "lm_head.weight")  # whose rows are tokens
FRESH: Final = "fresh"
DROPPED: Final = "dropped"
_LAYER = re.compile(r"layers\.(\d+)\.(.*)")
_EXAMPLES = "layers=0-23,8-31, layers=stretched, layers=stacked, PATTERN=fresh or PATTERN=dropped"


@dataclass(frozen=True)
class Move:
    """What becomes of one tensor.

    name: in the new model; of a dropped one, in the base. source: its name in the base. rows: how many first rows come
    from there, if not all of both.
    """

    rule: Rule
    name: str
    shape: tuple[int, ...]
    source: str | None = None
    rows: int | None = None


class Maps:
    """What the user says of tensors, read from texts such as `layers=stretched`.

    Raises:
        UserError: a text is no map.
    """

    def __init__(self, texts: Sequence[str], base_layers: int, layers: int) -> None:
        self.fresh: dict[str, str] = {}  # pattern -> the text that it was given in
        self.dropped: dict[str, str] = {}
        self.layers: list[int | None] | None = None
        for text in texts:
            name, equals, value = (part.strip() for part in text.partition("="))
            if not equals or not name or not value:
                raise UserError(f"--map {text}: expected {_EXAMPLES}")
            if name == "layers":
                if self.layers is not None:
                    raise UserError(f"--map {text}: layers are said twice; expected them once")
                self.layers = _layers(text, value, base_layers, layers)
            elif value == FRESH:
                self.fresh[name] = text
            elif value == DROPPED:
                self.dropped[name] = text
            else:
                raise UserError(f"--map {text}: got {value!r}; expected {_EXAMPLES}")

    def source(self, name: str) -> str | None:
        """The base's tensor that a tensor of the new model comes from; None where its layer is new."""
        found = _LAYER.fullmatch(name)
        if self.layers is None or found is None:
            return name
        layer = self.layers[int(found[1])]
        return None if layer is None else f"layers.{layer}.{found[2]}"

    def is_new(self, name: str) -> bool:
        """Whether a tensor belongs to a layer that the user calls fresh."""
        return self.source(name) is None


def moves(
    base: Decoder, new: Decoder, maps: Sequence[str] = (), named: tuple[str, str] = ("base", "model")
) -> list[Move]:
    """What becomes of every tensor, in the order of the new model; then of those that are dropped.

    base, new: on the meta device. named: how messages call the base and the new model.

    Raises:
        UserError: tensors do not fit, and no rule and no map says what to do; or a map says nothing.
    """
    theirs, ours = _shapes(base), _shapes(new)
    if len(base.layers) != len(new.layers) and not any(text.partition("=")[0].strip() == "layers" for text in maps):
        raise UserError(
            f"--from: {named[0]} has {len(base.layers)} layers, and {named[1]} has {len(new.layers)}; say which layer "
            "of the base each one comes from: --map layers=stretched, layers=stacked, or a list of "
            f"{len(new.layers)}, such as layers={_example(len(base.layers), len(new.layers))}"
        )
    said = Maps(maps, len(base.layers), len(new.layers))
    _refuse_idle(said.fresh, ours, named[1])
    _refuse_idle(said.dropped, theirs, named[0])
    needed, tables = _matrices(new), _tables(new)
    found, problems = [], []
    for name, shape in ours.items():
        move = _move(name, shape, theirs, base, said, tables)
        if move.rule == FRESH and name in needed and not said.is_new(name) and not _matches(name, said.fresh):
            problems.append(_unfit(name, shape, theirs.get(said.source(name) or ""), named))
        found.append(move)
    used, wanted, held = {move.source for move in found}, {said.source(name) for name in ours}, _matrices(base)
    for name, shape in theirs.items():
        if name in used:
            continue
        layer = _LAYER.fullmatch(name)
        left_out = layer is not None and said.layers is not None and int(layer[1]) not in said.layers
        # One that is wanted has its place taken by a fresh tensor, which was said or is a problem already.
        if name in held and not (name in wanted or left_out or _matches(name, said.dropped)):
            problems.append(
                f"{name}: {named[0]} has it, {_size(shape)}, and {named[1]} has no such tensor; to leave it out: --map "
                f"'{pattern_of(name)}={DROPPED}'"
            )
        found.append(Move(DROPPED, name, shape))
    problems += _other_heads(base, new, said, found, named)
    if problems:
        raise UserError(f"--from: the weights of {named[0]} do not fit: {some(_one_a_pattern(problems), 3, '; ')}")
    return found


def _other_heads(base: Decoder, new: Decoder, said: Maps, found: Iterable[Move], named: tuple[str, str]) -> list[str]:
    """Projections that have the shape of the base's and mean something else: their rows belong to other heads."""
    problems, taken = [], {move.name for move in found if move.source is not None}
    for place, layer in enumerate(new.layers):
        source = place if said.layers is None else said.layers[place]
        name = f"layers.{place}.attention.q_proj.weight"
        if source is None or name not in taken:
            continue
        theirs, ours = (_heads(one) for one in (base.layers[source], layer))
        if theirs != ours:
            problems.append(
                f"{name}: {named[0]} has {theirs} there, and {named[1]} has {ours}; give it the heads of "
                f"{named[0]}, or draw the layer's projections anew: --map 'layers.*.attention.*_proj.*={FRESH}'"
            )
    return problems


def _heads(layer: Any) -> str:
    attention = layer.attention
    return f"{attention.num_heads} heads ({attention.num_kv_heads} for keys and values) of {attention.head_dim}"


def put(decoder: Decoder, moves: Iterable[Move], tensors: dict[str, Tensor]) -> None:
    """Write the base's tensors into a decoder whose weights are fresh, as `moves` says."""
    own = decoder.state_dict()
    with torch.no_grad():
        for move in moves:
            if move.source is not None:
                target = own[move.name] if move.rows is None else own[move.name][: move.rows]
                target.copy_(tensors[move.source][: move.rows])


def pattern_of(name: str) -> str:
    """layers.7.mlp.experts.3.up_proj.weight -> layers.*.mlp.experts.*.up_proj.weight"""
    return re.sub(r"\.\d+(?=\.)", ".*", name)


def _move(
    name: str,
    shape: tuple[int, ...],
    theirs: dict[str, tuple[int, ...]],
    base: Decoder,
    said: Maps,
    tables: set[str],
) -> Move:
    source = said.source(name)
    if source is None or _matches(name, said.fresh):
        return Move(FRESH, name, shape)
    if name == "lm_head.weight" and source not in theirs and base.lm_head is None:
        source = "embed_tokens.weight"
    if source not in theirs or _matches(source, said.dropped):
        return Move(FRESH, name, shape)
    got = theirs[source]
    if got == shape:
        return Move("kept" if source == name else "copied", name, shape, source)
    if name in TABLES and got[1:] == shape[1:] and got[0] < shape[0]:
        return Move("copied", name, shape, source, rows=got[0])
    if name in tables and got[1:] == shape[1:]:
        return Move("copied", name, shape, source, rows=min(got[0], shape[0]))
    return Move(FRESH, name, shape)


def _layers(text: str, value: str, count: int, wanted: int) -> list[int | None]:
    """The base's layer of each layer."""
    if value == "stretched":
        return [place * count // wanted for place in range(wanted)]
    if value == "stacked":
        return [place % count for place in range(wanted)]
    found: list[int | None] = []
    for part in value.split(","):
        span = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if part.strip() == FRESH:
            found.append(None)
        elif span is None:
            raise UserError(
                f"--map {text}: got {part!r}; expected a layer of the base, a span such as 0-{count - 1}, or {FRESH}"
            )
        else:
            first, last = int(span[1]), int(span[2] or span[1])
            if not first <= last < count:
                raise UserError(f"--map {text}: got {part!r}; expected layers from 0 to {count - 1}, in order")
            found += range(first, last + 1)
    if len(found) != wanted:
        raise UserError(f"--map {text}: it names {len(found)} layers, and the model has {wanted}; expected as many")
    return found


def _example(count: int, wanted: int) -> str:
    """A list of `wanted` layers: the first ones of the base, and then its last ones again."""
    spans = [f"0-{min(count, wanted) - 1}"]
    while (rest := wanted - count * len(spans)) > 0:
        spans.append(f"{max(count - rest, 0)}-{count - 1}")
    return ",".join(spans)


def _shapes(decoder: Decoder) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in decoder.state_dict().items()}


def _matrices(decoder: Decoder) -> set[str]:
    """The weights of linear maps and embeddings, but for those inside a position encoding."""
    found: set[str] = set()
    inside: set[nn.Module] = set()
    for name, module in decoder.named_modules():
        if isinstance(module, PositionEncoding):
            inside |= set(module.modules())
        if isinstance(module, nn.Linear | nn.Embedding) and module not in inside:
            found.add(f"{name}.weight")
    return found


def _tables(decoder: Decoder) -> set[str]:
    """Tables of learned positions, a row for each."""
    return {
        f"{name}.{table}"
        for name, module in decoder.named_modules()
        if isinstance(module, PositionEncoding)
        for table in module.rows_of_positions
    }


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _refuse_idle(patterns: dict[str, str], names: Iterable[str], whose: str) -> None:
    known = list(names)
    for pattern, text in patterns.items():
        if not any(fnmatchcase(name, pattern) for name in known):
            near = nearest(pattern, sorted({pattern_of(name) for name in known}))
            hint = f"did you mean {near}?" if near else f"it has {some(sorted({pattern_of(n) for n in known}), 6)}"
            raise UserError(f"--map {text}: no tensor of {whose} has a name like this; {hint}")


def _unfit(name: str, shape: tuple[int, ...], got: tuple[int, ...] | None, named: tuple[str, str]) -> str:
    there = "is not there" if got is None else f"is {_size(got)} there" if got != shape else "is dropped by a map"
    return f"{name}: {there}, expected {_size(shape)}; to draw it anew: --map '{pattern_of(name)}={FRESH}'"


def _size(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def _one_a_pattern(problems: Sequence[str]) -> list[str]:
    """The first problem of each kind of tensor: the same one in every layer is told once."""
    told: dict[str, str] = {}
    for problem in problems:
        told.setdefault(pattern_of(problem.partition(":")[0]), problem)
    return list(told.values())

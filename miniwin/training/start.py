"""What a run begins with: random weights, or those of another model, and what is said about it before it starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from miniwin.blocks import Decoder
from miniwin.specs import ModelSpec
from miniwin.training.origin import Origin
from miniwin.training.weight_rules import Move, moves, pattern_of, put

MAP, TENSORS = "map", "tensors"  # in run.json, under `from`


class Start:
    """The first weights of a run that begins with those of `origin`. maps: see weight_rules.py.

    Raises:
        UserError: the weights do not fit the spec, and nothing says what to do about it.
    """

    def __init__(self, origin: Origin, model: ModelSpec, maps: Sequence[str] = ()) -> None:
        with torch.device("meta"):
            new = model.build()
        self.origin, self.maps = origin, list(maps)
        self.moves = moves(origin.shapes(), new, maps, (origin.ref, model.name))
        self._tensors: dict[str, Tensor] | None = None

    def read(self) -> None:
        """Read the weights, which `put` then needs. Errors in the file come before anything is written."""
        self._tensors = self.origin.tensors()

    def matrix(self, name: str) -> Tensor:
        """The weights that a matrix of the new model begins with, once they are read. It comes from the base whole."""
        assert self._tensors is not None
        return self._tensors[next(move.source or name for move in self.moves if move.name == name)]

    def put(self, decoder: Decoder) -> None:
        """Write the weights into a decoder whose weights are fresh, and let go of them."""
        assert self._tensors is not None
        put(decoder, self.moves, self._tensors)
        self._tensors = None

    def record(self) -> dict[str, Any]:
        """What run.json keeps under `from`."""
        counts = Counter(move.rule for move in self.moves)
        return {**self.origin.record(), MAP: self.maps, TENSORS: dict(counts)}

    def table(self) -> list[str]:
        """A line for each kind of tensor: what becomes of it, its name, its shape and how many there are."""
        rows = list(_rows(self.moves))
        width = max(len(name) for _, name, _ in rows)
        return [f"  {rule:<7}  {name:<{width}}  {rest}" for rule, name, rest in rows]


def same_start(before: dict[str, Any] | None, now: dict[str, Any] | None) -> str | None:
    """How the weights that a recorded run began with differ from those of now; None if they are the same."""
    if before is None and now is None:
        return None
    if now is None:
        assert before is not None
        return f"that began with the weights of {before['ref']}, and not with random ones: give --from {before['ref']}"
    if before is None:
        return f"that began with random weights, not with those of {now['ref']}"
    if before["sha256"] != now["sha256"] or before["spec_hash"] != now["spec_hash"]:
        return (
            f"that began with other weights (of {before['ref']}, sha256 {before['sha256'][:12]}; {now['ref']} has "
            f"{now['sha256'][:12]} now): put those back"
        )
    if before[MAP] != now[MAP]:
        return f"that began with other maps ({before[MAP]} there, {now[MAP]} now)"
    return None


def _rows(moves: Iterable[Move]) -> Iterator[tuple[str, str, str]]:
    counts: Counter[tuple[str, str, str]] = Counter()
    for move in moves:
        shape = f"({', '.join(map(str, move.shape))})"
        said = ""
        if move.rows is not None:
            others = "; the others are fresh" if move.rows < move.shape[0] else " of the base"
            said = f", the first {move.rows:,} rows{others}"
        elif move.rule == "copied":
            source = pattern_of(move.source or "")
            said = ", from another layer" if source == pattern_of(move.name) else f", from {source}"
        counts[(move.rule, pattern_of(move.name), shape + said)] += 1
    for (rule, name, rest), count in counts.items():
        yield rule, name, f"{count} x {rest}" if count > 1 else rest

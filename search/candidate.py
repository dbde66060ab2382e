"""One architecture of a search, and how it is made by setting fields of the base specs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from miniwin.blocks.messages.listing import some
from miniwin.blocks.messages.nearest import nearest
from miniwin.search.spec_errors import SpaceError
from miniwin.specs import ModelSpec, TrainSpec, UserError, parse_spec
from miniwin.specs.added_blocks import AddedBlock
from miniwin.specs.validation_errors import Problem

# Fields of a train spec that change nothing about the model that it trains.
_NEUTRAL = ("name", "kind", "format", "log_every", "checkpoint_seconds", "eval")


@dataclass(frozen=True)
class Candidate:
    """One architecture, with how it is trained. weights: what decides the first ones; empty for random ones."""

    model: ModelSpec
    train: TrainSpec
    weights: tuple[str, ...] = ()

    def at_rate(self, rate: float) -> Candidate:
        """The same with another learning rate."""
        return replace(self, train=at_rate(self.train, rate))

    @property
    def specs(self) -> dict[str, Any]:
        """The specs as data. A tokenizer that is that of the weights is not named."""
        train = self.train.model_dump(mode="json")
        if self.weights and "tokenizer" not in self.train.model_fields_set:
            del train["tokenizer"]
        return {"model": self.model.model_dump(mode="json"), "train": train}

    @property
    def hash(self) -> str:
        """The hash of what decides the result: the architecture, the training, the seed and the first weights, but no
        names."""
        train = {key: value for key, value in self.train.model_dump(mode="json").items() if key not in _NEUTRAL}
        facts = [self.model.hash, train, *([list(self.weights)] if self.weights else [])]
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def at_rate(train: TrainSpec, rate: float) -> TrainSpec:
    """A train spec with another learning rate."""
    return train.model_copy(update={"optimizer": train.optimizer.model_copy(update={"lr": rate})})


def without_tokenizer(train: TrainSpec) -> TrainSpec:
    """A train spec that says nothing of a tokenizer: that of the weights reads the text."""
    said = {name: value for name, value in train.model_dump(mode="json").items() if name != "tokenizer"}
    found = parse_spec(said, "train")
    assert isinstance(found, TrainSpec)
    return found


def put(document: dict[str, Any], path: str, value: Any, checking: bool = False) -> None:
    """Replace one field of a dumped spec, or one value of a list: `windows.0`.

    checking: the field has to be there, but a `value` of None, which stands for an expression, leaves it as it is.
    """
    here: Any = document
    parts = path.split(".")
    walked: list[str] = []
    key: str | int = path
    for part in parts:
        key = part
        if isinstance(here, list):
            key = _place(here, part, ".".join(walked))
        elif not isinstance(here, dict):
            where = ".".join(walked) or "the spec"
            raise UserError(
                f"{where} is {here!r} in the base spec, so it has no field {part!r}; set {where} as a whole instead"
            )
        elif part not in here:
            near = nearest(part, here)
            hint = f"did you mean {'.'.join([*walked, near])!r}? " if near else ""
            where = ".".join(walked) or "the base spec"
            raise UserError(f"there is no {'.'.join([*walked, part])!r}; {hint}{where} has {some(here, 40)}")
        walked.append(part)
        if len(walked) < len(parts):
            here = here[key]
    before = here[key]
    if checking:
        if value is not None:
            here[key] = deepcopy(value)
        return
    # 64 / 2 is 32.0, and a window of 32.0 keys is a window of 32 keys.
    if isinstance(value, float) and value.is_integer() and isinstance(before, int) and not isinstance(before, bool):
        value = int(value)
    here[key] = deepcopy(value)  # a later field may lie inside it


def _place(values: list[Any], part: str, where: str) -> int:
    if not (part.isdecimal() and int(part) < len(values)):
        raise UserError(f"{where} is a list of {len(values)} in the base spec; expected a number from 0, got {part!r}")
    return int(part)


def with_blocks(model: dict[str, Any], added: Mapping[str, AddedBlock], name: str) -> dict[str, Any]:
    """A dumped model spec, with the blocks that a search adds to it. name: of the model.

    Raises:
        SpaceError: a block is there already, is like none that is there, or has no such field.
    """
    own, problems = model["blocks"], []
    blocks = dict(own)
    for letter, block in added.items():
        if letter in own:
            message = f"{name} has a block {letter} already: take another letter"
            problems.append(Problem(("blocks", letter), message, on_key=True))
        elif block.like not in own:
            message = f"got {block.like}; {name} has no such block (its blocks: {some(sorted(own), 30)})"
            problems.append(Problem(("blocks", letter, "like"), message))
        else:
            blocks[letter] = deepcopy(own[block.like])
            for path, value in block.set.items():
                try:
                    put(blocks[letter], path, value)
                except UserError as error:
                    problems.append(Problem(("blocks", letter, "set", path), str(error), on_key=True))
    if problems:
        raise SpaceError(problems)
    return {**model, "blocks": blocks}


def without_unused_blocks(model: dict[str, Any]) -> None:
    """Take the blocks out of a dumped model spec that no layer uses: a layout may leave a letter out."""
    pattern, count, last = model["pattern"], model["num_layers"], model["last"]
    if isinstance(pattern, str) and isinstance(count, int) and 0 < len(pattern) <= count:
        used = {*pattern[: count - (last is not None)], *([] if last is None else [last])}
        model["blocks"] = {letter: block for letter, block in model["blocks"].items() if letter in used}

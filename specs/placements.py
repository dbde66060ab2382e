"""Variables that place something: which layers are global, or what each layer is.

    {subset: {of: num_layers, size: [1, 3]}}                              some of the layers
    {sequence: {letters: [S, G], length: num_layers, at_most: {G: 2}}}    a letter for each layer

Places are numbered from 0, as layers are everywhere.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from miniwin.blocks.positions.base import located
from miniwin.specs.base import Count, Strict
from miniwin.specs.conditional import Conditional, When
from miniwin.specs.sequences import MOST_STATES, Sequences
from miniwin.specs.yaml_scalars import shown

MOST_PLACES = 256  # of a subset or a sequence
NUM_LAYERS = "num_layers"  # of the base model

Letter = Annotated[str, StringConstraints(pattern=r"^[A-Z]$")]


def _places(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (isinstance(value, str) and value) and not (whole and 1 <= value <= MOST_PLACES):
        raise ValueError(
            f"got {shown(value)}; expected a number from 1 to {MOST_PLACES}, the name of an int variable, or "
            f"{NUM_LAYERS}"
        )
    return value


def _size(value: Any) -> Any:
    numbers = value if isinstance(value, list) else [value]
    if isinstance(value, str) and value:
        return value
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers) or (
        isinstance(value, list) and not (len(value) == 2 and value[0] <= value[1])
    ):
        raise ValueError(
            f"got {shown(value)}; expected a number, the name of an int variable, or a range such as [1, 3]"
        )
    return value


Places = Annotated[int | str, BeforeValidator(_places)]


class Subset(Strict):
    """What a subset is of. of: how many places there are, a number or a name. size: how many of them are in it."""

    of: Places
    size: Annotated[int | str | list[int], BeforeValidator(_size)]

    @property
    def names(self) -> dict[str, str]:
        """The variables that it takes a number from, by field."""
        return _names({"of": self.of, "size": self.size})

    def problem(self, of: tuple[int, int], size: tuple[int, int]) -> tuple[str, str] | None:
        """The field that is wrong, and why, where these lowest and highest numbers do not go together."""
        if of[0] < 1 or of[1] > MOST_PLACES:
            return "of", f"it may be {of[0] if of[0] < 1 else of[1]}; a subset is of 1 to {MOST_PLACES} places"
        if size[0] < 0:
            return "size", f"it may be {size[0]}; expected at least 0"
        if size[1] > of[0]:
            return "size", f"it may be {size[1]}, and there may be only {of[0]} places to choose from"
        return None


class SubsetVariable(Conditional):
    """Some of the places 0, 1, ..., such as which layers are global. `place(name, G, S)` makes a pattern of them."""

    subset: Subset
    when: When = {}


class LetterSequence(Strict):
    """What a sequence is made of. at_least, at_most: how often a letter comes. not_twice: letters that never stand
    beside themselves."""

    letters: Annotated[list[Letter], Field(min_length=1)]
    length: Places
    at_least: dict[Letter, Count] = {}
    at_most: dict[Letter, Count] = {}
    not_twice: list[Letter] = []

    @model_validator(mode="after")
    def _known(self) -> LetterSequence:
        for index, letter in enumerate(self.letters):
            if letter in self.letters[:index]:
                raise located(f"letters.{index}", f"the letter {letter} is there twice")
        said = [("at_least", letter) for letter in self.at_least] + [("at_most", letter) for letter in self.at_most]
        for path, letter in [*said, *((f"not_twice.{index}", letter) for index, letter in enumerate(self.not_twice))]:
            if letter not in self.letters:
                where = path if "." in path else f"{path}.{letter}"
                raise located(where, f"got {letter}; the letters of this sequence are {', '.join(self.letters)}")
        return self

    @property
    def names(self) -> dict[str, str]:
        return _names({"length": self.length})

    def sequences(self, longest: int) -> Sequences:
        """All that keep the rules, of any length up to `longest`."""
        number = self.letters.index
        return Sequences(
            len(self.letters),
            {number(letter): count for letter, count in self.at_least.items()},
            {number(letter): count for letter, count in self.at_most.items() if count < longest},
            [number(letter) for letter in self.not_twice],
        )

    def problem(self, length: int, longest: int) -> tuple[str, str] | None:
        """The field that is wrong, and why, where no sequence has this length."""
        if longest > MOST_PLACES:
            return "length", f"it may be {longest}; a sequence has at most {MOST_PLACES} letters"
        found = self.sequences(longest)
        if found.states(longest) > MOST_STATES:
            return "at_most" if self.at_most else "at_least", (
                "there are too many limits to count the sequences that keep them: limit fewer letters, or lower the "
                "limits"
            )
        if not found.count(length):
            return "", f"no sequence of {length} letters keeps these rules: relax them, or add letters"
        return None


class SequenceVariable(Conditional):
    """A letter for each place, such as a layout layer by layer. Its value is text: `pattern: name`."""

    sequence: LetterSequence
    when: When = {}


def _names(fields: dict[str, Any]) -> dict[str, str]:
    return {field: value for field, value in fields.items() if isinstance(value, str) and value != NUM_LAYERS}


Placement = SubsetVariable | SequenceVariable

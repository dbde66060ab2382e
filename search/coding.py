"""How the value of one variable is written as Optuna parameters, and read from them.

A number and a choice are one parameter of the variable's name. A placement has two codings:

    letters   a parameter for each place, `layout.0`, `layout.1`, ...: the letter there (of a subset: inside or not).
              What breaks the rules stands for the nearest placement that keeps them: the one that changes the fewest
              places. Of several nearest ones a draw decides, whose seed is the parameters.
    ordinal   the rank among all placements, in an order in which neighbours differ little (specs/sequences.py). One
              parameter of the variable's name. Ranks of more than 31 bits go on in `layout.1`, `layout.2`, ...: the
              higher digits. A rank beyond the last begins anew at the first.

Both can say every placement, and read what they wrote. What was once written keeps its meaning when a study goes on
with wider variables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from miniwin.search.placement import Placed
from miniwin.specs import UserError
from miniwin.specs.conditional import same
from miniwin.specs.placements import Placement
from miniwin.specs.variables import ChoiceVariable, FloatVariable, IntVariable
from miniwin.specs.yaml_scalars import shown

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

CODINGS = ("letters", "ordinal")
DIGIT = 2**31  # of a rank: storages and samplers keep a parameter as a float

Given = Mapping[str, Any]  # values of the variables before this one
Params = Mapping[str, Any]


class Coding:
    """The coding of one variable."""

    def __init__(self, name: str) -> None:
        self.name = name

    def distributions(self, given: Given | None, known: Params) -> dict[str, BaseDistribution]:
        """The parameters, where these values are given; None: all parameters there may be, at their widest.

        known: parameters that are fixed already.
        """
        raise NotImplementedError

    def is_in(self, params: Params) -> bool:
        """Whether there are parameters that say a value."""
        return self.name in params

    def decode(self, params: Params, given: Given) -> Any:
        """The value that the parameters say. They need not be those that `encode` writes."""
        raise NotImplementedError

    def encode(self, value: Any, given: Given) -> dict[str, Any]:
        """The parameters of a value. UserError if it is none of the variable's values."""
        raise NotImplementedError


class NumberCoding(Coding):
    """A number is its own parameter."""

    def __init__(self, name: str, variable: IntVariable | FloatVariable) -> None:
        super().__init__(name)
        self._variable = variable

    def distributions(self, given: Given | None, known: Params) -> dict[str, BaseDistribution]:
        from optuna.distributions import FloatDistribution, IntDistribution

        variable = self._variable
        if isinstance(variable, IntVariable):
            return {self.name: IntDistribution(variable.int[0], variable.int[1], variable.log, variable.step)}
        return {self.name: FloatDistribution(variable.float[0], variable.float[1], variable.log, variable.step)}

    def decode(self, params: Params, given: Given) -> Any:
        return params[self.name]

    def encode(self, value: Any, given: Given) -> dict[str, Any]:
        if not self._variable.has(value):
            raise _unfit(self.name, value)
        return {self.name: int(value) if isinstance(self._variable, IntVariable) else float(value)}


class ChoiceCoding(Coding):
    """A choice is its own parameter; a choice that Optuna cannot hold, such as a mapping, is compact JSON.

    Optuna refuses other choices under the name of a parameter. So once a study goes on with more choices, the parameter
    is `window+6`: the name, and how many there are. first: how many there were when the study began.
    """

    def __init__(self, name: str, variable: ChoiceVariable, first: int | None = None) -> None:
        super().__init__(name)
        self._choices, self._keys = variable.choice, [choice_key(choice) for choice in variable.choice]
        self._first = len(self._choices) if first is None else first

    def distributions(self, given: Given | None, known: Params) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution

        # A trial that waits, or goes on, has its parameter from the time before.
        name, count = next(((name, n) for name, n in self._names().items() if name in known), self._now())
        return {name: CategoricalDistribution(self._keys[:count])}

    def is_in(self, params: Params) -> bool:
        return any(name in params for name in self._names())

    def decode(self, params: Params, given: Given) -> Any:
        key = next(params[name] for name in self._names() if name in params)
        for choice, known in zip(self._choices, self._keys, strict=True):
            if same(known, key):
                return choice
        raise _unfit(self.name, key)

    def encode(self, value: Any, given: Given) -> dict[str, Any]:
        for choice, key in zip(self._choices, self._keys, strict=True):
            if same(choice, value):
                return {self._now()[0]: key}
        raise _unfit(self.name, value)

    def _now(self) -> tuple[str, int]:
        count = len(self._choices)
        return self.name if count == self._first else f"{self.name}+{count}", count

    def _names(self) -> dict[str, int]:
        """Every name that the parameter may have had, and how many choices there were."""
        later = range(self._first + 1, len(self._choices) + 1)
        return {self.name: self._first, **{f"{self.name}+{count}": count for count in later}}


class LettersCoding(Coding):
    """A parameter for each place of a placement."""

    def __init__(self, name: str, placed: Placed) -> None:
        super().__init__(name)
        self._placed = placed

    def distributions(self, given: Given | None, known: Params) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution

        length = self._placed.longest if given is None else self._placed.length(given)
        return {name: CategoricalDistribution(self._placed.letters) for name in self._names(length)}

    def is_in(self, params: Params) -> bool:
        return any(name in params for name in self._names(self._placed.longest))

    def decode(self, params: Params, given: Given) -> Any:
        found, letters = self._placed.sequences(given), self._placed.letters
        said = {name: params.get(name) for name in self._names(self._placed.length(given))}
        wanted = [letters.index(letter) if letter in letters else None for letter in said.values()]
        if None not in wanted and found.allows(tuple(wanted)):  # type: ignore[arg-type]
            return self._placed.value(tuple(wanted))  # type: ignore[arg-type]
        return self._placed.value(found.nearest(wanted, Random(json.dumps([self.name, *said.values()]))))

    def encode(self, value: Any, given: Given) -> dict[str, Any]:
        word = _word(self.name, self._placed, value, given)
        return {name: self._placed.letters[letter] for name, letter in zip(self._names(len(word)), word, strict=True)}

    def _names(self, length: int) -> list[str]:
        return [f"{self.name}.{place}" for place in range(length)]


class OrdinalCoding(Coding):
    """The rank of a placement, in digits of 31 bits, the lowest first."""

    def __init__(self, name: str, placed: Placed) -> None:
        super().__init__(name)
        self._placed = placed

    def distributions(self, given: Given | None, known: Params) -> dict[str, BaseDistribution]:
        from optuna.distributions import IntDistribution

        highest = (self._placed.most() if given is None else self._placed.count(given)) - 1
        found: dict[str, BaseDistribution] = {}
        for digit, _ in enumerate(_digits(highest)):
            found[self._digit(digit)] = IntDistribution(0, min(highest // DIGIT**digit, DIGIT - 1))
        return found

    def decode(self, params: Params, given: Given) -> Any:
        rank, digit = 0, 0
        while self._digit(digit) in params:
            rank += int(params[self._digit(digit)]) * DIGIT**digit
            digit += 1
        found, length = self._placed.sequences(given), self._placed.length(given)
        return self._placed.value(found.unrank(length, rank % found.count(length)))

    def encode(self, value: Any, given: Given) -> dict[str, Any]:
        found = self._placed.sequences(given)
        rank = found.rank(_word(self.name, self._placed, value, given))
        digits = _digits(found.count(self._placed.length(given)) - 1)
        return {self._digit(digit): rank // DIGIT**digit % DIGIT for digit in range(len(digits))}

    def _digit(self, digit: int) -> str:
        return f"{self.name}.{digit}" if digit else self.name


def make_coding(name: str, variable: Any, placed: Placed | None, coding: str, first: int | None) -> Coding:
    """The coding of a variable. coding: of placements. first: of a choice, how many a study began with."""
    if isinstance(variable, Placement):
        assert placed is not None and coding in CODINGS
        return LettersCoding(name, placed) if coding == "letters" else OrdinalCoding(name, placed)
    if isinstance(variable, ChoiceVariable):
        return ChoiceCoding(name, variable, first)
    return NumberCoding(name, variable)


def choice_key(choice: Any) -> Any:
    """What Optuna stores for a choice: scalars as they are, anything else as compact JSON."""
    if choice is None or isinstance(choice, (bool, int, float, str)):
        return choice
    return json.dumps(choice, sort_keys=True, separators=(",", ":"))


def _digits(highest: int) -> list[int]:
    digits = [highest % DIGIT]
    while highest := highest // DIGIT:
        digits.append(highest % DIGIT)
    return digits


def _word(name: str, placed: Placed, value: Any, given: Given) -> tuple[int, ...]:
    try:
        return placed.word(value, given)
    except UserError:
        raise _unfit(name, value) from None


def _unfit(name: str, value: Any) -> UserError:
    return UserError(f"{name}: got {shown(value)}, which is none of its values")

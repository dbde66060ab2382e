"""A placement variable of a search over one base model: its values as sequences of letters.

A subset of 8 places is a sequence of 8 letters, 0 outside and 1 inside. So one file, specs/sequences.py, counts, ranks
and mends subsets and layouts alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from miniwin.specs import UserError
from miniwin.specs.placements import NUM_LAYERS, Placement, SubsetVariable
from miniwin.specs.sequences import Sequences, Word
from miniwin.specs.variable_links import bounds
from miniwin.specs.yaml_scalars import shown

TRIES = 64  # small changes tried before a placement is drawn anew


class Placed:
    """A placement variable. `given` are the values of the variables before it, which may say its numbers.

    letters: what stands at a place, as Optuna knows it. longest: the most places there may be.
    """

    def __init__(self, variable: Placement, variables: Mapping[str, Any], num_layers: int) -> None:
        self._variable, self._num_layers = variable, num_layers
        self._by_size: dict[tuple[int, int], Sequences] = {}
        if isinstance(variable, SubsetVariable):
            self._length_of: int | str = variable.subset.of
            self.letters: list[Any] = [False, True]
        else:
            self._length_of = variable.sequence.length
            self.letters = list(variable.sequence.letters)
        longest = bounds(self._length_of, variables, num_layers)
        assert longest is not None
        self.longest = longest[1]
        self._rules = None if isinstance(variable, SubsetVariable) else variable.sequence.sequences(self.longest)
        self._variables = variables

    def length(self, given: Mapping[str, Any]) -> int:
        """How many places there are."""
        return self._number(self._length_of, given)

    def count(self, given: Mapping[str, Any]) -> int:
        """How many values there are."""
        return self.sequences(given).count(self.length(given))

    def most(self) -> int:
        """How many values there are at most, whatever is given."""
        if not isinstance(self._variable, SubsetVariable):
            assert self._rules is not None
            return max(self._rules.count(length) for length in self._all(self._length_of))
        size = self._variable.subset.size
        if isinstance(size, list):
            return max(self._subsets(size[0], size[1]).count(of) for of in self._all(self._length_of))
        return max(self._subsets(n, n).count(of) for n in self._all(size) for of in self._all(self._length_of))

    def sequences(self, given: Mapping[str, Any]) -> Sequences:
        """All sequences that are values."""
        if self._rules is not None:
            return self._rules
        assert isinstance(self._variable, SubsetVariable)
        size = self._variable.subset.size
        if isinstance(size, list):
            return self._subsets(size[0], size[1])
        number = self._number(size, given)
        return self._subsets(number, number)

    def value(self, word: Word) -> Any:
        """A sequence as a value: the places of a subset, or the text of a layout."""
        if self._rules is None:
            return [place for place, inside in enumerate(word) if inside]
        return "".join(self.letters[letter] for letter in word)

    def word(self, value: Any, given: Mapping[str, Any]) -> Word:
        """A value as a sequence.

        Raises:
            UserError: it is none of the values.
        """
        word = self.rough(value, self.length(given))
        if word is None or not self.sequences(given).allows(word):
            raise UserError(f"{shown(value)} is none of its values")
        return word

    def rough(self, value: Any, length: int) -> Word | None:
        """A value as a sequence of this length, which may break the rules; None if it cannot be one."""
        if self._rules is not None:
            if not isinstance(value, str) or len(value) != length or not set(value) <= set(self.letters):
                return None
            return tuple(self.letters.index(letter) for letter in value)
        whole = isinstance(value, list) and all(isinstance(n, int) and 0 <= n < length for n in value)
        if not whole or sorted(set(value)) != value:
            return None
        return tuple(int(place in value) for place in range(length))

    def draw(self, given: Mapping[str, Any], random: Random) -> Any:
        """A value, each with the same chance."""
        found, length = self.sequences(given), self.length(given)
        return self.value(found.unrank(length, random.randrange(found.count(length))))

    def fitted(self, value: Any, given: Mapping[str, Any], random: Random) -> Any:
        """The value nearest to one that was made for other numbers. Places that are new may hold anything."""
        old = self.rough(value, len(value)) if self._rules is not None else self.rough(value, self.longest)
        length = self.length(given)
        wanted = [*(old or ())[:length], *[None] * length][:length]
        return self.value(self.sequences(given).nearest(wanted, random))

    def changed(self, value: Any, given: Mapping[str, Any], random: Random) -> Any:
        """A value that differs a little: two places swapped, mostly neighbours, or one place changed."""
        found, word = self.sequences(given), list(self.word(value, given))
        for _ in range(TRIES):
            near = list(word)
            one = random.randrange(len(word))
            if random.random() < 0.7:
                other = one + random.choice([-1, 1]) if random.random() < 0.5 else random.randrange(len(word))
                if 0 <= other < len(word):
                    near[one], near[other] = near[other], near[one]
            else:
                near[one] = random.randrange(found.letters)
            if near != word and found.allows(tuple(near)):
                return self.value(tuple(near))
        others = found.count(len(word)) - 1
        if not others:
            return value
        rank = random.randrange(others)
        return self.value(found.unrank(len(word), rank + (rank >= found.rank(tuple(word)))))

    def swapped(self, value: Any, given: Mapping[str, Any], random: Random) -> Any:
        """A value with two different places swapped, each pair with the same chance; or one place changed, where the
        rules let that be."""
        found, word = self.sequences(given), list(self.word(value, given))
        for _ in range(TRIES):
            near = list(word)
            one = random.randrange(len(word))
            others = [place for place, letter in enumerate(word) if letter != word[one]]
            if others and random.random() < 0.5:
                other = random.choice(others)
                near[one], near[other] = near[other], near[one]
            else:
                near[one] = random.randrange(found.letters)
            if near != word and found.allows(tuple(near)):
                return self.value(tuple(near))
        return self.changed(value, given, random)

    def crossed(self, one: Any, other: Any, given: Mapping[str, Any], random: Random) -> Any:
        """The value nearest to a mixture: each place is as in one parent or in the other."""
        length = self.length(given)
        parents = [self.rough(one, length), self.rough(other, length)]
        if None in parents:  # a parent has another number of places
            return self.fitted(random.choice([one, other]), given, random)
        mixed = [random.choice(letters) for letters in zip(*filter(None, parents), strict=True)]
        return self.value(self.sequences(given).nearest(mixed, random))

    def _subsets(self, least: int, most: int) -> Sequences:
        key = least, most
        if key not in self._by_size:
            self._by_size[key] = Sequences(2, {1: least}, {1: most})
        return self._by_size[key]

    def _number(self, number: int | str, given: Mapping[str, Any]) -> int:
        if isinstance(number, str):
            return self._num_layers if number == NUM_LAYERS else int(given[number])
        return number

    def _all(self, number: int | str) -> list[int]:
        """All values of a number."""
        if isinstance(number, str) and number != NUM_LAYERS:
            return list(self._variables[number].values)
        return [self._number(number, {})]

"""Fuzzy recall: as recall, but keys and values are of several tokens, and not all of the same number.

    ...filler...            random lower-case letters and spaces
    c=TBK;...filler...      anywhere in it `num_pairs` pairs: a key of 1 to `key_size` letters, of which there are only
    acb=B;...filler...      `num_letters`; and a value of 1 to `value_size` capitals, which ends with `;`. All keys are
                            different, and all values
    acb=B;                  at the very end `num_queries` queries: keys in another order, each with its value and the
    c=TBK;                  `;`: where the value ends is a part of the answer

Fuzzy in-context recall of MAD (arXiv:2403.17844): tokens have to be read together, for a letter is in many keys, and a
key may be the end of another. By default, looking up the last letter of the key alone is right 0.47 of the time. Where
we deviate: MAD marks neither the end of a key nor that of a value, draws pairs again and again until the text is full,
and tests with keys of the full size only; here `=` and `;` make the answer exact, and there is filler.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Annotated, Literal

from pydantic import Field, model_validator

from miniwin.blocks.spec import PositiveInt
from miniwin.evaluation.tasks.eliminating import one_of_the_rest
from miniwin.evaluation.tasks.placing import LETTERS, SPARE, VALUES, check_queries, placed
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.task import Example, Task

Size = Annotated[PositiveInt, Field(le=16)]


@TASKS.register
class FuzzyRecall(Task):
    """key_size, value_size: letters, at most. num_pairs: at most 26, for the values of all could have one letter.

    Chance is that of a guess that draws a size first, and then so many capitals.
    """

    type: Literal["fuzzy-recall"] = "fuzzy-recall"
    num_pairs: Annotated[PositiveInt, Field(le=len(VALUES))] = 8
    num_queries: PositiveInt = 2
    key_size: Size = 3
    value_size: Size = 3
    num_letters: Annotated[PositiveInt, Field(le=len(LETTERS))] = 4

    @model_validator(mode="after")
    def _there_are_so_many(self) -> FuzzyRecall:
        check_queries(self.num_queries, self.num_pairs, "num_pairs")
        possible = sum(self.num_letters**size for size in range(1, self.key_size + 1))
        if self.num_pairs > possible:
            raise ValueError(
                f"got num_pairs {self.num_pairs}; expected at most {possible}, for there are no more keys of up to "
                f"{self.key_size} of {self.num_letters} letters"
            )
        return self

    @property
    def chance(self) -> float:
        return sum(len(VALUES) ** -size for size in range(1, self.value_size + 1)) / self.value_size**2

    @property
    def blind(self) -> float:
        """Of a model that knows which values there are and which are left, and not to which key each belongs."""
        return one_of_the_rest(self.num_pairs, self.num_queries)

    @property
    def shortest(self) -> int:
        record = 3 + self.key_size + self.value_size  # newline, key, `=`, value, `;`
        return record * (self.num_pairs + self.num_queries) + SPARE

    def example(self, random: Random, length: int) -> Example:
        names = _keys(random, self.num_pairs, self.key_size, LETTERS[: self.num_letters])
        values = [value + b";" for value in _values(random, self.num_pairs, self.value_size)]
        pairs = [b"\n%b=%b" % pair for pair in zip(names, values, strict=True)]
        asked = random.sample(range(self.num_pairs), self.num_queries)
        context, starts = placed(random, length - sum(len(pairs[pair]) for pair in asked), pairs)
        text, answers = context, []
        for pair in asked:
            text += pairs[pair]
            answers.append((len(text) - len(values[pair]), len(text)))
        depth = starts[asked[0]] / (len(context) - len(pairs[asked[0]])) if len(asked) == 1 else None
        return Example(text, tuple(answers), depth)


def _keys(random: Random, count: int, size: int, letters: Sequence[int]) -> list[bytes]:
    """Different words of 1 to `size` letters."""
    found: dict[bytes, None] = {}
    while len(found) < count:
        found[_word(random, random.randint(1, size), letters)] = None
    return list(found)


def _values(random: Random, count: int, size: int) -> list[bytes]:
    """Different words of 1 to `size` capitals. A size is kept once it is drawn: all sizes are equally likely."""
    found: dict[bytes, None] = {}
    for number in range(count):
        length = random.randint(1, size)
        while len(found) == number:
            found[_word(random, length, VALUES)] = None
    return list(found)


def _word(random: Random, length: int, letters: Sequence[int]) -> bytes:
    return bytes(random.choices(letters, k=length))

"""Compression: bits that lie scattered in the context are read together, and answered by one token.

    ...1..0...filler...     lower-case letters and spaces, and anywhere in it `size` bits, each 0 or 1
    ...1...0...
    =K                      at the very end `=`, and the one letter whose number the bits are in binary: 1010 is
                            number 10 of A..Z, a..z, 0..9, +, /, counted from 0

What compression tests in MAD (arXiv:2403.17844) is token concatenation: what many tokens say is brought together in
one, so that an MLP can decode it there. Where we deviate: MAD trains an auto-encoder, whose MLP has to rebuild the
whole text from the last token alone. A language model has no such loss, and could look back at the text. Here one token
is the answer instead, and it depends on every bit and on their order: all of them have to come together in one place.
Each answer is equally likely. A model that misses one of the bits is right half of the time.
"""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal

from pydantic import Field

from miniwin.blocks.spec import PositiveInt
from miniwin.evaluation.tasks.placing import DIGITS, LETTERS, SPARE, VALUES, ends, placed
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.task import Example, Task

CODES = VALUES + LETTERS + DIGITS + b"+/"
QUESTION = 3  # bytes: newline, `=`, code


@TASKS.register
class Compression(Task):
    """Chance is that of a guess among the codes of so many bits."""

    type: Literal["compression"] = "compression"
    size: Annotated[PositiveInt, Field(le=6)] = 4  # 64 codes

    @property
    def chance(self) -> float:
        return 0.5**self.size

    @property
    def blind(self) -> float:
        """Of a model that knows how many of the bits are 1, and not in which order: one code for each number."""
        return (self.size + 1) * 0.5**self.size

    @property
    def shortest(self) -> int:
        return self.size + QUESTION + SPARE

    def example(self, random: Random, length: int) -> Example:
        code = random.randrange(2**self.size)
        bits = [b"%d" % (code >> place & 1) for place in reversed(range(self.size))]
        context, _ = placed(random, length - QUESTION, bits)
        return Example(context + b"\n=%c" % CODES[code], ends(len(context), [QUESTION]))

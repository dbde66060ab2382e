"""The next line of code: a call whose keywords follow from a definition that was read long before.

    def tamilo(text, width, indent): ...        a function of Python's standard library under a new name, anywhere
    ...                                         other code of the library
    tamilo(text=text, width=width, indent=indent    the call: the first keyword is there, the others are asked for

The new name is the same whenever the function is asked about, and nobody can know it by heart.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from random import Random
from typing import ClassVar, Literal

from miniwin.blocks.spec import Fraction
from miniwin.evaluation.tasks.registry import TASKS
from miniwin.evaluation.tasks.words import Passage, TextTask
from miniwin.evaluation.tasks.words.lists import COINED, coined
from miniwin.evaluation.tasks.words.stdlib import Code, Function, functions


@TASKS.register
class Signature(TextTask):
    """depth: where the definition stands; null is anywhere. A guess is drawn from all parameters in the library."""

    of_this_python: ClassVar[bool] = True

    type: Literal["signature"] = "signature"
    depth: Fraction | None = None

    @property
    def words_chance(self) -> float:
        return 1 / len({name for function in functions() for name in function.parameters})

    def words(self, random: Random) -> Passage:
        function = random.choice(functions())
        name = _new_name(function)
        first, *others = function.parameters
        return Passage(
            facts=(re.sub(rf"\b{function.name}\b", name, function.source),),
            question="# All parameters by name:",
            lead=f"{name}({first}={first},",
            answers=tuple(f"{one}={one}" for one in others),
            about=0,
            depth=self.depth,
            filler=Code(),
            joiner="\n\n",
        )


def _new_name(function: Function) -> str:
    digest = blake2b(function.source.encode(), digest_size=8).digest()
    return coined(int.from_bytes(digest, "big") % COINED)

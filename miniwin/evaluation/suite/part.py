"""What a suite is made of: parts, one measure at one length each; and what all kinds of measures need to plan theirs.

Everything that cannot be measured is found while parts are planned, before anything is measured. Where the suite says
to skip it, the part has its row already, without a value and with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from miniwin.data import Corpus
from miniwin.evaluation.suite.result import SuiteRow, key_of
from miniwin.evaluation.suite.rows import row
from miniwin.inference import Advance
from miniwin.language_model import LanguageModel
from miniwin.specs import SuiteSpec, UserError
from miniwin.specs.lengths import in_tokens
from miniwin.specs.validation_errors import Problem
from miniwin.specs.yaml_lines import Loc

GIVE_IT = "give it with --trained-length (trained_length= in Python)"


@dataclass(frozen=True)
class Part:
    """One measure at one length. tokens: how many are read, for the time left. measure: gives the rows."""

    key: str
    title: str
    tokens: int
    measure: Callable[[Advance], list[SuiteRow]]


def part(measure: str, length: int, tokens: int, run: Callable[[Advance], list[SuiteRow]]) -> Part:
    return Part(key_of(measure, length), f"{measure.replace('_', ' ')} at {length:,}", tokens, run)


@dataclass
class Planned:
    """A suite for one model. trained: the model's training length. corpus: where documents come from, if any are read.

    problems: why the suite cannot be measured, each at its place in the suite.
    """

    suite: SuiteSpec
    model: LanguageModel
    trained: int | None
    corpus: Corpus | None
    problems: list[Problem] = field(default_factory=list)

    def lengths(self, written: Sequence[int | str] | None, *at: str | int) -> Iterator[tuple[int, Loc]]:
        """(a length in tokens, its place in the suite), each once. written: None is the suite's own."""
        seen: set[int] = set()
        where: Loc = ("lengths",) if written is None else at
        for number, length in enumerate(self.suite.lengths if written is None else written):
            tokens = self.tokens(length, (*where, number))
            if tokens is not None and tokens not in seen:
                seen.add(tokens)
                yield tokens, (*where, number)

    def tokens(self, length: int | str, at: Loc) -> int | None:
        """A length in tokens; None, and a problem, if it has no meaning for this model."""
        try:
            return in_tokens(length, self.trained)
        except UserError as error:
            self.problem(at, str(error) if self.trained else f"{error}; {GIVE_IT}")
            return None

    def problem(self, at: Loc, reason: str) -> None:
        self.problems.append(Problem(at, reason))

    def no_room(self, at: Loc, reason: str, measure: str, length: int, **fields: Any) -> Iterator[Part]:
        """A part that cannot be measured: a problem, or, where the suite skips it, a row that says why."""
        if self.suite.no_room == "refuse":
            self.problem(at, reason)
            return
        left_out = row(measure, length, self.trained, None, note=reason, **fields)
        yield part(measure, length, 0, lambda advance: [left_out])

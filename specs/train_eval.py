"""Evaluation while a model is trained: how often, what is measured on the valid split, and which weights are kept.

    eval: {every: 1e6, lengths: [512, 4x], tasks: [{type: last-write}], keep_best: minimize loss@4x}

Values are called as a search's objectives are: `loss@2048`, `bits_per_byte@2048`, and for each task the share of right
answers, `last-write@512`, and the nats of an answer, `last-write-nats@512`. Their lengths are in tokens. A mixture has
`bits_per_byte.NAME@512`, too, of each part that is text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from miniwin.blocks.messages.nearest import near
from miniwin.blocks.positions.base import located_all
from miniwin.evaluation.tasks import TASKS
from miniwin.specs.base import Budget, Count, PositiveInt, Strict, UserError
from miniwin.specs.lengths import Length, in_tokens
from miniwin.specs.objectives import METRICS, NATS, Objective


class EvalSpec(Strict):
    """`every` counts tokens of training. One more evaluation comes at the end of the run."""

    every: Budget
    lengths: Annotated[list[Length], Field(min_length=1)] | None = None  # null: seq_len
    tokens: Count | None = None  # of text, predicted at each length; 0: none. null: as `miniwin eval`
    tasks: list[TASKS.field()] = []  # type: ignore[valid-type]
    examples: PositiveInt = 64  # of each task, at each length
    keep_best: str | None = None  # null: only the last weights are kept

    def at(self, trained: Sequence[int]) -> list[int]:
        """The lengths to measure at, in tokens, sorted, each once. trained: those of the training."""
        return sorted({in_tokens(length, max(trained)) for length in self.lengths or trained})

    def best_of(self, trained: Sequence[int]) -> tuple[bool, str] | None:
        """The value that chooses the best weights, by its name, and whether lower is better: (True, "loss@2048")."""
        if self.keep_best is None:
            return None
        objective = Objective.parse(self.keep_best)
        at = "" if objective.at is None else f"@{objective.length(max(trained))}"
        return objective.direction == "minimize", objective.metric + at

    def check(self, trained: Sequence[int], tokens_per_step: int, text: bool) -> None:
        """Raise a located error, with paths below the train spec, where a run cannot be evaluated so.

        trained: the lengths of the training. text: there is text to measure on.
        """
        problems: list[tuple[str, str]] = []
        try:
            lengths = self.at(trained)
        except UserError as error:
            raise located_all([("eval.lengths", str(error))]) from None
        if self.every < tokens_per_step:
            problems.append(
                (
                    "eval.every",
                    f"got {self.every} tokens, and one optimizer step sees {tokens_per_step}; expected at least "
                    "one step between two evaluations",
                )
            )
        if self.tokens and not text:
            problems.append(
                (
                    "eval.tokens",
                    "the data are examples of tasks, and no text to measure bits per byte on; leave out eval.tokens, "
                    "and name tasks",
                )
            )
        elif self.tokens and self.tokens < lengths[-1]:
            problems.append(
                ("eval.tokens", f"got {self.tokens}, fewer than one window of {lengths[-1]}; expected at least that")
            )
        types = [task.type for task in self.tasks]
        for number, task in enumerate(self.tasks):
            if task.type in types[:number]:
                problems.append(
                    (f"eval.tasks.{number}", f"the task {task.type} is there twice; its values would share their names")
                )
            try:
                task.check_length(lengths[0])
            except UserError as error:
                problems.append((f"eval.tasks.{number}", str(error)))
        measured = [row.name for row in METRICS.values() if row.how == "text"] if text and self.tokens != 0 else []
        measured += [name for kind in types for name in (kind, kind + NATS)]
        names = [f"{name}@{length}" for name in measured for length in lengths]
        if not names:
            problems.append(("eval", "nothing would be measured; name tasks" + (", or leave out tokens: 0" * text)))
        else:
            try:
                best = self.best_of(trained)
                if best is not None and best[1] not in names:
                    problems.append(("eval.keep_best", f"{best[1]} is not measured here; {near(best[1], names)}"))
            except UserError as error:
                problems.append(("eval.keep_best", str(error)))
        if problems:
            raise located_all(problems)

"""Evaluation while a model is trained: how often, what is measured on the valid split, and which weights are kept.

    eval: {every: 1e6, lengths: [512, 2048], tasks: [{type: last-write}], keep_best: minimize loss@2048}

Values have names like those of a search's objectives: `loss@2048` in nats per byte, `bits_per_byte@2048`, and for each
task the share of right answers, `last-write@512`, and the nats of an answer, `last-write-nats@512`. A mixture has
`bits_per_byte.NAME@512`, too, of each part that is text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from miniwin.blocks.messages.nearest import nearest
from miniwin.blocks.positions.base import located_all
from miniwin.evaluation.tasks import TASKS
from miniwin.specs.base import Budget, Count, PositiveInt, Strict, UserError
from miniwin.specs.objectives import METRICS, NATS

Direction = Literal["minimize", "maximize"]
TEXT: dict[str, Direction] = {row.name: "minimize" for row in METRICS.values() if row.how == "text"}


class EvalSpec(Strict):
    """`every` counts tokens of training. One more evaluation comes at the end of the run."""

    every: Budget
    lengths: Annotated[list[PositiveInt], Field(min_length=1)] | None = None  # null: seq_len
    tokens: Count | None = None  # of text, predicted at each length; 0: none. null: as `miniwin eval`
    tasks: list[TASKS.field()] = []  # type: ignore[valid-type]
    examples: PositiveInt = 64  # of each task, at each length
    keep_best: str | None = None  # null: only the last weights are kept

    def at(self, trained: Sequence[int]) -> list[int]:
        """The lengths to measure at, sorted, each once. trained: those of the training."""
        return sorted(set(self.lengths or trained))

    def measured(self, text: bool) -> dict[str, Direction]:
        """What has a value at each length, and which direction is better. text: there is text to measure on."""
        names = dict(TEXT) if text and self.tokens != 0 else {}
        for task in self.tasks:
            names |= {task.type: "maximize", task.type + NATS: "minimize"}
        return names

    def best_of(self) -> tuple[Direction, str] | None:
        """The direction and the value that chooses the best weights: ("minimize", "loss@2048")."""
        if self.keep_best is None:
            return None
        direction, _, name = self.keep_best.partition(" ")
        return ("minimize" if direction == "minimize" else "maximize"), name.strip()

    def check(self, trained: Sequence[int], tokens_per_step: int, text: bool) -> None:
        """Raise a located error, with paths below the train spec, where a run cannot be evaluated so."""
        lengths, problems = self.at(trained), []
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
        names = [f"{name}@{length}" for name in self.measured(text) for length in lengths]
        if not names:
            problems.append(("eval", "nothing would be measured; name tasks" + (", or leave out tokens: 0" * text)))
        elif (wrong := self._wrong_best(names, text)) is not None:
            problems.append(("eval.keep_best", wrong))
        if problems:
            raise located_all(problems)

    def _wrong_best(self, names: list[str], text: bool) -> str | None:
        """What is wrong with `keep_best`; None if nothing is."""
        if self.keep_best is None:
            return None
        words = self.keep_best.split()
        if len(words) != 2 or words[0] not in ("minimize", "maximize"):
            return (
                f"got {self.keep_best!r}; expected 'minimize' or 'maximize' and a value that is measured, such as "
                f"'minimize {names[0]}'"
            )
        if words[1] not in names:
            near = nearest(words[1], names)
            return (
                f"{words[1]} is not measured here; "
                + (f"did you mean {near!r}? " if near else "")
                + f"expected one of: {', '.join(names)}"
            )
        better = self.measured(text)[words[1].partition("@")[0]]
        if words[0] != better:
            return (
                f"{words[1]} is better when {'lower' if better == 'minimize' else 'higher'}; write {better} {words[1]}"
            )
        return None

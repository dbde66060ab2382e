"""What a suite of measures is: which tasks at which lengths, loss on long documents, shifts, speed and cache size.

    lengths: [1x, 4x, 16x, 8192]      tokens, or multiples of the length that the model was trained at
    tasks:
      - task: {type: recall}          any task of miniwin/evaluation/tasks, with its fields
      - {task: {type: copy}, lengths: [1x, 2x], examples: 200}

A part of the suite is one measure at one length. `no_room` says what happens where a length cannot be measured, since
an example is longer than that, or no document is long enough.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from miniwin.blocks.positions.base import located, located_all
from miniwin.evaluation.tasks import TASKS
from miniwin.evaluation.tasks.task import Task
from miniwin.specs.base import PositiveInt, Seed, Strict, UserError
from miniwin.specs.data import DataSpec, has_text
from miniwin.specs.lengths import Length, times
from miniwin.specs.model import Name
from miniwin.specs.objectives import NATS

Lengths = Annotated[list[Length], Field(min_length=1)]


class SuiteTask(Strict):
    """One task at several lengths.

    form: `bytes` is the task's own text, one token a byte; `words` asks in sentences, through the model's tokenizer;
    `auto` is bytes for a byte-level model, and else words where the task has them.
    """

    task: TASKS.field()  # type: ignore[valid-type]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=60)] | None = None  # null: its type
    lengths: Lengths | None = None  # null: the suite's
    examples: PositiveInt | None = None  # at each length; null: the suite's
    form: Literal["auto", "bytes", "words"] = "auto"

    @property
    def parsed_task(self) -> Task:
        """The task, as a type that checkers know."""
        assert isinstance(self.task, Task)
        return self.task

    @property
    def measure(self) -> str:
        return self.name or self.parsed_task.type


class SuiteLoss(Strict):
    """Bits per byte on the beginnings of long documents, every length on the same predicted tokens.

    split: `all` is for text that the model has never seen.
    """

    lengths: Lengths | None = None
    documents: PositiveInt = 16  # at most; drawn from all that are long enough for the longest length
    data: DataSpec | None = None  # null: what the model was trained on
    split: Literal["valid", "test", "all"] = "valid"

    @model_validator(mode="after")
    def _of_text(self) -> SuiteLoss:
        if self.data is not None and not has_text(self.data):
            raise located(
                "data.source",
                f"got {self.data.source}, which has no text to measure bits per byte on; expected another source: "
                "tasks stand under `tasks`",
            )
        return self


class SuiteShift(Strict):
    """How far the losses of the same tokens change when filler tokens stand in front of the text.

    shifts: how many tokens of filler. length: tokens of the text; the second half of them counts.
    """

    shifts: Annotated[list[Length], Field(min_length=1)]
    length: Length = "1x"
    documents: PositiveInt = 16


class SuiteSpeed(Strict):
    """Seconds to read a prompt, seconds for a token after it, and the exponent of the first against the length."""

    lengths: Lengths | None = None
    repeats: Annotated[int, Field(ge=6, le=1000)] = 7  # fewer give no 95 % interval of a median
    decode_tokens: PositiveInt = 16


class SuiteCache(Strict):
    """Bytes of the caches of one sequence."""

    lengths: Lengths | None = None


class SuiteSpec(Strict):
    """A suite. split: of the examples of tasks. seed: which examples and documents are drawn."""

    kind: Literal["suite"] = "suite"
    format: Literal[1] = 1
    name: Name
    lengths: Lengths
    examples: PositiveInt = 64
    split: Literal["valid", "test"] = "test"
    seed: Seed = 0
    no_room: Literal["refuse", "skip"] = "refuse"
    tasks: list[SuiteTask] = []
    loss: SuiteLoss | None = None
    shift: SuiteShift | None = None
    speed: SuiteSpeed | None = None
    cache: SuiteCache | None = None

    @model_validator(mode="after")
    def _measures_something(self) -> SuiteSpec:
        if not (self.tasks or self.loss or self.shift or self.speed or self.cache):
            raise ValueError("nothing would be measured; expected at least one of tasks, loss, shift, speed and cache")
        problems: list[tuple[str, str]] = []
        seen: dict[str, int] = {}
        for number, one in enumerate(self.tasks):
            for name in (one.measure, one.measure + NATS):  # a task has rows of both names
                if name in seen:
                    problems.append(
                        (f"tasks.{number}", f"the name {name!r} is taken by tasks.{seen[name]}; give a `name`")
                    )
                    break
            seen = {one.measure: number, one.measure + NATS: number} | seen
            problems += self._too_short(number, one)
        if problems:
            raise located_all(problems)
        return self

    def _too_short(self, number: int, one: SuiteTask) -> list[tuple[str, str]]:
        """Lengths in tokens that are too short for a task in bytes, whatever the model."""
        if self.no_room == "skip" or one.form != "bytes":
            return []
        problems = []
        for place, length in enumerate(one.lengths or self.lengths):
            if times(length) is None:
                try:
                    one.parsed_task.check_length(int(length))
                except UserError as error:
                    at = f"tasks.{number}.lengths.{place}" if one.lengths else f"lengths.{place}"
                    problems.append((at, str(error)))
        return problems

    def of(self, lengths: list[int | str] | None) -> list[int | str]:
        """The lengths of a measure: its own, or the suite's."""
        return self.lengths if lengths is None else lengths

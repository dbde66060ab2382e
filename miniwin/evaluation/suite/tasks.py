"""Tasks in a suite: the share of right answers and their nats, at each length, with the depth of what was asked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from platform import python_version
from typing import Any

import numpy as np

from miniwin.evaluation import intervals
from miniwin.evaluation.suite.part import Part, Planned, part
from miniwin.evaluation.suite.result import SuiteRow
from miniwin.evaluation.suite.rows import plain, row
from miniwin.evaluation.task_scores import TaskScore, score_task
from miniwin.evaluation.tasks import Task, draw
from miniwin.evaluation.tasks.words import WordTask
from miniwin.evaluation.words import ask, score_words
from miniwin.inference import Advance
from miniwin.language_model import LanguageModel
from miniwin.specs import UserError
from miniwin.specs.objectives import NATS
from miniwin.specs.suite import SuiteTask
from miniwin.tokenizer.characters import Characters

DEPTHS = 5  # cells of a heat map at one length


@dataclass(frozen=True)
class Asker:
    """A task as one model is asked it: in bytes, or in words."""

    model: LanguageModel
    task: Task
    in_words: bool
    options: dict[str, Any]  # examples, seed and split

    @classmethod
    def of(cls, model: LanguageModel, spec: SuiteTask, **options: Any) -> Asker:
        """Raises UserError where the model cannot be asked in the form that is wanted."""
        task = spec.parsed_task
        bytewise = model.tokenizer is None or model.tokenizer.name == "byte"
        has_words = isinstance(task, WordTask)
        if spec.form == "words" and not has_words:
            raise UserError(f"task {task.type} has no form in words; write form: bytes")
        in_words = spec.form == "words" or (spec.form == "auto" and has_words and not bytewise)
        if in_words and model.tokenizer is None:
            raise UserError(
                f"{model.ref} has no tokenizer, and task {task.type} is asked in words; write form: bytes, or use a "
                "model with a tokenizer"
            )
        return cls(model, task, in_words, options)

    @property
    def chance(self) -> float:
        return self.task.words_chance if self.in_words and isinstance(self.task, WordTask) else self.task.chance

    @property
    def blind(self) -> float | None:
        """What a part of the task alone gives, if it helps; the tasks know this for their form in bytes."""
        return self.task.blind if not self.in_words and self.task.blind > self.task.chance else None

    @property
    def setting(self) -> dict[str, Any]:
        task = {"task": self.task.model_dump(mode="json"), **self.options}
        if self.task.of_this_python:
            task["python"] = python_version()
        if not self.in_words:
            return {**task, "form": "bytes"}
        assert self.model.tokenizer is not None
        # A length in other tokens is another text.
        return {**task, "form": "words", "tokenizer": self.model.tokenizer.identity}

    def no_room(self, length: int) -> str | None:
        """Why the task cannot be asked at a length; None if it can."""
        try:
            if self.in_words and isinstance(self.task, WordTask):
                ask(self.model, self.task, length, **self.options)
            else:
                self.task.check_length(length)
        except UserError as error:
            return str(error)
        return None

    def check_characters(self) -> None:
        """Raise UserError if the tokenizer lacks a character of the task in bytes."""
        if not self.in_words:
            first = draw(self.task, self.task.shortest, seed=0, index=0, split="valid")
            Characters(self.model.tokenizer, self.task.type).ids(np.frombuffer(first.text, dtype=np.uint8))

    def score(self, length: int, advance: Advance) -> TaskScore:
        if self.in_words and isinstance(self.task, WordTask):
            return score_words(self.model, self.task, length, advance=advance, **self.options)
        return score_task(self.model, self.task, length, advance=advance, **self.options)


def task_parts(planned: Planned) -> Iterator[Part]:
    suite = planned.suite
    for number, one in enumerate(suite.tasks):
        examples = one.examples or suite.examples
        try:
            asker = Asker.of(planned.model, one, examples=examples, seed=suite.seed, split=suite.split)
            asker.check_characters()
        except UserError as error:
            planned.problem(("tasks", number), str(error))
            continue
        fits = False  # from the first length on that fits, longer ones fit too
        for length, at in sorted(planned.lengths(one.lengths, "tasks", number, "lengths")):
            reason = None if fits else asker.no_room(length)
            fits = reason is None
            if reason is None:
                yield _part(planned, one.measure, asker, length, examples)
            else:
                yield from planned.no_room(
                    at, reason, one.measure, length, of="examples", unit="share", chance=asker.chance, better="higher"
                )


def _part(planned: Planned, measure: str, asker: Asker, length: int, examples: int) -> Part:
    def run(advance: Advance) -> list[SuiteRow]:
        score = asker.score(length, advance)
        return task_rows(measure, length, planned.trained, score, asker.setting, asker.chance, asker.blind)

    return part(measure, length, examples * length, run)


def task_rows(
    measure: str,
    length: int,
    trained: int | None,
    score: TaskScore,
    setting: dict[str, Any],
    chance: float,
    blind: float | None,
) -> list[SuiteRow]:
    """The share of right answers, and the nats of an answer."""
    samples: dict[str, list[float | int | None]] = {
        "asked": score.answers.tolist(),
        "right": score.right.tolist(),
        "nats": score.nats.tolist(),
    }
    detail: dict[str, Any] = {}
    if any(depth is not None for depth in score.depths):
        samples["depth"] = list(score.depths)
        detail["depths"] = _by_depth(score)
    share = row(
        measure,
        length,
        trained,
        intervals.share(score.right, score.answers),
        of="examples",
        unit="share",
        chance=chance,
        blind=blind,
        better="higher",
        setting=setting,
        samples=samples,
        detail=detail,
    )
    nats = row(
        measure + NATS,
        length,
        trained,
        intervals.loss(score.nats, score.answers),
        of="examples",
        unit="nats/answer",
        chance=-math.log(chance) if chance > 0 else None,
        better="lower",
        setting=setting,
        samples={name: samples[name] for name in ("asked", "nats")},
    )
    return [share, nats]


def _by_depth(score: TaskScore) -> list[dict[str, Any]]:
    """The share of right answers in each fifth of the context."""
    place = np.array([-1 if depth is None else min(DEPTHS - 1, int(depth * DEPTHS)) for depth in score.depths])
    cells = []
    for cell in range(DEPTHS):
        here = place == cell
        if here.any():
            found = intervals.share(score.right[here], score.answers[here])
            cells.append({"start": cell / DEPTHS, "end": (cell + 1) / DEPTHS, **plain(found)})
    return cells

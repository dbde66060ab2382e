"""Evaluation while a run trains: when it is due, what it finds on the valid split, and which weights were the best.

An evaluation follows the step that reaches a multiple of `every` tokens, and the last step. It depends on the weights
alone, and leaves no trace in the training: random generators and modes are put back, and its time is no time of a step.
A checkpoint follows each one. A process that is killed before that evaluates again, and the line that it may have
written lies past its last checkpoint, where metrics.jsonl is cut.

    {"step": 80, "tokens": 10240, "seconds": 1.2, "eval": {"loss@512": {"value": 1.9, "n": 65536}, ...}}
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from miniwin.data.checking import check_eval_tasks
from miniwin.evaluation.intervals import share
from miniwin.evaluation.streamed_loss import mixed, position_losses, span_of
from miniwin.evaluation.task_scores import score_task
from miniwin.specs import TrainSpec, UserError
from miniwin.specs.data import has_text
from miniwin.specs.objectives import NATS

if TYPE_CHECKING:
    from miniwin.data.corpus import Text
    from miniwin.language_model import LanguageModel
    from miniwin.tokenizer import Tokenizer

SPLIT = "valid"
Values = dict[str, dict[str, float | int | None]]  # by name, such as loss@512: its value, of how many, interval, chance


class Validation:
    """The evaluations of one run. texts: of the valid split, as `Corpus.texts` has them.

    best: the best evaluation so far, as in run.json: `value` of `name` after `step`. None without `keep_best`, and
    before the first evaluation.
    """

    def __init__(self, spec: TrainSpec, texts: Sequence[Text]) -> None:
        assert spec.eval is not None
        self.spec, self.texts = spec.eval, texts
        self.lengths = spec.eval.at(spec.lengths)
        self.wanted = spec.eval.best_of(spec.lengths)
        self.text = has_text(spec.data) and spec.eval.tokens != 0
        self.best: dict[str, Any] | None = None

    def due(self, before: int, now: int) -> bool:
        """Whether the step that took the run from `before` to `now` tokens is followed by an evaluation."""
        return before // self.spec.every < now // self.spec.every

    def measure(self, model: LanguageModel, step: int, tokens: int, tell: Callable[[str], object]) -> dict[str, Any]:
        """The line of metrics.jsonl. tell: is given what is measured next."""
        began = time.monotonic()
        values: Values = {}
        for found in self._text(model, tell) if self.text else ():
            values |= found
        for found in self._tasks(model, tell):
            values |= found
        return {"step": step, "tokens": tokens, "seconds": round(time.monotonic() - began, 3), "eval": values}

    def improved(self, line: dict[str, Any]) -> bool:
        """Whether these weights are the best so far; `best` then says so. Of equal ones the first are kept."""
        if self.wanted is None:
            return False
        lower, name = self.wanted
        value = line["eval"][name]["value"]
        if value is None or not math.isfinite(value):
            return False
        if self.best is not None:
            before = self.best["value"]
            if value >= before if lower else value <= before:
                return False
        self.best = {"name": name, "value": value, "step": line["step"], "tokens": line["tokens"]}
        return True

    def _text(self, model: LanguageModel, tell: Callable[[str], object]) -> Iterator[Values]:
        size = span_of(self.texts, self.lengths[-1], self.spec.tokens or None)
        for length in self.lengths:
            tell(f"bits per byte at {length:,}")
            losses = [position_losses(model, text.ids, length, size, counted=text.counted) for text in self.texts]
            nats = mixed(losses, self.texts).nats_per_byte
            yield {
                f"loss@{length}": {"value": nats, "n": size * len(losses)},
                f"bits_per_byte@{length}": {"value": nats / math.log(2), "n": size * len(losses)},
            }
            for text, loss in zip(self.texts, losses, strict=True) if len(losses) > 1 else ():  # parts of a mixture
                yield {f"bits_per_byte.{text.name}@{length}": {"value": loss.nats_per_byte / math.log(2), "n": size}}

    def _tasks(self, model: LanguageModel, tell: Callable[[str], object]) -> Iterator[Values]:
        for task in self.spec.tasks:
            for length in self.lengths:
                tell(f"{task.type} at {length:,}")
                score = score_task(model, task, length, examples=self.spec.examples, split=SPLIT)
                found = share(score.right, score.answers)
                yield {
                    f"{task.type}@{length}": {
                        "value": found.value,
                        "n": found.n,
                        "low": found.low,
                        "high": found.high,
                        "chance": task.chance,
                    },
                    f"{task.type}{NATS}@{length}": {"value": score.nats_per_answer, "n": found.n},
                }


def shown(line: dict[str, Any], most: int = 4) -> str:
    """An evaluation in a few words for the person who watches: bits_per_byte@512 1.702  last-write@512 0.41."""
    values = {name: row["value"] for name, row in line["eval"].items()}
    names = [name for name in values if not name.startswith("loss@") and NATS not in name]
    more = f"  and {len(names) - most} more" if len(names) > most else ""
    return "  ".join(f"{name} {values[name]:.3f}" for name in names[:most]) + more


def check_validation(spec: TrainSpec, tokenizer: Tokenizer, texts: Sequence[Text]) -> None:
    """Check before the training that it can be evaluated. texts: of the valid split.

    Raises:
        UserError: the tokenizer lacks a character of a task, or the split has too little text for a length.
    """
    if spec.eval is None:
        return
    check_eval_tasks(spec, tokenizer)
    if has_text(spec.data) and spec.eval.tokens != 0:
        try:
            span_of(texts, spec.eval.at(spec.lengths)[-1], spec.eval.tokens)
        except UserError as error:
            raise UserError(f"eval.lengths: {error}") from None

"""What `miniwin zoo add` measures before it adds a model, or is given instead."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miniwin.evaluation.suite.result import SuiteResult

Measures = tuple[dict[str, Any] | None, "SuiteResult | None"]


def measure(source: Path, lengths: str | None, data: str | None, suite: SuiteResult | None) -> Measures:
    """(the metrics on text, the result of a suite). suite: the one that was given, if any.

    A run that was trained on tasks alone has no text of its own. Without `data` it is asked its tasks instead, unless
    a suite was given.
    """
    from miniwin.zoo import ZooError

    if data is None and (tasks := _tasks(source)):
        if suite is None:
            return None, _ask(source, tasks, lengths)
        if lengths is not None:
            raise ZooError("zoo add: --lengths says where to measure, but --suite-result has it; leave out one of them")
        return None, suite
    return evaluate(source, lengths, data), suite


def given_suite(path: Path) -> SuiteResult:
    """The result in a file, or in the folder of a suite."""
    from miniwin.evaluation.suite.stored_results import stored_result
    from miniwin.specs import UserError

    found = stored_result(path)
    if found is None:
        raise UserError(
            f"--suite-result: {path} is no result of a suite; expected the file or the folder that `miniwin eval MODEL "
            "--suite NAME` wrote"
        )
    return found


def evaluate(source: Path, lengths: str | None, data: str | None) -> dict[str, Any]:
    from miniwin.evaluation import evaluate as run

    wanted = _lengths(source, lengths, (1, 4, 16, 32))
    return run(source, data, lengths=wanted, progress=sys.stderr.isatty()).to_dict()


def _ask(source: Path, tasks: list[Any], lengths: str | None) -> SuiteResult:
    """The run's own tasks, on their test split."""
    from miniwin.evaluation.suite.own_tasks import TIMES, ask_own_tasks

    return ask_own_tasks(source, tasks, _lengths(source, lengths, TIMES), progress=sys.stderr.isatty())


def _tasks(source: Path) -> list[Any]:
    from miniwin.zoo.card_values import trained_tasks

    return trained_tasks({"run": _record(source)})


def _lengths(source: Path, written: str | None, times: tuple[int, ...]) -> list[int]:
    """The lengths that were asked for; by default multiples of the training length."""
    from miniwin.commands.token_counts import counts
    from miniwin.specs import UserError
    from miniwin.zoo import ZooError
    from miniwin.zoo.card_values import training_length

    if written is None:
        trained = training_length({"run": _record(source)})
        if trained is None:
            raise ZooError(f"{source}: the run does not say at what length it was trained; say --lengths")
        return [trained * factor for factor in times]
    try:
        return counts("--lengths", written)
    except UserError:
        raise ZooError(
            f"--lengths: expected whole numbers with commas, such as 512,2048,16k, got {written!r}"
        ) from None


def _record(source: Path) -> dict[str, Any]:
    """run.json of a run folder, or of the folder of one's best.safetensors."""
    from miniwin.runs import BEST, read_run

    return read_run(source.parent if source.name == BEST else source)

"""A suite of the tasks that a model was trained on: what a model that knows no text is measured by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from miniwin.evaluation.suite.result import SuiteResult
from miniwin.evaluation.suite.run import run_suite
from miniwin.evaluation.tasks import Task
from miniwin.language_model import LanguageModel
from miniwin.specs import SuiteSpec
from miniwin.specs.suite import SuiteTask

NAME = "own-tasks"
TIMES = (1, 4, 16, 64)  # multiples of the training length to ask at, where no lengths are named


def ask_own_tasks(
    model: LanguageModel | str | Path, tasks: Sequence[Task], lengths: Sequence[int], *, progress: bool = False
) -> SuiteResult:
    """Measure a model by its tasks, and keep nothing on disk.

    Raises:
        UserError: as `run_suite`.
    """
    with TemporaryDirectory() as folder:
        return run_suite(model, own_tasks(tasks, lengths), out=Path(folder), progress=progress)


def own_tasks(tasks: Sequence[Task], lengths: Sequence[int | str], examples: int = 64) -> SuiteSpec:
    """Each task at each length, on its test split. A task at a length without room for it is left out."""
    count = Counter(task.type for task in tasks)
    seen: Counter[str] = Counter()
    asked = []
    for task in tasks:
        seen[task.type] += 1
        name = f"{task.type}-{seen[task.type]}" if count[task.type] > 1 else None
        asked.append(SuiteTask(task=task, name=name))
    return SuiteSpec(name=NAME, lengths=list(lengths), examples=examples, split="test", no_room="skip", tasks=asked)

"""Budgets that grow: a run goes on with more tokens, from a checkpoint that a run with the larger budget also passes.

The order of the data is a function of the step alone, and the learning rate one of the step and of all steps. So two
budgets share their first steps, as long as the learning rates are equal, and a checkpoint of those steps is one of the
larger run's, bit for bit. A cosine shares none. `wsd` shares all until its decay begins, given the same steps of
warm-up: a run that grows keeps the warm-up that it had, in steps. (It is then the run that had the larger budget, and a
warm-up of as many steps, from the start.) The checkpoint from before the decay is kept for that, as before-decay.pt.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniwin import runs
from miniwin.checkpoint import read_step
from miniwin.files.writing import copy_file, said_if_unwritable
from miniwin.specs import TrainSpec, UserError
from miniwin.training.schedule import fixed_by, learning_rate, warmup_steps

WARMUP, BUDGETS = "warmup_steps", "budgets"  # in run.json: "grown": {"warmup_steps": 15, "budgets": [4000000]}


@dataclass(frozen=True)
class Growth:
    """A budget that grows. source: the checkpoint to go on from, at `step`. record: what run.json says of it."""

    source: Path
    step: int
    record: dict[str, Any]

    def apply(self, folder: Path) -> None:
        """Have `source` be the run's checkpoint. The weights of the smaller budget go: they are not the run's any more.

        The checkpoint comes first. A process that is killed before run.json is written leaves a run of the smaller
        budget, which goes on to the same end.
        """
        if self.source.name == runs.BEFORE_DECAY:
            best, kept = folder / runs.BEST, folder / runs.BEFORE_DECAY_BEST
            if kept.is_file():
                copy_file(kept, best)
            else:
                _remove(best)
            copy_file(self.source, folder / runs.CHECKPOINT)
        _remove(folder / runs.WEIGHTS)
        runs.remove_adapter(folder)


def growth(folder: Path, before: dict[str, Any], now: TrainSpec) -> Growth | None:
    """How the recorded run goes on with the budget of `now`; None if that is not larger, or no step is done yet.

    Raises:
        UserError: the steps that are done are not those of a run with the larger budget, or it diverged.
    """
    earlier = now.model_copy(update={"tokens": before["train"]["tokens"]})
    if now.tokens <= earlier.tokens:
        return None
    said = f"{folder} holds a run with a budget of {earlier.tokens:,} tokens, which cannot grow to {now.tokens:,}: "
    if before["status"] == "diverged":
        raise UserError(f"{said}it diverged, and would again: {_AFRESH.format(folder=folder)}")
    kept = before.get(runs.GROWN) or {}
    warmup = kept.get(WARMUP, warmup_steps(now.schedule, earlier.steps))
    record = {WARMUP: warmup, BUDGETS: [*kept.get(BUDGETS, []), earlier.tokens]}
    shared = shared_steps(now, earlier.steps, now.steps, warmup)
    found = {name: read_step(folder / name) for name in runs.CHECKPOINTS if (folder / name).is_file()}
    for name, step in found.items():
        if step <= shared:
            return Growth(folder / name, step, record)
    if not found and not (folder / runs.WEIGHTS).is_file():
        return None  # it begins anew
    if not found:
        raise UserError(f"{said}its checkpoint is gone: {_AFRESH.format(folder=folder)}")
    why = fixed_by(now.schedule) or (
        f"its decay has begun, and there is no {runs.BEFORE_DECAY} from before: it was removed, or an older miniwin "
        "wrote the run"
    )
    raise UserError(f"{said}{why}: {_AFRESH.format(folder=folder)}")


_AFRESH = "begin a new run with its weights, --from {folder} --out NEW; or start over with --fresh"


def shared_steps(spec: TrainSpec, few: int, many: int, warmup: int) -> int:
    """How many of the first steps have the same learning rates with two budgets, given in steps; few: the smaller."""
    for step in range(few):
        rates = {learning_rate(spec.schedule, step, steps, spec.optimizer.lr, warmup) for steps in (few, many)}
        if len(rates) > 1:
            return step
    return few


def _remove(path: Path) -> None:
    with said_if_unwritable(path):
        path.unlink(missing_ok=True)

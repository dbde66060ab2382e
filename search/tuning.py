"""The learning rate of a trial (`learning_rate: tuned`): a few are tried on short trainings, and the best is taken.

    of each rate    a training of `share` of the tokens, with a whole schedule and the trial's first seed
    the best        by the first objective that is a loss, on the validation split; of equals the lowest rate

Every candidate and the baseline get the same sweep, so none wins because the one rate of the train spec suits it. A
rate that diverges loses. The tokens of the sweep count as the trial's. What is known is in trial.json at once, so that
after a kill no rate is trained twice. A short training may like another rate than a long one; that holds for all alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from miniwin.machine.devices import find_device
from miniwin.runs import RunResult
from miniwin.search.holding import Claim
from miniwin.search.objectives import chief, eval_tokens, is_loss, value
from miniwin.search.probing import Probe
from miniwin.search.rungs import loss
from miniwin.search.study import Study
from miniwin.search.trial_trainings import TrialTraining
from miniwin.specs.data import tasks_in
from miniwin.specs.objectives import Objective

if TYPE_CHECKING:
    from miniwin.data import Corpus

    # Trains one of the trainings as far as it goes, and calls a function at so many tokens.
    Run = Callable[[TrialTraining, Callable[[int, Any], bool] | None, Sequence[int]], RunResult]


def tune(study: Study, claim: Claim, corpus: Corpus, measured: Sequence[Objective], run: Run) -> bool:
    """Choose the learning rate of a trial, if that is not done yet. False: the trial is over, and its outcome says why.

    measured: the objectives that training changes, of which one judges the rates.
    """
    outcome, objective = claim.outcome, chief(measured)
    sweep = [one for one in outcome.trainings if one.sweeps]
    if outcome.learning_rate is None:
        for training in sweep:
            if training.values or training.reason:
                continue
            if slow := _try(study, claim, corpus, objective, training, run):
                outcome.end("pruned", slow)
                return False
            outcome.add_up(outcome.trainings)
            claim.write()
    rate = outcome.learning_rate or best_rate(sweep, objective)
    if rate is None:
        tried = ", ".join(f"{one.learning_rate:g}" for one in sweep)
        outcome.end("pruned", f"diverged at each learning rate of the sweep ({tried})")
        return False
    outcome.take_rate(rate, rate in (sweep[0].learning_rate, sweep[-1].learning_rate))
    claim.write()
    return True


def best_rate(sweep: Sequence[TrialTraining], objective: Objective) -> float | None:
    """The rate with the best value, the lowest of several; None if all have diverged. sweep: the lowest rate first."""
    sign = -1.0 if objective.direction == "maximize" else 1.0
    costs = [sign * one.values.get(objective.name, math.nan) for one in sweep]
    found = [place for place, cost in enumerate(costs) if math.isfinite(cost)]
    return sweep[min(found, key=lambda place: costs[place])].learning_rate if found else None


def _try(
    study: Study, claim: Claim, corpus: Corpus, objective: Objective, training: TrialTraining, run: Run
) -> str | None:
    """Train at one rate, and measure. Why the trial would take too long, if it would: nothing is measured then."""
    from miniwin.loading import load

    folder, train = claim.folder / training.folder, claim.candidate.train
    limit = None if claim.number is None else study.spec.budget.seconds_per_trial
    probe, short = Probe(folder, train, limit), training.spec(study.spec, train)
    at = probe.tokens if probe.tokens and probe.tokens[-1] <= short.steps * short.tokens_per_step else []
    slow: list[str] = []

    def goes_on(tokens: int, model: Any) -> bool:
        slow.extend(filter(None, [probe.too_slow(tokens)]))
        return not slow

    result = run(training, goes_on if at else None, at)
    if result.status == "pruned":
        return slow[0] if slow else "too slow by the speed of its first steps"
    if result.status == "diverged":
        training.reason = f"diverged: {result.reason}"
        return None
    began, longest = time.monotonic(), study.space.train.longest
    model, losses = load(folder, device=find_device(None)), {}
    if is_loss(objective):
        length = objective.length(longest)
        losses[length] = loss(model, corpus, length, eval_tokens(study.spec, study.space.train))
    tasks = tasks_in(study.space.train.data)
    training.values = {objective.name: value(objective, longest, claim.candidate.model, model, losses, tasks)}
    training.seconds += time.monotonic() - began
    return None

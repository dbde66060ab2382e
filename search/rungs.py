"""What happens when a trial reaches a rung: it is measured, the values are written down, and the pruner is asked.

    the outcome             rungs: [{"tokens": ..., "values": {...}}, ...], of what is measured
    Optuna's trial          rung:0, rung:1, ...: the values of all objectives, also of those known before training

The rate of learning follows the schedule of the whole budget. So a value at a rung is that of an unfinished schedule:
lower losses are still to come, of all trials alike. In return a trial that goes on, at once or later and elsewhere, has
the same weights as one that was never stopped. A rung that has been measured is not measured again.

With several seeds, the mean over them is judged. Each seed that gets there before the others waits for them. The last
one asks the pruner, and goes on, or all wait.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from miniwin.search.brackets import bracket_of
from miniwin.search.halving import goes_on
from miniwin.search.history import ASKED, FIRST, PROMOTED, RUNG, history
from miniwin.search.objectives import at_rungs, is_loss, loss_lengths, value
from miniwin.search.probing import Probe
from miniwin.search.samplers import pruner_step
from miniwin.search.trial_trainings import MAIN, TrialTraining, means
from miniwin.specs.data import tasks_in

if TYPE_CHECKING:
    from miniwin.data import Corpus
    from miniwin.language_model import LanguageModel
    from miniwin.search.holding import Claim
    from miniwin.search.study import Study
    from miniwin.specs.objectives import Objective


class AtRungs:
    """Called by `training`, one of `trainings`, at each of `asked`. Answers whether to go on; `pause` if later, maybe.

    tokens: the rungs. paused: the trial has to wait. waits: this training, until other seeds of the trial get there.
    """

    def __init__(self, study: Study, claim: Claim, corpus: Corpus) -> None:
        self.study, self.claim, self.corpus = study, claim, corpus
        self.trained = study.space.train.longest
        objectives = at_rungs(study.spec.parsed_objectives, claim.candidate.train.longest)
        self.measured = [objective for objective in objectives if corpus.has_text or not is_loss(objective)]
        self.tokens = study.rungs if self.measured else []
        limit = None if claim.number is None else study.spec.budget.seconds_per_trial
        self.probe = Probe(claim.run_folder, claim.candidate.train, limit)
        self.paused = self.waits = False
        self.too_slow: str | None = None
        outcome = claim.outcome
        alone = TrialTraining(
            MAIN, outcome.seed, tokens=outcome.tokens - outcome.repeated_tokens, rungs=list(outcome.rungs)
        )
        self.trainings = [one for one in outcome.trainings if not one.sweeps] or [alone]
        self.training = self.trainings[0]

    @property
    def asked(self) -> list[int]:
        """The tokens at which `training` calls."""
        return sorted({*self.tokens, *(self.probe.tokens if self.training is self.trainings[0] else ())})

    def next(self) -> TrialTraining | None:
        """The training that goes on now: of those that are not over the one that has least; None if all are over."""
        left = [one for one in self.trainings if not one.values]
        if not left:
            return None
        self.training, self.waits = min(left, key=lambda one: len(one.rungs)), False
        return self.training

    def __call__(self, tokens: int, model: LanguageModel) -> bool | Literal["pause"]:
        outcome, training = self.claim.outcome, self.training
        if training is self.trainings[0] and tokens in self.probe.tokens:
            self.too_slow = self.probe.too_slow(tokens)
            if self.too_slow or tokens not in self.tokens:
                return not self.too_slow
        if training.at(tokens) is None:
            training.rungs.append({"tokens": tokens, "values": self._measure(model)})
        training.tokens = tokens
        rows = [row for one in self.trainings if (row := one.at(tokens)) is not None]
        there = len(rows) == len(self.trainings)
        if there and all(rung["tokens"] != tokens for rung in outcome.rungs):
            outcome.rungs = [*outcome.rungs, {"tokens": tokens, "values": means(rows)}]
        outcome.tokens = sum(one.tokens for one in outcome.trainings or self.trainings) + outcome.repeated_tokens
        self.claim.write()
        if self.claim.trial is None:
            return True
        if any(one.is_beyond(tokens) for one in self.trainings if one is not training):
            self.tell()
            return True  # another seed has gone on from here
        if not there:
            self.waits = self.study.spec.pruner is not None
            return "pause" if self.waits else True
        # One trial after the other: each sees those before it.
        return self.study.locked(lambda: self._judge(tokens, means(rows)))

    def _judge(self, tokens: int, found: dict[str, float]) -> bool | Literal["pause"]:
        """Whether the trial goes on from a rung at which it has these values."""
        spec, trial = self.study.spec, self.claim.trial
        assert trial is not None
        rung, rule = self.tokens.index(tokens), self.study.rule
        again = f"{ASKED if rule is None else RUNG}{rung}" in trial.user_attrs
        if spec.pruner is not None and len(spec.objectives) == 1 and not again:  # Optuna takes no more
            trial.report(found[spec.parsed_objectives[0].name], pruner_step(spec, rung))
        self.tell()
        if rule is None:
            return spec.pruner is None or self._asked_once(rung)
        if why_worthless(found):
            return False
        if rung > trial.user_attrs.get(PROMOTED, -1):
            directions = [objective.direction for objective in spec.parsed_objectives]
            if not goes_on(history(self.study), trial.number, directions, rule):
                self.paused = True
                return "pause"
            trial.set_user_attr(PROMOTED, rung)
        return True

    def _asked_once(self, rung: int) -> bool:
        """What Optuna's pruner says at a rung, the first time that it is asked: after a kill others have got further,
        and it might say something else."""
        trial = self.claim.trial
        assert trial is not None
        name = f"{ASKED}{rung}"
        if name not in trial.user_attrs:
            trial.set_user_attr(name, not trial.should_prune())
        return bool(trial.user_attrs[name])

    def _measure(self, model: LanguageModel) -> dict[str, float]:
        train = self.claim.candidate.train
        lengths = loss_lengths(self.measured, self.trained)
        size = max(self.study.spec.rung_eval_tokens, *lengths, train.longest)
        losses = {length: loss(model, self.corpus, length, size) for length in lengths}
        return {one.name: self._value(one, model, losses) for one in self.measured}

    def _value(
        self, objective: Objective, model: LanguageModel | None = None, losses: dict[int, float] | None = None
    ) -> float:
        tasks = tasks_in(self.study.space.train.data)
        speeds = self.study.spec.speeds
        return value(objective, self.trained, self.claim.candidate.model, model, losses, tasks, speeds)

    def tell(self) -> None:
        """Write down in Optuna what is measured and not yet there: of this attempt, or of one that was killed."""
        outcome, trial = self.claim.outcome, self.claim.trial
        if trial is None or not outcome.rungs:
            return
        told = trial.user_attrs
        for rung in outcome.rungs:
            name = f"{RUNG}{self.tokens.index(rung['tokens'])}"
            if name not in told:
                trial.set_user_attr(name, self._row(rung["values"]))

    def _row(self, found: dict[str, float]) -> list[float | None]:
        row = []
        for objective in self.study.spec.parsed_objectives:
            known = found.get(objective.name, math.nan) if objective.measured else self._value(objective)
            row.append(known if math.isfinite(known) else None)
        return row

    def give_up(self) -> None:
        """Count the trial as the worst at the first rung that it would be judged at, and will not reach."""
        if self.claim.trial is not None and self.study.rule is not None:
            self.tell()
            last = self.claim.outcome.rungs[-1]["tokens"] if self.claim.outcome.rungs else 0
            first = bracket_of(self.claim.trial.user_attrs.get(FIRST, self.claim.trial.number), self.study.rule)
            if missed := [rung for rung, tokens in enumerate(self.tokens) if tokens > last and rung >= first]:
                self.claim.trial.set_user_attr(f"{RUNG}{missed[0]}", [None] * len(self.study.spec.objectives))


def why_worthless(values: dict[str, float]) -> str | None:
    """Why nothing can come of a trial with these values any more; None if something can."""
    broken = next((name for name, number in values.items() if not math.isfinite(number)), None)
    return None if broken is None else f"diverged: {broken} is {values[broken]}"


def loss(model: LanguageModel, corpus: Corpus, length: int, tokens: int) -> float:
    """Nats per byte at a context of `length`, over the first `tokens` of the validation split (each text's)."""
    from miniwin.evaluation import loss_at

    return loss_at(model, corpus, length, min(tokens, corpus.available))

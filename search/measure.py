"""Train one architecture and measure it, or only measure it: the work of a trial, and of the baseline."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from miniwin.machine.devices import find_device
from miniwin.runs import CHECKPOINT, WEIGHTS, RunResult, read_run
from miniwin.search.holding import Claim, saved
from miniwin.search.objectives import at_rungs as changing_objectives
from miniwin.search.objectives import eval_tokens, is_loss, report_lengths, value
from miniwin.search.outcome import Outcome
from miniwin.search.probing import want_of_memory
from miniwin.search.rungs import AtRungs, loss, why_worthless
from miniwin.search.stored import DATA
from miniwin.search.study import BASELINE, Study
from miniwin.search.trial_trainings import MAIN, TrialTraining, has_several, means, planned, spreads
from miniwin.search.tuning import tune
from miniwin.specs import SearchSpec, TrainSpec, UserError
from miniwin.specs.data import tasks_in
from miniwin.tracking import OFF, Tracker
from miniwin.training.signals import requests

if TYPE_CHECKING:
    from miniwin.data import Corpus
    from miniwin.language_model import LanguageModel
    from miniwin.training.loop import OnEval


class Interrupted(Exception):
    """The trial was asked to stop; its checkpoint is written."""


@dataclass(frozen=True)
class Tracking:
    """Where MLflow is, and the MLflow run whose children the trials are."""

    uri: str
    parent: str | None
    experiment: str


def check_corpus(spec: SearchSpec, train: TrainSpec, corpus: Corpus) -> None:
    """UserError if there is no text for the objectives, or too little for the lengths to be measured."""
    if not corpus.has_text:
        if wanted := [objective.name for objective in spec.parsed_objectives if is_loss(objective)]:
            raise UserError(
                f"objectives: {wanted[0]} needs text, and source {corpus.info['source']}, which the trials are trained "
                "on, has none: take a task as the objective, such as 'maximize recall@512', or train on text"
            )
        changing = changing_objectives(spec.parsed_objectives, train.longest)
        if spec.learning_rate is not None and all(map(is_loss, changing)):
            raise UserError(
                "learning_rate: a rate is judged by an objective that training changes, and there is none: take a task "
                "as an objective, such as 'maximize recall@512', train on text, or leave learning_rate out"
            )
        if spec.report_lengths:
            raise UserError(
                f"report_lengths: got {spec.report_lengths}, lengths to measure the loss of text at, and source "
                f"{corpus.info['source']} has no text: leave report_lengths out"
            )
        return
    needed, available = eval_tokens(spec, train), corpus.available
    if needed > available:
        longest = max(report_lengths(spec, train))
        raise UserError(
            f"the validation split has {available} tokens to predict, and {needed} are needed "
            f"(eval_tokens {spec.eval_tokens}, longest length {longest}): lower eval_tokens or report_lengths, or use "
            "more validation data"
        )


def check_same_data(study: Study, corpus: Corpus) -> None:
    """UserError if trials of the study were trained on other text: their values could not be compared."""
    kept = study.stored or study.space.untrained  # without training there are no runs, which would say it
    before = _stored_data(study, corpus) if kept else _data_of_runs(study)
    if before not in (None, corpus.fingerprint):
        raise UserError(
            f"{study.folder}: its trials were trained on other data than what is there now (fingerprint "
            f"{str(before)[:12]} then, {corpus.fingerprint[:12]} now), so new trials could not be compared with them: "
            "put the data back, or start another study with --out"
        )


def _stored_data(study: Study, corpus: Corpus) -> str | None:
    """The fingerprint of the data of the study, which is that of the first who asks."""

    def known() -> str:
        if DATA not in study.optuna.user_attrs:
            study.optuna.set_user_attr(DATA, corpus.fingerprint)
        return str(study.optuna.user_attrs[DATA])

    return study.locked(known)


def _data_of_runs(study: Study) -> str | None:
    for path in (study.folder / BASELINE, *sorted((study.folder / "trials").glob("*"))):
        try:
            return str(read_run(path / "run")["data"]["fingerprint"])
        except (UserError, KeyError, TypeError):
            continue  # not begun; or damaged, which is said elsewhere
    return None


def run_claim(study: Study, claim: Claim, corpus: Corpus, tracking: Tracking) -> None:
    """Train and measure a claim. Its outcome is ended, or paused, when this returns, but not written yet."""
    if study.space.untrained:
        return measure_untrained(study, claim, corpus, tracking)
    if has_several(study.spec):
        claim.outcome.trainings = planned(study.spec, claim.candidate.train, claim.outcome.trainings)
    at_rungs = AtRungs(study, claim, corpus)
    try:
        _train_and_measure(study, claim, corpus, tracking, at_rungs)
    except Exception as error:
        reason = None if claim.number is None else want_of_memory(error)
        if reason is None:
            raise
        at_rungs.give_up()
        claim.outcome.end("pruned", reason)  # not failed: it would be tried again, and too many failures end a search


def measure_untrained(study: Study, claim: Claim, corpus: Corpus, tracking: Tracking) -> None:
    """Measure a claim with the first weights as they are."""
    outcome, candidate = claim.outcome, claim.candidate
    training = TrialTraining(MAIN, outcome.seed)
    try:
        _measure(study, claim, training, corpus)
    except Exception as error:
        reason = None if claim.number is None else want_of_memory(error)
        if reason is None:
            raise
        return outcome.end("pruned", reason)
    outcome.losses, outcome.values, outcome.seconds = training.losses, training.values, training.seconds
    if worthless := why_worthless(training.values):
        outcome.values = {name: number for name, number in outcome.values.items() if math.isfinite(number)}
        return outcome.end("pruned", worthless.replace("diverged: ", ""))
    outcome.end("complete")
    if tracking.uri != OFF:
        tracker = Tracker.open(
            tracking.uri,
            experiment=tracking.experiment,
            run_name="baseline" if claim.number is None else f"trial-{claim.number}",
            parent_run=tracking.parent,
            tags={"spec_hash": candidate.model.hash, "data": corpus.fingerprint},
        )
        tracker.log_params({"model": candidate.specs["model"]})
        tracker.close()
        _track(tracking, tracker.run_id, training.losses, training.values, 0)


def _train_and_measure(study: Study, claim: Claim, corpus: Corpus, tracking: Tracking, at_rungs: AtRungs) -> None:
    outcome, trainings, asked = claim.outcome, at_rungs.trainings, requests()
    everything = outcome.trainings or trainings

    def run(training: TrialTraining, on_eval: OnEval | None, eval_at: Sequence[int]) -> RunResult:
        if requests() != asked:  # it came when the training before was ending anyway
            raise Interrupted("asked to stop")
        folder = claim.folder / training.folder
        if training.tokens and not (folder / CHECKPOINT).is_file() and not (folder / WEIGHTS).is_file():
            outcome.count_repeated(training, folder)
            claim.write()
        result = _train(study, claim, training, tracking, on_eval, eval_at)
        if result.status == "interrupted" and not (at_rungs.paused or at_rungs.waits):
            raise Interrupted(result.reason)
        training.tokens, training.seconds = result.tokens, result.seconds
        outcome.add_up(everything)
        return result

    at_rungs.tell()
    if study.spec.learning_rate is not None and not tune(study, claim, corpus, at_rungs.measured, run):
        return at_rungs.give_up()
    while (training := at_rungs.next()) is not None:
        result = run(training, at_rungs if at_rungs.asked else None, at_rungs.asked)
        if at_rungs.waits:
            continue
        if _has_stopped(study, outcome, result, at_rungs):
            return
        _measure(study, claim, training, corpus)
        outcome.add_up(everything)
        if outcome.trainings:
            claim.write()
        _track(tracking, result.tracking_run, training.losses, training.values, result.steps)
        if why_worthless(training.values):
            break
    outcome.losses, outcome.values = (means([getattr(one, of) for one in trainings]) for of in ("losses", "values"))
    worthless = [why + _whose(one, outcome) for one in trainings if (why := why_worthless(one.values))]
    if worthless:
        outcome.values = {name: number for name, number in outcome.values.items() if math.isfinite(number)}
        outcome.end("pruned", worthless[0])
    else:
        outcome.spread = spreads([one.values for one in trainings])
        outcome.end("complete")


def _train(
    study: Study,
    claim: Claim,
    training: TrialTraining,
    tracking: Tracking,
    on_eval: OnEval | None,
    eval_at: Sequence[int],
) -> RunResult:
    from miniwin.training.launch import train

    weights, model = study.weights, claim.candidate.model
    name = "baseline" if claim.number is None else f"trial-{claim.number}"
    return train(
        model,
        training.spec(study.spec, claim.candidate.train),
        from_=None if weights is None else weights.start(model),
        out=claim.folder / training.folder,
        progress=False,
        tracking=tracking.uri,
        parent_run=tracking.parent,
        experiment=tracking.experiment,
        run_name=name if training.folder == MAIN else f"{name}-{training.folder.replace('/', '-')}",
        base=study.train_base,
        on_eval=on_eval,
        on_checkpoint=partial(saved, study, claim),
        eval_at=eval_at,
    )


def _has_stopped(study: Study, outcome: Outcome, result: RunResult, at_rungs: AtRungs) -> bool:
    """Whether the trial has come to an end before its budget was spent, with this training, or has to wait."""
    if result.status == "diverged":
        at_rungs.give_up()
        outcome.end("pruned", f"diverged: {result.reason}{_whose(at_rungs.training, outcome)}")
        return True
    if at_rungs.too_slow:
        at_rungs.give_up()
        outcome.end("pruned", at_rungs.too_slow)
        return True
    if result.status == "pruned" or at_rungs.paused:
        last: dict[str, Any] = outcome.rungs[-1] if outcome.rungs else {"tokens": result.tokens, "values": {}}
        behind = f"behind the others at {last['tokens']:,} tokens"
        if at_rungs.paused:
            outcome.pause(behind)
        else:
            outcome.end("pruned", (study.rule and why_worthless(last["values"])) or behind)
        return True
    return False


def _whose(training: TrialTraining, outcome: Outcome) -> str:
    return f" (seed {training.seed})" if outcome.trainings else ""


def model_of(study: Study, claim: Claim, run: str = MAIN) -> LanguageModel:
    """What the training in a folder of the claim has come to; without training, the first weights as they are."""
    from miniwin.loading import load

    device = find_device(None)
    if study.space.untrained:
        assert study.weights is not None
        return study.weights.model(claim.candidate.model, claim.candidate.train, device)
    return load(claim.folder / run, device=device)


def _measure(study: Study, claim: Claim, training: TrialTraining, corpus: Corpus) -> None:
    """Measure what has been trained to the end."""
    spec, train = study.spec, study.space.train
    began = time.monotonic()
    model = model_of(study, claim, training.folder)
    tokens = eval_tokens(spec, train)
    for length in report_lengths(spec, train) if corpus.has_text else ():
        training.losses[length] = loss(model, corpus, length, tokens)
    tasks = tasks_in(train.data)
    for objective in spec.parsed_objectives:
        training.values[objective.name] = value(
            objective, train.longest, claim.candidate.model, model, training.losses, tasks, spec.speeds
        )
    training.seconds += time.monotonic() - began


def _track(tracking: Tracking, run: str | None, losses: dict[int, float], values: dict[str, float], step: int) -> None:
    """Log the trial's results to its MLflow run, which training has closed."""
    if run is None:
        return
    tracker = Tracker.open(tracking.uri, experiment=tracking.experiment, resume=run)
    # MLflow's names have no @.
    found = {f"loss_at_{length}": loss for length, loss in losses.items()}
    found |= {name.replace("@", "_at_"): number for name, number in values.items()}
    tracker.log_metrics(found, step + 1)
    tracker.set_status("complete")
    tracker.close()

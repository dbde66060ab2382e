"""Train one architecture and measure it: the work of a trial, and of the baseline."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from miniwin.machine.devices import find_device
from miniwin.runs import read_run
from miniwin.search.holding import Claim
from miniwin.search.objectives import eval_tokens, is_loss, report_lengths, value
from miniwin.search.probing import want_of_memory
from miniwin.search.rungs import AtRungs, loss, why_worthless
from miniwin.search.study import BASELINE, Study
from miniwin.specs import SearchSpec, TrainSpec, UserError
from miniwin.specs.data import tasks_in

if TYPE_CHECKING:
    from miniwin.data import Corpus


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
    for path in (study.folder / BASELINE, *sorted((study.folder / "trials").glob("*"))):
        try:
            before = read_run(path / "run")["data"]["fingerprint"]
        except (UserError, KeyError, TypeError):
            continue  # not begun; or damaged, which is said elsewhere
        if before != corpus.fingerprint:
            raise UserError(
                f"{study.folder}: its trials were trained on other data than what is there now (fingerprint "
                f"{before[:12]} then, {corpus.fingerprint[:12]} now), so new trials could not be compared with them: "
                "put the data back, or start another study with --out"
            )
        return


def run_claim(study: Study, claim: Claim, corpus: Corpus, tracking: Tracking) -> None:
    """Train and measure a claim. Its outcome is ended, or paused, when this returns, but not written yet."""
    at_rungs = AtRungs(study, claim, corpus)
    try:
        _train_and_measure(study, claim, corpus, tracking, at_rungs)
    except Exception as error:
        reason = None if claim.number is None else want_of_memory(error)
        if reason is None:
            raise
        at_rungs.give_up()
        claim.outcome.end("pruned", reason)  # not failed: it would be tried again, and too many failures end a search


def _train_and_measure(study: Study, claim: Claim, corpus: Corpus, tracking: Tracking, at_rungs: AtRungs) -> None:
    from miniwin.loading import load
    from miniwin.training.launch import train

    spec, outcome = study.spec, claim.outcome
    at_rungs.tell()
    result = train(
        claim.candidate.model,
        claim.candidate.train,
        out=claim.run_folder,
        progress=False,
        tracking=tracking.uri,
        parent_run=tracking.parent,
        experiment=tracking.experiment,
        run_name="baseline" if claim.number is None else f"trial-{claim.number}",
        base=study.train_base,
        on_eval=at_rungs if at_rungs.asked else None,
        eval_at=at_rungs.asked,
    )
    if result.status == "interrupted" and not at_rungs.paused:
        raise Interrupted(result.reason)
    outcome.tokens, outcome.seconds = result.tokens, result.seconds
    if result.status == "diverged":
        at_rungs.give_up()
        outcome.end("pruned", f"diverged: {result.reason}")
        return
    if at_rungs.too_slow:
        at_rungs.give_up()
        outcome.end("pruned", at_rungs.too_slow)
        return
    if result.status == "pruned" or at_rungs.paused:
        last: dict[str, Any] = outcome.rungs[-1] if outcome.rungs else {"tokens": result.tokens, "values": {}}
        behind = f"behind the others at {last['tokens']:,} tokens"
        if at_rungs.paused:
            outcome.pause(behind)
        else:
            outcome.end("pruned", (study.rule and why_worthless(last["values"])) or behind)
        return
    began = time.monotonic()
    model = load(claim.run_folder, device=find_device(None))
    tokens = eval_tokens(spec, study.space.train)
    for length in report_lengths(spec, study.space.train) if corpus.has_text else ():
        outcome.losses[length] = loss(model, corpus, length, tokens)
    for objective in spec.parsed_objectives:
        outcome.values[objective.name] = value(
            objective,
            study.space.train.longest,
            claim.candidate.model,
            model,
            outcome.losses,
            tasks_in(study.space.train.data),
        )
    outcome.seconds += time.monotonic() - began
    if worthless := why_worthless(outcome.values):
        outcome.values = {name: number for name, number in outcome.values.items() if math.isfinite(number)}
        outcome.end("pruned", worthless)
    else:
        outcome.end("complete")
    _track(tracking, result.tracking_run, outcome.losses, outcome.values, result.steps)


def _track(tracking: Tracking, run: str | None, losses: dict[int, float], values: dict[str, float], step: int) -> None:
    """Log the trial's results to its MLflow run, which training has closed."""
    if run is None:
        return
    from miniwin.tracking import Tracker

    tracker = Tracker.open(tracking.uri, experiment=tracking.experiment, resume=run)
    # MLflow's names have no @.
    found = {f"loss_at_{length}": loss for length, loss in losses.items()}
    found |= {name.replace("@", "_at_"): number for name, number in values.items()}
    tracker.log_metrics(found, step + 1)
    tracker.set_status("complete")
    tracker.close()

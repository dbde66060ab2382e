"""One training anew: a variant with a new seed, trained to the end and measured on the test split."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING

from miniwin.files.writing import said_if_unwritable
from miniwin.search.confirm.scores import measure, write_scores
from miniwin.search.holding import Claim, saved
from miniwin.search.measure import Interrupted, Tracking, model_of
from miniwin.search.study import Study

if TYPE_CHECKING:
    from miniwin.data import Corpus


def run_training(study: Study, claim: Claim, corpus: Corpus, tracking: Tracking) -> None:
    """Train and measure. The outcome is ended when this returns, but not written yet; the scores are."""
    outcome, candidate = claim.outcome, claim.candidate
    assert claim.training is not None
    if not study.space.untrained and not _trained(study, claim, tracking):
        return
    began = time.monotonic()
    model = model_of(study, claim)
    scores, outcome.losses, outcome.values = measure(study, claim.training.asked, candidate.model, model, corpus)
    outcome.seconds += time.monotonic() - began
    numbers = {**{f"loss at {length}": loss for length, loss in outcome.losses.items()}, **outcome.values}
    if broken := next((name for name, number in numbers.items() if not math.isfinite(number)), None):
        outcome.end("pruned", f"diverged: {broken} is {numbers[broken]}")
        return
    with said_if_unwritable(claim.folder):
        claim.folder.mkdir(parents=True, exist_ok=True)
    write_scores(claim.folder, scores)
    outcome.end("complete")


def _trained(study: Study, claim: Claim, tracking: Tracking) -> bool:
    """Train to the end. False: that cannot be, and the outcome is ended."""
    from miniwin.training.launch import train

    outcome, candidate, weights = claim.outcome, claim.candidate, study.weights
    result = train(
        candidate.model,
        candidate.train,
        from_=None if weights is None else weights.start(candidate.model),
        out=claim.run_folder,
        progress=False,
        tracking=tracking.uri,
        parent_run=tracking.parent,
        experiment=tracking.experiment,
        run_name=claim.label.replace(" ", "-"),
        base=study.train_base,
        on_checkpoint=partial(saved, study, claim),
    )
    if result.status == "interrupted":
        raise Interrupted(result.reason)
    outcome.tokens, outcome.seconds = result.tokens, result.seconds
    if result.status != "complete":
        outcome.end("pruned", f"{result.status}: {result.reason}")
    return result.status == "complete"

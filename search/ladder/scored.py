"""From trainings to the numbers of the fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from miniwin.search.confirm.scores import Scores, draws_of, read_scores
from miniwin.search.ladder.fit import Scored
from miniwin.search.ladder.plan import Plan
from miniwin.search.trainings import Training
from miniwin.specs import UserError

Trainings = Sequence[Sequence[Sequence[Training]]]  # of each size, of each member, by seed


def scored_of(plan: Plan, trainings: Trainings, text: bool = True) -> Scored:
    """The losses of the first sizes of a plan, whose trainings are complete. text: also of single documents.

    Raises:
        UserError: the scores of a training are gone, or are of another text.
    """
    compute = np.array([[size.models[v].flops for size in plan.sizes] for v in range(len(plan.members))])
    found = [[[_scores(one) for one in of] for of in size] for size in trainings]
    first = found[0][0][0]
    for size, sized in zip(trainings, found, strict=True):
        for training, one in zip((t for of in size for t in of), (s for of in sized for s in of), strict=True):
            if (one.fingerprint, one.documents) != (first.fingerprint, first.documents):
                raise UserError(f"{training.folder} was measured on another text than {trainings[0][0][0].folder}")
    length, total = str(plan.length), sum(first.bytes)
    runs = [np.array([[sum(one.nats[length]) / total for one in of] for of in size]) for size in found]
    nats, units = None, None
    if text:
        units, _, grouped = draws_of(first)
        nats = [np.array([[grouped(one.nats[length]) for one in of] for of in size]) for size in found]
    return Scored(compute[:, : len(trainings)], runs, nats, units)


def compute_of(plan: Plan, size: int) -> NDArray[np.float64]:
    """(V,): FLOPs of a training of each member."""
    return np.array([model.flops for model in plan.sizes[size].models])


def _scores(training: Training) -> Scores:
    scores = read_scores(training.folder)
    if scores is None:
        raise UserError(
            f"{training.folder} has no scores that can be read, though its training is complete; restore them, or "
            "delete that folder, and miniwin search ladder trains it again"
        )
    return scores

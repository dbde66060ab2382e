"""What the smaller sizes of a ladder say of the largest (prediction.py), from the losses of their trainings."""

from __future__ import annotations

from datetime import UTC, datetime

from miniwin.evaluation.intervals import Interval
from miniwin.search.ladder.fit import FLOORS, predict, slope
from miniwin.search.ladder.plan import Plan, hash_of
from miniwin.search.ladder.prediction import Predicted, Prediction, Source, Told
from miniwin.search.ladder.scored import Trainings, compute_of, scored_of


def make_prediction(plan: Plan, trainings: Trainings) -> Prediction:
    """Of the largest size. trainings: of the sizes below it, all of them complete."""
    scored = scored_of(plan, trainings, text=False)
    labels = [member.label for member in plan.members]
    at, seeds = compute_of(plan, len(plan.sizes) - 1), len(plan.sizes[-1].seeds)
    predicted = []
    for v, label in enumerate(labels):
        weights = [float(v == w) for w in range(len(labels))]
        predicted.append(_predicted(label, None, predict(scored, at, weights, seeds)))
    for v, label in enumerate(labels[:-1]):
        weights = [float(v == w) - float(w == len(labels) - 1) for w in range(len(labels))]
        predicted.append(_predicted(label, labels[-1], predict(scored, at, weights, seeds)))
    sources = [
        Source(size=size.target, member=member.label, seed=seed, hash=one.candidate.hash, loss=float(loss))
        for size, of_size, runs in zip(plan.sizes, trainings, scored.runs, strict=False)
        for member, of, losses in zip(plan.members, of_size, runs, strict=True)
        for seed, one, loss in zip(size.seeds, of, losses, strict=True)
    ]
    made = Prediction(
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        plan=plan.hash,
        length=plan.length,
        size=plan.sizes[-1].target,
        seeds=seeds,
        floors=list(FLOORS),
        slope=Told.of(slope(scored)),
        sources=sources,
        predicted=predicted,
    )
    return made.model_copy(update={"hash": hash_of(made, "hash")})


def _predicted(first: str, other: str | None, found: Interval) -> Predicted:
    return Predicted(first=first, other=other, **Told.of(found).model_dump())

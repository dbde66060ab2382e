"""From the scores of all trainings to differences with intervals, and to confirm.json.

Each confirmed trial is held against the baseline, and the winner against the runner-up: the best and the second best of
the search. The test split chooses nothing, or it would be one more split that something was chosen by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from miniwin.evaluation import crossed, intervals
from miniwin.evaluation.intervals import Interval
from miniwin.search.confirm.plan import Confirmation
from miniwin.search.confirm.result import Comparison, Measured, Result, Run, VariantResult, keep_result
from miniwin.search.confirm.scores import Scores, draws_of, read_scores
from miniwin.search.objectives import chief, is_loss, report_lengths, value
from miniwin.search.study import Study
from miniwin.search.trainings import Training, Variant
from miniwin.specs.objectives import Objective
from miniwin.specs.speeds import Speeds

Trained = list[tuple[Training, Scores | None]]  # of one variant, by seed
Array = NDArray[np.float64]
Difference = tuple[Interval, int, str]  # and how many draws of what it rests on
Way = Callable[[Objective, int, Sequence[Scores], Sequence[Scores]], Difference]
Ways = dict[str, Way]  # by how an objective is measured


def conclude(study: Study, confirmation: Confirmation) -> Result:
    """Write confirm.json of a confirmation whose trainings are over. The caller holds the lock of the study."""
    variants: list[tuple[Variant, Trained]] = []
    for training in confirmation.trainings:
        trained = next((found for variant, found in variants if variant.number == training.variant.number), None)
        if trained is None:
            variants.append((training.variant, trained := []))
        complete = training.outcome is not None and training.outcome.state == "complete"
        trained.append((training, read_scores(training.folder) if complete else None))
    scores = [one for _, trained in variants for _, one in trained if one is not None]
    text = next(iter(scores), None)
    lengths = report_lengths(study.spec, study.space.train)
    result = Result(
        study=study.spec.name,
        study_id=study.about["id"],
        trained=confirmation.trained,
        chosen_by=chief(study.spec.parsed_objectives).name,
        top=confirmation.asked.top,
        split=confirmation.asked.split,
        seeds=list(dict.fromkeys(training.candidate.train.seed for training in confirmation.trainings)),
        tokens=0 if text is None else len(text.bytes) * max(lengths),
        fingerprint=None if text is None else text.fingerprint,
        untrained=study.space.untrained,
        variants=[_variant(variant, trained) for variant, trained in variants],
        comparisons=list(_comparisons(study, variants)),
    )
    keep_result(study, result)
    return result


def _variant(variant: Variant, trained: Trained) -> VariantResult:
    runs = [_run(training) for training, _ in trained]
    return VariantResult(
        label=variant.label,
        trial=variant.number,
        layout=variant.candidate.model.layout,
        params=variant.params,
        runs=runs,
        losses=_means([run.losses for run in runs]),
        values=_means([run.values for run in runs]),
    )


def _run(training: Training) -> Run:
    outcome = training.outcome
    assert outcome is not None
    return Run(
        seed=training.candidate.train.seed,
        hash=training.candidate.hash,
        state=outcome.state,
        reason=outcome.reason,
        tokens=outcome.tokens,
        seconds=outcome.seconds,
        losses={str(length): _known(loss) for length, loss in outcome.losses.items()},
        values={name: _known(number) for name, number in outcome.values.items()},
    )


def _means(found: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    """Over the seeds. A name that one of them does not know has none: the mean of the others would flatter."""
    names = dict.fromkeys(name for one in found for name in one)
    values = {name: [one.get(name) for one in found] for name in names}
    return {
        name: None if any(v is None for v in row) else math.fsum(v for v in row if v is not None) / len(row)
        for name, row in values.items()
    }


def _comparisons(study: Study, variants: Sequence[tuple[Variant, Trained]]) -> Iterator[Comparison]:
    trials = [one for one in variants if one[0].number is not None]
    pairs = [(trial, base) for base in variants if base[0].number is None for trial in trials]
    pairs += [(trials[0], trials[1])] if len(trials) > 1 else []
    for (first, ours), (other, theirs) in pairs:
        yield Comparison(first=first.label, other=other.label, measures=list(_measures(study, ours, theirs)))


def _measures(study: Study, ours: Trained, theirs: Trained) -> Iterator[Measured]:
    """The objectives, then the loss at each length that no objective has."""
    trained, objectives = study.space.train.longest, study.spec.parsed_objectives
    for objective in objectives:
        yield _measured(study, objective, True, trained, ours, theirs)
    known = {objective.length(trained) for objective in objectives if is_loss(objective)}
    for length in report_lengths(study.spec, study.space.train):
        if length not in known and any(scores is not None and scores.nats for _, scores in ours):
            yield _measured(study, Objective("minimize", "loss", length), False, trained, ours, theirs)


def _measured(
    study: Study, objective: Objective, asked: bool, trained: int, ours: Trained, theirs: Trained
) -> Measured:
    ways = OF_ONE if study.space.untrained else DIFFERENCES
    found, draws, of = _difference(objective, trained, ours, theirs, study.spec.speeds, ways)
    return Measured(
        name=objective.name,
        objective=asked,
        direction=objective.direction,
        value=_known(found.value),
        low=_known(found.low),
        high=_known(found.high),
        draws=draws,
        of=of,  # type: ignore[arg-type]
        verdict=_verdict(found, objective.direction == "minimize"),  # type: ignore[arg-type]
    )


def _verdict(found: Interval, lower_is_better: bool) -> str:
    if not math.isfinite(found.value):
        return "not measured"
    if found.low == found.high == 0.0:
        return "the same"
    return intervals.verdict(found, lower_is_better=lower_is_better)


def _difference(
    objective: Objective, trained: int, ours: Trained, theirs: Trained, speeds: Speeds | None, ways: Ways
) -> Difference:
    first, other = [scores for _, scores in ours], [scores for _, scores in theirs]
    if not objective.measured:
        known, same = (value(objective, trained, side[0][0].candidate.model, speeds=speeds) for side in (ours, theirs))
        return Interval(known - same, known - same, known - same, len(ours)), 0, "spec"
    if any(one is None for one in (*first, *other)):
        return Interval(math.nan, -math.inf, math.inf, len(first)), 0, "seeds"
    way = ways.get(objective.row.how, _of_values)
    return way(objective, trained, [one for one in first if one], [one for one in other if one])


def _of_text(way: Callable[[Array, Array, Array], Interval]) -> Way:
    def difference(objective: Objective, trained: int, ours: Sequence[Scores], theirs: Sequence[Scores]) -> Difference:
        length = str(objective.length(trained))
        units, of, draws = draws_of(ours[0])
        first, other = (np.array([draws(one.nats[length]) for one in side]) for side in (ours, theirs))
        found = way(first, other, units)
        return found.through(lambda nats: nats * objective.row.per_nat), len(units), of

    return difference


def _of_one(way: Callable[..., Interval]) -> Callable[[Array, Array, Array], Interval]:
    """An interval over the text alone, of two models that are each measured once: nothing was trained."""

    def interval(first: Array, other: Array, units: Array) -> Interval:
        if (first == other).all():  # one model twice: no other text could tell them apart
            return Interval(0.0, 0.0, 0.0, 1)
        return way(first[0], other[0], units)

    return interval


def _of_examples(way: Callable[[Array, Array, Array], Interval]) -> Way:
    def difference(objective: Objective, _: int, ours: Sequence[Scores], theirs: Sequence[Scores]) -> Difference:
        answers = np.array(ours[0].answers[objective.name].answers)
        first, other = (np.array([one.answers[objective.name].counts for one in side]) for side in (ours, theirs))
        return way(first, other, answers), len(answers), "examples"

    return difference


def _of_values(objective: Objective, _: int, ours: Sequence[Scores], theirs: Sequence[Scores]) -> Difference:
    """Of what is one number for each training, such as a speed."""
    pairs = [one.values[objective.name] - two.values[objective.name] for one, two in zip(ours, theirs, strict=True)]
    return intervals.mean(pairs), 0, "seeds"


DIFFERENCES: Ways = {
    "text": _of_text(crossed.loss_difference),
    "task": _of_examples(crossed.share_difference),
    "task nats": _of_examples(crossed.loss_difference),
}
OF_ONE: Ways = {
    "text": _of_text(_of_one(intervals.loss_difference)),
    "task": _of_examples(_of_one(intervals.share_difference)),
    "task nats": _of_examples(_of_one(intervals.loss_difference)),
}


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None

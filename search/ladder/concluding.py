"""From the trainings of a ladder to ladder.json: lines, speed-ups, and the prediction held against what came."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from miniwin.evaluation import intervals
from miniwin.evaluation.intervals import Interval
from miniwin.search.confirm.scores import draws_of, read_scores
from miniwin.search.ladder import fit
from miniwin.search.ladder.fit import Scored, Spread
from miniwin.search.ladder.plan import Plan, Sized
from miniwin.search.ladder.prediction import Prediction, Told
from miniwin.search.ladder.result import Compared, Held, LadderResult, Ran, Reached, Step, write_ladder_result
from miniwin.search.ladder.scored import scored_of
from miniwin.search.ladder.standing import Ladder
from miniwin.search.study import Study
from miniwin.search.trainings import Training
from miniwin.specs import ModelSpec


def conclude_ladder(study: Study, ladder: Ladder) -> LadderResult:
    """Write ladder.json and the pages of a ladder whose trainings are complete. The caller holds the study's lock."""
    plan, prediction = ladder.plan, ladder.prediction
    assert plan is not None and prediction is not None
    scored = scored_of(plan, ladder.trainings)
    spread = Spread(scored)
    text = read_scores(ladder.trainings[0][0][0].folder)
    assert text is not None
    units, of, _ = draws_of(text)
    floor = fit.MIDDLE * scored.lowest
    heights, _ = fit.lines(scored.losses, scored.compute, floor)
    labels = [member.label for member in plan.members]
    base = len(labels) - 1
    result = LadderResult(
        study=plan.study,
        study_id=plan.study_id,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        plan=plan.hash,
        prediction=prediction.hash,
        prediction_written=prediction.written,
        grow=plan.grow,
        learning_rate=plan.learning_rate,
        tokens_per_parameter=plan.tokens_per_parameter,
        chosen_by=plan.chosen_by,
        length=plan.length,
        split=plan.measured.split,
        measured_tokens=len(text.bytes) * max(map(int, text.nats)),
        fingerprint=text.fingerprint,
        draws=len(units),
        of=of,  # type: ignore[arg-type]
        floors=list(fit.FLOORS),
        slope=Told.of(fit.slope(scored, spread)),
        predicted_slope=prediction.slope,
        floor=floor,
        heights=dict(zip(labels, map(float, heights), strict=True)),
        steps=[_step(plan, place, ladder.trainings[place], scored, spread) for place in range(len(plan.sizes))],
        compared=[
            _compared(labels, v, base, None, fit.speed_up(scored, v, base, spread)).model_copy(
                update={"trend": Told.of(fit.trend(scored, v, base, spread))}
            )
            for v in range(base)
        ],
        held=_held(prediction, scored, labels),
    )
    from miniwin.search.ladder.page import write_pages  # workers need it once

    write_ladder_result(study, result)
    write_pages(study.folder, result)
    return result


def _step(plan: Plan, place: int, trainings: Sequence[Sequence[Training]], scored: Scored, spread: Spread) -> Step:
    size, labels = plan.sizes[place], [member.label for member in plan.members]
    base = len(labels) - 1
    compared = [
        _compared(
            labels,
            v,
            base,
            fit.difference(scored, place, v, base, spread),
            fit.speed_up_at(scored, place, v, base, spread),
        )
        for v in range(base)
    ]
    models = [_reached(label, model, of) for label, model, of in zip(labels, size.models, trainings, strict=True)]
    return Step(target=size.target, models=models, compared=compared)


def _reached(label: str, model: Sized, trainings: Sequence[Training]) -> Reached:
    spec = trainings[0].candidate.model
    runs = [_ran(one) for one in trainings]
    lengths = runs[0].losses
    return Reached(
        label=label,
        layout=spec.layout,
        hidden_size=spec.hidden_size,
        heads=_heads(spec),
        parameters=model.parameters,
        learning_rate=trainings[0].candidate.train.optimizer.lr,
        flops_per_token=model.flops_per_token,
        tokens=model.tokens,
        flops=model.flops,
        runs=runs,
        losses={length: math.fsum(run.losses[length] or math.nan for run in runs) / len(runs) for length in lengths},
    )


def _heads(spec: ModelSpec) -> list[str]:
    """`4/2 of 16`: query heads, heads of keys and values, and the size of each; of layers that differ in it."""
    found = []
    for block in spec.blocks.values():
        attention = block.resolve(spec.hidden_size).attention
        found.append(f"{attention.num_heads}/{attention.num_kv_heads} of {attention.head_dim}")
    return list(dict.fromkeys(found))


def _ran(training: Training) -> Ran:
    outcome = training.outcome
    assert outcome is not None
    return Ran(
        seed=training.candidate.train.seed,
        hash=training.candidate.hash,
        started=outcome.started,
        tokens=outcome.tokens,
        seconds=outcome.seconds,
        losses={str(length): loss if math.isfinite(loss) else None for length, loss in outcome.losses.items()},
    )


def _compared(labels: Sequence[str], first: int, other: int, loss: Interval | None, speed_up: Interval) -> Compared:
    if math.isfinite(speed_up.low) or math.isfinite(speed_up.high) or loss is None:
        log = speed_up.through(lambda times: math.log(times) if times > 0 else -math.inf)
        verdict = intervals.verdict(log, lower_is_better=False) if math.isfinite(log.value) else "not distinguishable"
    else:  # the slope is not known, but the losses are
        verdict = intervals.verdict(loss, lower_is_better=True)
    return Compared(
        first=labels[first],
        other=labels[other],
        loss=None if loss is None else Told.of(loss),
        speed_up=Told.of(speed_up),
        verdict=verdict,  # type: ignore[arg-type]
    )


def _held(prediction: Prediction, scored: Scored, labels: Sequence[str]) -> list[Held]:
    found = dict(zip(labels, map(float, scored.losses[:, -1]), strict=True))
    held = []
    for one in prediction.predicted:
        measured = found[one.first] - (0.0 if one.other is None else found[one.other])
        known = one.low is not None and one.high is not None
        within = one.low <= measured <= one.high if known else None  # type: ignore[operator]
        held.append(Held(predicted=one, measured=measured, within=within))
    return held

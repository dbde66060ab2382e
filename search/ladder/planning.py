"""How the plan of a ladder is made: sizes, tokens, learning rates and seeds.

Every variant has the parameters of its size, within 2 % where sizes allow. The baseline is trained on so many tokens a
parameter, and the other variants on as many tokens as cost the same FLOPs: so at each size all variants have the same
parameters and the same compute. A variant whose attention is cheaper sees more tokens for that. FLOPs are those of
matrix products and attention scores, three times a forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from miniwin.search.candidate import Candidate, at_rate
from miniwin.search.confirm.plan import variants_of
from miniwin.search.known_rates import known_rates
from miniwin.search.ladder.growing import WITHIN, Grow, at_size, find_layers, repeats
from miniwin.search.ladder.plan import Member, Plan, Rates, Size, Sized
from miniwin.search.objectives import chief, report_lengths
from miniwin.search.study import Study
from miniwin.search.study_data import StudyData
from miniwin.search.trainings import SEEDS, Variant
from miniwin.specs import ModelSpec, TrainSpec, UserError, parse_spec
from miniwin.specs.confirmation import ConfirmSpec

TOKENS_PER_PARAMETER = 20.0  # compute-optimal for large models of text (arXiv:2203.15556)
FEWEST_SIZES = 3
APART = 1000  # between the seeds of one size and the next: no size shares a seed with another, or with the search
LEAST_STEPS = 10


@dataclass(frozen=True)
class Wish:
    """What a ladder is asked for. None: the default, or as the ladder that is there."""

    sizes: Sequence[int] | None = None
    top: int | None = None
    seeds: int | None = None
    largest_seeds: int | None = None
    tokens_per_parameter: float | None = None
    grow: str | None = None
    learning_rate: str | None = None
    length: int | None = None


def make_plan(study: Study, data: StudyData, wish: Wish) -> Plan:
    """The plan of a study whose trials are over.

    Raises:
        UserError: what is asked for cannot be had.
    """
    assert wish.sizes is not None
    variants = _variants(study, data, wish.top or 1)
    winner = variants[0].candidate.model
    grow: Any = wish.grow or ("stack" if repeats(winner) else "stretch")
    rates: Any = wish.learning_rate or "constant"
    per = wish.tokens_per_parameter or TOKENS_PER_PARAMETER
    lower, largest = wish.seeds or 3, wish.largest_seeds or 1
    sizes = []
    for place, target in enumerate(wish.sizes):
        count = largest if place == len(wish.sizes) - 1 else lower
        first = study.space.train.seed + APART * (place + 1)
        try:
            models = _models(variants, target, grow, per, rates)
        except UserError as error:
            raise UserError(f"--sizes: {target:,}: {error}") from None
        sizes.append(Size(target=target, seeds=[(first + n) % SEEDS for n in range(count)], models=models))
    _check_steps(variants, sizes)
    return Plan(
        study=study.spec.name,
        study_id=study.about["id"],
        trained=len(data.trained),
        chosen_by=chief(data.objectives).name,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        grow=grow,
        learning_rate=rates,
        tokens_per_parameter=per,
        length=_length(study, wish.length),
        measured=study.spec.confirm or ConfirmSpec(),
        members=[
            Member(label=one.label, trial=one.number, params=one.params, layout=one.candidate.model.layout)
            for one in variants
        ],
        sizes=sizes,
    )


def notes(plan: Plan) -> list[str]:
    """Models that are farther than 2 % from the size asked for."""
    return [
        f"{member.label} at {size.target:,} parameters has {model.parameters:,}: sizes come no nearer"
        for size in plan.sizes
        for member, model in zip(plan.members, size.models, strict=True)
        if abs(model.parameters / size.target - 1) > WITHIN
    ]


def _check_steps(variants: Sequence[Variant], sizes: Sequence[Size]) -> None:
    """UserError where a variant does not grow from one size to the next: then no line goes through its losses."""
    for before, after in pairwise(sizes):
        for one, small, large in zip(variants, before.models, after.models, strict=True):
            if large.parameters <= small.parameters or large.flops <= small.flops:
                raise UserError(
                    f"--sizes: {before.target:,} and {after.target:,} are too near to each other: {one.label} has "
                    f"{small.parameters:,} and {large.parameters:,} parameters there; take sizes that are farther apart"
                )


def _variants(study: Study, data: StudyData, top: int) -> list[Variant]:
    """The best trials, the best first, and the baseline behind them."""
    chosen = [(trial.number, trial.params) for trial in data.ranked[:top]]
    found = variants_of(study, chosen, known_rates(study, data))
    if len(found) < 2 or found[-1].number is not None:
        raise UserError(
            f"{study.folder}: the learning rate that the winner or the baseline has tuned is not known; see "
            "miniwin search status"
        )
    return found


def _length(study: Study, asked: int | None) -> int:
    lengths = report_lengths(study.spec, study.space.train)
    trained = study.space.train.longest
    length = asked or (trained if trained in lengths else lengths[0])
    if length not in lengths:
        raise UserError(
            f"--length: got {length}; the study measures at {', '.join(map(str, lengths))}: expected one of them"
        )
    return length


def _models(variants: Sequence[Variant], target: int, grow: Grow, per: float, rates: Rates) -> list[Sized]:
    """Of each variant, the baseline last. All have the depth that suits the winner."""
    winner = variants[0].candidate.model
    deeper = find_layers(winner, target, grow) / winner.num_layers
    found: list[Candidate] = []
    for one in variants:
        model = one.candidate.model
        sized = at_size(model, target, max(1, round(model.num_layers * deeper)), grow)
        found.append(Candidate(sized, _at_rate(one.candidate, sized, rates)))
    base = found[-1]
    steps = round(per * base.model.parameters() / base.train.tokens_per_step)
    budget = max(steps, 1) * base.train.tokens_per_step * _flops(base)
    return [_sized(one, budget) for one in found]


def _sized(candidate: Candidate, flops: float) -> Sized:
    """The candidate, trained for whole steps that cost so many FLOPs, as nearly as can be."""
    train, each = candidate.train, _flops(candidate)
    steps = round(flops / each / train.tokens_per_step)
    if steps < LEAST_STEPS:
        raise UserError(
            f"its training would have {max(steps, 0)} steps of {train.tokens_per_step:,} tokens; expected at least "
            f"{LEAST_STEPS}: take larger sizes, or more --tokens-per-parameter"
        )
    tokens = steps * train.tokens_per_step
    return Sized(
        parameters=candidate.model.parameters(),
        flops_per_token=each,
        tokens=tokens,
        flops=each * tokens,
        model=candidate.model.model_dump(mode="json"),
        train=_with(train, tokens=tokens),
    )


def _flops(candidate: Candidate) -> float:
    """Of training, for each token: the mean over passes, which all have as many tokens."""
    train = candidate.train
    weights = train.length_weights
    each = (w * candidate.model.training_flops(n) for w, n in zip(weights, train.lengths, strict=True))
    return sum(each) / sum(weights)


def _at_rate(candidate: Candidate, sized: ModelSpec, rates: Rates) -> TrainSpec:
    """How it is trained at another width: with its own learning rate, or with one that falls as 1 / width."""
    train = candidate.train
    if rates == "constant":
        return train
    return at_rate(train, train.optimizer.lr * candidate.model.hidden_size / sized.hidden_size)


def _with(train: TrainSpec, **changes: Any) -> dict[str, Any]:
    data = {**train.model_dump(mode="json"), **changes}
    parse_spec(data, "train")  # raises where other fields do not go with the change
    return data

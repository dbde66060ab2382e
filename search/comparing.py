"""Two studies side by side, or a study beside its own baseline: what was searched, what it cost, what was found.

The volume of a front is its hypervolume as a share of the box between the best values of both fronts and a reference
point, which lies a tenth of the range beyond the worst values. Both fronts have the same box: so the two shares can be
compared with each other, and with nothing else. With one objective the best values say it all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from miniwin.files.json_files import read_json
from miniwin.search.pareto import Point, hypervolume
from miniwin.search.records import read_study
from miniwin.search.study_data import StudyData, TrialRecord
from miniwin.specs import UserError

MARGIN = 0.1  # of the range, by which the reference lies beyond the worst value
MARK = '"kind": "search-comparison"'  # in our JSON files
ASKED = ("variables", "constraints", "sampler", "pruner", "rungs")  # of a search spec


@dataclass(frozen=True)
class Side:
    """A study, or a baseline.

    asked: base model, train spec, budget, and what else of the search spec says what was searched. states: how many
    trials there are of each. tokens, seconds: spent on all of them, without the study's baseline. front: numbers of
    trials. beaten: how many of the front a point of the other front dominates. volume: None with one objective, or
    while a side has no complete trial. best: the best trial, with its layout, params, values by objective, and losses
    in nats per byte by length.
    """

    name: str
    asked: dict[str, Any]
    states: dict[str, int]
    tokens: int
    seconds: float
    front: list[int]
    beaten: int
    volume: float | None
    best: dict[str, Any] | None


@dataclass(frozen=True)
class Comparison:
    """reference: the point up to which volumes count, by objective; empty where there are none."""

    objectives: list[str]
    reference: dict[str, float]
    sides: tuple[Side, Side]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "search-comparison", "format": 1, **asdict(self)}


def compare_studies(one: str | Path, other: str | Path | None = None) -> Comparison:
    """Compare two studies, by folder or name; or a study with its own baseline.

    Raises:
        UserError: there is no such study; the two do not have the same objectives, or were not measured on the same
            text; or a study alone has no baseline that is trained.
    """
    first = read_study(one)
    if other is None:
        if first.baseline is None or first.baseline.state != "complete":
            why = "has no baseline" if first.baseline is None else f"has a baseline that is {first.baseline.state}"
            raise UserError(f"{first.folder} {why}: give a second study to compare it with")
        second = replace(first, trials=[first.baseline], baseline=None)
    else:
        second = read_study(other)
        _check_comparable(first, second)
    objectives = sorted(_objectives(first))
    points = [[_point(trial, data, objectives) for trial in data.front] for data in (first, second)]
    reference, volumes = _volumes(points) if len(objectives) > 1 else (None, (None, None))
    names = [first.name, "baseline" if other is None else second.name]
    if names[0] == names[1]:
        names = [str(first.folder), str(second.folder)]
    sides = [
        _side(data, names[n], points[n], points[1 - n], volumes[n], alone=n == 1 and other is None)
        for n, data in enumerate((first, second))
    ]
    signs = [-1.0 if text.startswith("maximize") else 1.0 for text in objectives]
    return Comparison(
        objectives,
        {} if reference is None else {t: s * r for t, s, r in zip(objectives, signs, reference, strict=True)},
        (sides[0], sides[1]),
    )


def _check_comparable(one: StudyData, other: StudyData) -> None:
    """UserError if values of the two studies cannot be compared."""
    found = []
    for what, of in (
        ("objectives", lambda data: sorted(_objectives(data))),
        ("data", _data),
        ("tokens measured", _size),
    ):
        ours, theirs = of(one), of(other)
        if ours != theirs:
            found.append(f"{what}: {_words(ours)} against {_words(theirs)}")
    if found:
        raise UserError(
            f"{one.folder} and {other.folder} cannot be compared, since their values do not mean the same "
            f"({'; '.join(found)}): compare studies of the same objectives and data"
        )


def _objectives(data: StudyData) -> dict[str, str]:
    """`minimize loss@4096`, the length in tokens however it was written, to the name that values have."""
    found = {}
    for objective in data.objectives:
        length = objective.length(data.train.longest)
        found[f"{objective.direction} {objective.metric}{f'@{length}' if length else ''}"] = objective.name
    return found


def _data(data: StudyData) -> Any:
    """The fingerprint of the text that was trained and measured on; before any training, what the train spec says."""
    for trial in (*data.trials, *([] if data.baseline is None else [data.baseline])):
        if trial.run_folder is not None:
            try:
                about = read_json(trial.run_folder / "run.json", names=True)
                return str(about["data"]["fingerprint"])[:12]
            except (OSError, ValueError, KeyError, TypeError):
                continue  # not begun; or damaged, which is said elsewhere
    return [data.train.data.model_dump(mode="json"), data.train.tokenizer]


def _size(data: StudyData) -> int:
    return data.spec.eval_tokens


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _point(trial: TrialRecord, data: StudyData, objectives: Sequence[str]) -> Point:
    """The values of a trial, with signs turned so that less is better."""
    names = _objectives(data)
    return tuple(trial.values[names[o]] * (-1.0 if o.startswith("maximize") else 1.0) for o in objectives)


def _volumes(fronts: Sequence[Sequence[Point]]) -> tuple[Point | None, tuple[float | None, float | None]]:
    """The reference point, and the volume of each front as a share of the box up to there."""
    if not all(fronts):
        return None, (None, None)
    columns = list(zip(*fronts[0], *fronts[1], strict=True))
    lows = [min(column) for column in columns]
    spans = [(max(column) - low) * (1 + MARGIN) or 1.0 for column, low in zip(columns, lows, strict=True)]
    reference = tuple(low + span for low, span in zip(lows, spans, strict=True))
    shares = [hypervolume([_scaled(point, lows, spans) for point in front], (1.0,) * len(lows)) for front in fronts]
    return reference, (shares[0], shares[1])


def _scaled(point: Point, lows: Sequence[float], spans: Sequence[float]) -> Point:
    return tuple((value - low) / span for value, low, span in zip(point, lows, spans, strict=True))


def _side(
    data: StudyData, name: str, front: Sequence[Point], others: Sequence[Point], volume: float | None, alone: bool
) -> Side:
    """alone: this is a baseline, for which nothing was searched."""
    spec, best = data.spec.model_dump(mode="json"), data.best
    asked = {"base": data.base.name, "train": data.train.name, "trials": data.spec.budget.trials}
    asked |= {part: spec[part] for part in ASKED}
    several = {part: spec[part] for part in ("seeds", "learning_rate") if part in spec}
    if alone:
        asked = {"base": spec["baseline"], "train": data.train.name, "trials": 1}
    return Side(
        name=name,
        asked={**asked, "tokens_per_trial": data.train.tokens, **several},
        states=dict(Counter(trial.state for trial in data.trials)),
        tokens=sum(trial.tokens for trial in data.trials),
        seconds=sum(trial.seconds for trial in data.trials),
        front=[trial.number for trial in data.front],
        beaten=sum(any(_dominates(other, point) for other in others) for point in front),
        volume=volume,
        best=None if best is None else _best(best, data),
    )


def _best(trial: TrialRecord, data: StudyData) -> dict[str, Any]:
    values = {text: trial.values.get(name, math.nan) for text, name in _objectives(data).items()}
    return {
        "number": trial.number,
        "layout": trial.layout,
        "params": trial.params,
        "values": dict(sorted(values.items())),
        "losses": {str(length): loss for length, loss in sorted(trial.losses.items())},
    }


def _dominates(one: Point, other: Point) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))

"""ladder.json: what came of a ladder. The file is replaced as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from miniwin.search.ladder.growing import Grow
from miniwin.search.ladder.keeping import read, write
from miniwin.search.ladder.plan import Rates
from miniwin.search.ladder.prediction import Predicted, Told
from miniwin.search.study import Study
from miniwin.specs.base import Strict

NAME = "result"

Verdict = Literal["better", "worse", "not distinguishable"]


class Ran(Strict):
    """One training. losses: nats per byte by length, on the test split."""

    seed: int
    hash: str
    started: str
    tokens: int
    seconds: float
    losses: dict[str, float | None]


class Reached(Strict):
    """A variant at one size. flops: of one training. losses: means over the seeds."""

    label: str
    layout: str
    hidden_size: int
    heads: list[str]
    parameters: int
    learning_rate: float
    flops_per_token: float
    tokens: int
    flops: float
    runs: list[Ran]
    losses: dict[str, float]


class Compared(Strict):
    """first against other. loss: the first's minus the other's, nats per byte. speed_up: how many times as much compute
    the other needs for the loss of the first. trend: of all sizes together, the speed-up at the largest as a multiple
    of that at the smallest."""

    first: str
    other: str
    loss: Told | None
    speed_up: Told
    trend: Told | None = None
    verdict: Verdict


class Step(Strict):
    """One size: the models, and each against the baseline."""

    target: int
    models: list[Reached]
    compared: list[Compared]


class Held(Strict):
    """A prediction, and what was measured. within: whether it lies in the interval; null where there is none."""

    predicted: Predicted
    measured: float
    within: bool | None


class LadderResult(Strict):
    """plan, prediction: hashes. slope: alpha of the lines. predicted_slope: from the sizes below the largest. draws,
    of: what the intervals rest on beside the seeds. floor, heights: of the lines, log(loss - floor) = height - slope *
    log(flops)."""

    format: Literal[1] = 1
    study: str
    study_id: str
    made: str
    plan: str
    prediction: str
    prediction_written: str
    grow: Grow
    learning_rate: Rates
    tokens_per_parameter: float
    chosen_by: str
    length: int
    split: str
    measured_tokens: int
    fingerprint: str
    draws: int
    of: Literal["documents", "pieces"]
    floors: list[float]
    slope: Told
    predicted_slope: Told
    floor: float
    heights: dict[str, float]
    steps: list[Step]
    compared: list[Compared]
    held: list[Held]

    @property
    def labels(self) -> list[str]:
        return [model.label for model in self.steps[0].models]


def write_ladder_result(study: Study, result: LadderResult) -> None:
    write(study, NAME, result)


def read_ladder_result(study: Study, seen: Mapping[str, Any] | None = None) -> LadderResult | None:
    """What came of a study's ladder; None if nothing has yet. UserError if the file is damaged."""
    return read(study, NAME, LadderResult, "delete it, and miniwin search ladder writes it", seen)

"""prediction.json: what the smaller sizes say of the largest. It is written before the largest is trained.

No training of the largest size begins without it. Each of them notes the hash of the prediction when it begins
(`begun.json`). A prediction that was changed, or made anew, has another hash, and is refused from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from miniwin.search.ladder.keeping import read, where, write
from miniwin.search.ladder.plan import Plan, hash_of
from miniwin.search.study import Study
from miniwin.search.trainings import Training
from miniwin.specs import UserError
from miniwin.specs.base import Strict

if TYPE_CHECKING:
    from miniwin.evaluation.intervals import Interval  # numpy: who looks at a study does without it

NAME = "prediction"
BACK = "put it back from a copy: it is not made a second time"


class Told(Strict):
    """A number with its 95 % interval; null where nothing is known."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, found: Interval) -> Told:
        return cls(value=_known(found.value), low=_known(found.low), high=_known(found.high))


class Predicted(Told):
    """first: a member. other: null for the loss of the first, in nats per byte; otherwise it is the difference."""

    first: str
    other: str | None

    @property
    def name(self) -> str:
        return self.first if self.other is None else f"{self.first} - {self.other}"


class Source(Strict):
    """A loss that the prediction comes from, nats per byte on the test split."""

    size: int
    member: str
    seed: int
    hash: str
    loss: float


class Prediction(Strict):
    """plan: the hash of plan.json. size: the parameters that are predicted. seeds: how many are trained there; what is
    predicted is their mean. floors: which irreducible losses it holds for, as shares of the lowest. hash: of the rest.
    """

    format: Literal[1] = 1
    written: str
    plan: str
    length: int
    size: int
    seeds: int
    floors: list[float]
    slope: Told
    sources: list[Source]
    predicted: list[Predicted]
    hash: str = ""


class Begun(Strict):
    """What a training of the largest size notes when it begins: the hash of the prediction, and its time."""

    prediction: str
    written: str


def write_prediction(study: Study, prediction: Prediction) -> None:
    write(study, NAME, prediction)


def read_prediction(study: Study, seen: Mapping[str, Any] | None = None) -> Prediction | None:
    """The prediction of a study's ladder; None if there is none yet. UserError if it is damaged."""
    return read(study, NAME, Prediction, BACK, seen)


def check_prediction(study: Study, plan: Plan, prediction: Prediction | None, largest: list[Training]) -> Prediction:
    """The prediction, if it is the one that stood there when the largest size was begun.

    Raises:
        UserError: it is not there, or was changed.
    """
    place = where(study, NAME)
    known = {one.label: _begun(study, one) or (None if one.outcome is None else "lost") for one in largest}
    begun = {label: hash for label, hash in known.items() if hash is not None}
    if prediction is None:
        raise UserError(f"{place} is gone, and {next(iter(begun), 'the largest size')} has begun; {BACK}")
    if prediction.hash != hash_of(prediction, "hash") or prediction.plan != plan.hash:
        raise UserError(f"{place} was changed after it was written (its hash is of something else); {BACK}")
    if other := next((label for label, hash in begun.items() if hash != prediction.hash), None):
        raise UserError(f"{place} was changed after {other} had begun; {BACK}")
    return prediction


def begin_largest(study: Study, training: Training, prediction: Prediction) -> None:
    """Note which prediction there was when a training of the largest size began."""
    if _begun(study, training) is None:
        write(study, _name(training), Begun(prediction=prediction.hash, written=prediction.written))


def has_begun(study: Study, training: Training) -> bool:
    return training.outcome is not None or _begun(study, training) is not None


def _begun(study: Study, training: Training) -> str | None:
    try:
        found = read(study, _name(training), Begun, BACK)
    except UserError:
        return "damaged"
    return None if found is None else found.prediction


def _name(training: Training) -> str:
    return f"begun:{training.candidate.hash[:12]}"


def _known(number: float) -> float | None:
    return number if abs(number) < float("inf") else None

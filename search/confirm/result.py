"""confirm.json: what a confirmation found. The file, or the attribute in the storage, is replaced as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import ValidationError

from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.writing import finite, write_json
from miniwin.search.stored import RESULT
from miniwin.specs import UserError
from miniwin.specs.base import Grown, Strict
from miniwin.specs.validation_errors import explain

if TYPE_CHECKING:
    from miniwin.search.study import Study

FILE = "confirm.json"
FORMAT: Literal[1] = 1

Verdict = Literal["better", "worse", "the same", "not distinguishable", "not measured"]


class Measured(Strict):
    """A difference: the first variant's value minus the other's, on the same seeds and the same text.

    name: an objective, such as `cache_bytes@4096`, or the loss in nats per byte at a length, `loss@512`. low, high: the
    95 % interval; null where too little was measured to know one. draws, of: what the interval rests on beside the
    seeds, such as 64 documents; `of: spec` says that the value is known without training. verdict: of the first.
    """

    name: str
    objective: bool
    direction: Literal["minimize", "maximize"]
    value: float | None
    low: float | None
    high: float | None
    draws: int
    of: Literal["documents", "pieces", "examples", "seeds", "spec"]
    verdict: Verdict


class Comparison(Strict):
    first: str
    other: str
    measures: list[Measured]


class Run(Strict):
    """One training. losses: nats per byte by length; values: the objectives; both on the test split."""

    seed: int
    hash: str
    state: str
    reason: str | None
    tokens: int
    seconds: float
    losses: dict[str, float | None]
    values: dict[str, float | None]


class VariantResult(Strict):
    """trial: null for the baseline. losses, values: means over the seeds; null where a training has none."""

    label: str
    trial: int | None
    layout: str
    params: dict[str, Any]
    runs: list[Run]
    losses: dict[str, float | None]
    values: dict[str, float | None]


class Result(Grown):
    """trained: how many trials the study had when the variants were chosen. chosen_by: the objective that chose them,
    the best first. tokens: that were predicted on the test split, at each length. fingerprint: of the text. untrained:
    each variant is measured once, with the first weights as they are; intervals are over the text alone."""

    LATER: ClassVar[frozenset[str]] = frozenset({"untrained"})

    format: Literal[1] = FORMAT
    study: str
    study_id: str
    trained: int
    chosen_by: str
    top: int
    split: str
    seeds: list[int]
    tokens: int
    fingerprint: str | None
    untrained: bool = False
    variants: list[VariantResult]
    comparisons: list[Comparison]

    def comparison(self, first: str, other: str) -> Comparison | None:
        return next((one for one in self.comparisons if (one.first, one.other) == (first, other)), None)


def write_result(folder: Path, result: Result) -> None:
    """Write confirm.json of a study. What an earlier one says of fewer trials is kept beside the trainings."""
    before = None
    with suppress(UserError):  # damaged: it is replaced
        before = read_result(folder)
    if before is not None and before.trained != result.trained:
        write_json(folder / "confirm" / f"of-{before.trained}-trials.json", before.model_dump(mode="json"))
    write_json(folder / FILE, result.model_dump(mode="json"))


def keep_result(study: Study, result: Result) -> None:
    """Write the result down where the study keeps such things: in confirm.json, or in the storage."""
    if not study.stored:
        return write_result(study.folder, result)
    before = None
    with suppress(UserError):
        before = kept_result(study, study.optuna.user_attrs)
    if before is not None and before.trained != result.trained:
        study.optuna.set_user_attr(f"{RESULT}:{before.trained}", before.model_dump(mode="json"))
    study.optuna.set_user_attr(RESULT, finite(result.model_dump(mode="json")))


def kept_result(study: Study, seen: Mapping[str, Any]) -> Result | None:
    """The result that `keep_result` wrote; None if there is none. seen: the attributes of the Optuna study.

    Raises:
        UserError: it is damaged, or not what `miniwin search` wrote.
    """
    if not study.stored:
        return read_result(study.folder)
    data = seen.get(RESULT)
    return None if data is None else _result(data, f"attribute {RESULT} in the storage", "remove it")


def read_result(folder: Path) -> Result | None:
    """What confirm.json of a study says; None if there is none.

    Raises:
        UserError: the file is damaged, or not what `miniwin search` wrote.
    """
    path = folder / FILE
    try:
        data = read_json(path, names=True)
    except FileNotFoundError:
        return None
    except (OSError, JSONProblem) as error:
        raise UserError(f"{path} cannot be read ({error}); delete it, and miniwin search confirm writes it") from None
    return _result(data, str(path), "delete it")


def _result(data: Any, where: str, mend: str) -> Result:
    try:
        return Result.model_validate(data)
    except ValidationError as error:
        said = explain(error, data, Result, None)
        raise UserError(f"{where}: {said}; {mend}, and miniwin search confirm writes it") from None

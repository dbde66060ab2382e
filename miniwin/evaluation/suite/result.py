"""What a suite found, as JSON that comes back equal: a header, and one row for each measure at each length.

    last-write@2048          share of right answers of a task
    last-write-nats@2048     nats of its right answers, the mean
    bits_per_byte@512        on long documents
    shift_change@16          with so many tokens of filler in front
    cache_bytes@8192
    prefill_exponent         a measure over several lengths has none

A row keeps the samples that its value is made of, so that another program can give it an interval, or pair it with the
same row of another model. Two rows pair if their `setting` is equal: then sample i of both is the same example or the
same document.

Names of samples:

    asked, right, nats, depth    of each example of a task: its answers, those that are right, the nats of all of them,
                                 and where in the context its fact lies (0 to 1; null where it lies in several places)
    nats, bytes                  of each document: a loss is sum(nats) / sum(bytes)
    seconds                      of each repetition of what is timed
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from miniwin.blocks.messages.nearest import near
from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.writing import write_text
from miniwin.specs import UserError, user_path
from miniwin.specs.base import Count, PositiveInt, Real, Strict
from miniwin.specs.validation_errors import explain

FORMAT: Literal[1] = 1
KIND: Literal["suite-result"] = "suite-result"
LARGEST = 256 << 20  # bytes of a file that is read

Samples = dict[str, list[float | int | None]]
Measured = Annotated[Real, Field(ge=-1e100, le=1e100)]  # a file may say anything, and charts subtract and divide


class SuiteRow(Strict):
    """One measure at one length.

    value: null where the part was left out; `note` says why.
    low, high: the 95 % interval; equal to the value where the value is exact; null where too little was measured to
    know one.
    n: how many independent things the value is made of; `of` names them: "examples", "documents", "repetitions".
    chance: what guessing would give; null where there is no such thing.
    blind: what a part of the task alone would give, where that is better than chance (docs/tasks.md); else null.
    better: which direction is; null where neither.
    unit: "share", "bits/byte", "nats/answer", "bytes", "seconds", "exponent".
    setting: everything that says what was asked, apart from the model.
    detail: what lies behind the value: position buckets, cells of a heat map, points of a fit.
    """

    key: Annotated[str, Field(min_length=1)]
    measure: Annotated[str, Field(min_length=1)]
    length: PositiveInt | None = None
    times: Real | None = None  # the length as a multiple of the model's training length
    value: Measured | None
    low: Measured | None
    high: Measured | None
    n: Annotated[Count, Field(le=10**15)]
    of: str
    unit: str
    chance: Real | None = None
    blind: Real | None = None
    better: Literal["higher", "lower"] | None = None
    setting: dict[str, Any] = {}
    samples: Samples = {}
    detail: dict[str, Any] = {}
    note: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> SuiteRow:
        if self.key != key_of(self.measure, self.length):
            raise ValueError(f"got key {self.key!r}; expected {key_of(self.measure, self.length)!r}")
        if (self.low is None) != (self.high is None) or (self.value is None and self.low is not None):
            raise ValueError("got only some of value, low and high; expected all three, the value alone, or none")
        if len({len(column) for column in self.samples.values()}) > 1:
            raise ValueError("got samples of different lengths; expected one of each for each example or document")
        for asked, right in zip(self.samples.get("asked", ()), self.samples.get("right", ()), strict=False):
            if asked is None or right is None or not 0 <= right <= asked:
                raise ValueError(f"got {right} right of {asked} asked; expected from 0 to all of them")
        return self


class SuiteModel(Strict):
    """Which model was measured.

    hash: the canonical hash of its spec. weights: a hash of its weights. trained_length: the longest seq_len that it
    was trained at, in tokens; null where that is not known and no measure needed it.
    """

    ref: str
    hash: str
    weights: str
    parameters: Count
    trained_length: PositiveInt | None = None


class SuiteResult(Strict):
    """All rows of a suite for one model. spec: the suite, as in its file. data: the corpus of its losses."""

    format: Literal[1] = FORMAT
    kind: Literal["suite-result"] = KIND
    suite: str
    spec: dict[str, Any]
    model: SuiteModel
    device: str
    dtype: str
    version: str  # of miniwin
    date: str  # ISO 8601, UTC: when the first part began
    machine: dict[str, Any] = {}
    data: dict[str, Any] | None = None
    seconds: Annotated[Real, Field(ge=0)] = 0.0  # of all parts, without the pauses between two runs
    rows: list[SuiteRow]

    @model_validator(mode="after")
    def _one_row_a_key(self) -> SuiteResult:
        seen: set[str] = set()
        for row in self.rows:
            if row.key in seen:
                raise ValueError(f"got two rows of the key {row.key!r}; expected one")
            seen.add(row.key)
        return self

    def __getitem__(self, key: str) -> SuiteRow:
        """The row of a key, such as `recall@2048`. UserError if there is none."""
        found = {row.key: row for row in self.rows}
        if key not in found:
            raise UserError(f"{self.suite} of {self.model.ref} has no row {key!r}: {near(key, list(found))}")
        return found[key]

    def to_dict(self) -> dict[str, Any]:
        """The result for `json.dumps(..., allow_nan=False)`."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, data: Any, where: str = "a suite's result") -> SuiteResult:
        """The inverse of `to_dict`. where: the file, for the message.

        Raises:
            UserError: the data is not a result of this format.
        """
        if not isinstance(data, Mapping) or data.get("kind") != KIND:
            found = f"kind {data['kind']!r}" if isinstance(data, Mapping) and "kind" in data else "no kind"
            raise UserError(f"{where} is not the result of a suite: it has {found}; expected {_MAKE}")
        if data.get("format") != FORMAT or isinstance(data.get("format"), bool):
            raise UserError(
                f"{where} has format {data.get('format')!r}; this version of miniwin reads format {FORMAT}: update "
                "miniwin, or measure again"
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise UserError(f"{where} is damaged: {explain(error, data, cls, None)}; measure again") from None

    def write(self, path: Path) -> None:
        """Write the file atomically. The samples of a row share a line: a file is read by people too."""
        data = self.to_dict()
        rows = ",\n".join("    " + json.dumps(row, ensure_ascii=False, allow_nan=False) for row in data.pop("rows"))
        head = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
        write_text(path, f'{head},\n  "rows": [\n{rows}\n  ]\n}}\n' if rows else f'{head},\n  "rows": []\n}}\n')

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> SuiteResult:
        """The result in a file.

        Raises:
            UserError: the file cannot be read, or is not a result of this format.
        """
        file = user_path(path)
        try:
            return cls.from_dict(read_json(file, LARGEST), str(file))
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror or error}); expected {_MAKE}") from None
        except JSONProblem as error:
            raise UserError(f"{file} is {error}; expected {_MAKE}") from None


_MAKE = "a file that `miniwin eval MODEL --suite NAME` wrote"


def key_of(measure: str, length: int | None) -> str:
    """`recall@2048`, or only the measure where it has no length."""
    return measure if length is None else f"{measure}@{length}"

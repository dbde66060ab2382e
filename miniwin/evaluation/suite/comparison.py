"""Several results of one suite side by side, each against the first.

    found = compare([first, other, ...])
    found.rows[0].differences       one for each other result

Each interval is a 95 % interval by itself. Of many rows without any difference, one in twenty says that there is one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from miniwin.display.formats import plural
from miniwin.evaluation.suite.differing import first_difference
from miniwin.evaluation.suite.pairs import Difference, difference
from miniwin.evaluation.suite.result import SuiteResult, SuiteRow
from miniwin.specs import UserError

KIND, FORMAT = "suite-comparison", 1
MOST = 6  # results that a page and a terminal can tell apart
NAMES = ascii_uppercase[:MOST]
VALUE = ("value", "low", "high", "n", "note")
VERDICTS = ("better", "worse", "equal", "differs", "not distinguishable")


@dataclass(frozen=True)
class ComparedRow:
    """One key. rows: of each result, None where it has none. differences: of each result but the first."""

    rows: tuple[SuiteRow | None, ...]
    differences: tuple[Difference | None, ...]

    @property
    def any(self) -> SuiteRow:
        return next(row for row in self.rows if row is not None)


@dataclass(frozen=True)
class Comparison:
    """names: A, B, ... for the results, in order."""

    results: tuple[SuiteResult, ...]
    rows: tuple[ComparedRow, ...]

    @property
    def names(self) -> str:
        return NAMES[: len(self.results)]

    @property
    def sentences(self) -> list[str]:
        """What each result says against the first, in words."""
        return [
            f"{name} against {self.names[0]}: {_counted([row.differences[n] for row in self.rows])}."
            for n, name in enumerate(self.names[1:])
        ]

    def to_dict(self) -> dict[str, Any]:
        """For `json.dumps(..., allow_nan=False)`. `differences` are those of the other models, in their order."""
        return {
            "format": FORMAT,
            "kind": KIND,
            "suite": self.results[0].suite,
            "models": [
                {"name": name, **result.model.model_dump(mode="json"), "date": result.date, "version": result.version}
                for name, result in zip(self.names, self.results, strict=True)
            ],
            "rows": [
                {
                    **_fields(row.any, "key", "measure", "length", "unit", "better", "chance"),
                    "values": [None if one is None else _fields(one, *VALUE) for one in row.rows],
                    "differences": [None if one is None else one.to_dict() for one in row.differences],
                }
                for row in self.rows
            ],
        }


def compare(results: Sequence[SuiteResult]) -> Comparison:
    """Put results side by side, each against the first.

    Raises:
        UserError: there are too few or too many, they are of different suites, or no row of them is comparable.
    """
    check_number(len(results))
    first = results[0]
    for other in results[1:]:
        check_same_suite(first, other)
    every: dict[str, SuiteRow] = {}
    for result in results:
        for row in result.rows:
            every.setdefault(row.key, row)
    first_of = {row.measure: n for n, row in reversed(list(enumerate(every.values())))}
    keys = sorted(every, key=lambda key: first_of[every[key].measure])  # lengths of one measure stand together
    rows = tuple(
        ComparedRow(
            tuple(next((row for row in result.rows if row.key == key), None) for result in results),
            tuple(difference(first, other, key) for other in results[1:]),
        )
        for key in keys
    )
    for n, other in enumerate(results[1:]):
        against = [row.differences[n] for row in rows]
        if all(one is None or one.interval is None for one in against):
            raise UserError(f"{first.model.ref} and {other.model.ref} have no row in common: {_reasons(against)}")
    return Comparison(tuple(results), rows)


def check_number(results: int) -> None:
    """Raise UserError if there are too few or too many to compare."""
    if results < 2:
        raise UserError(f"compare: got {results}; expected at least two models or results to compare")
    if results > MOST:
        raise UserError(f"compare: got {results}; expected at most {MOST}, which one page can tell apart")


def check_same_suite(first: SuiteResult, other: SuiteResult) -> None:
    """Raise UserError if two results are not of the same suite."""
    found = first_difference(first.spec, other.spec)
    if found is None:
        return
    names = f"{first.model.ref} was measured by the suite {first.suite}, and {other.model.ref} by {other.suite}"
    same = f", with {found.field} {found.one} and {found.two}" if first.suite == other.suite else ""
    raise UserError(f"{names}{same}; measure both by one suite: miniwin eval MODEL --suite NAME")


def _fields(row: SuiteRow, *names: str) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}


def _reasons(found: Sequence[Difference | None]) -> str:
    counts = Counter(one.said for one in found if one is not None)
    return "; ".join(reason for reason, _ in counts.most_common(3)) or "neither has a value"


def _counted(found: Sequence[Difference | None]) -> str:
    counts = Counter(one.said for one in found if one is not None and one.interval is not None)
    refused = sum(one is not None and one.interval is None for one in found)
    said = [f"{word} in {counts[word]}" for word in VERDICTS if counts[word]]
    said += [f"{plural(refused, 'row')} not comparable"] if refused else []
    return f"of {plural(sum(counts.values()), 'row')}, {', '.join(said)}"

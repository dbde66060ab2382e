"""Several results of one suite side by side, each against the first.

    found = compare([first, other, ...])
    found.rows[0].differences       one for each other result

Each interval is a 95 % interval by itself. Of many rows without any difference, one in twenty says that there is one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from miniwin.display.formats import plural
from miniwin.evaluation.suite.differing import first_difference
from miniwin.evaluation.suite.pairs import Difference, difference
from miniwin.evaluation.suite.result import SuiteResult, SuiteRow
from miniwin.specs import UserError, shipped_specs
from miniwin.specs.lengths import times

KIND, FORMAT = "suite-comparison", 1
MARK = f'"kind": "{KIND}"'  # in the beginning of every such file
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
        found: list[str] = []
        for n, name in enumerate(self.names[1:]):
            against = [row.differences[n] for row in self.rows]
            found.append(f"{name} against {self.names[0]}: {_counted(against)}.")
            if any(one is not None and one.interval is None for one in against):
                apart = other_lengths(self.results[0], self.results[n + 1], self.names[0], name)
                found += [f"{apart}."] if apart else []
        return found

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
            names = first.model.ref, other.model.ref
            apart = other_lengths(first, other, *names)
            how = f". {apart}" if apart else ""
            raise UserError(f"{names[0]} and {names[1]} have no row in common: {_reasons(against)}{how}")
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


def other_lengths(first: SuiteResult, other: SuiteResult, *names: str) -> str:
    """Why lengths such as 4x do not pair, and how they would; empty if they do. names: of the two results."""
    trained = first.model.trained_length, other.model.trained_length
    multiple = next(_multiples(first.spec), None)
    if None in trained or trained[0] == trained[1] or multiple is None:
        return ""
    suite = first.suite if first.suite in shipped_specs("suite") else "FILE"
    return (
        f"{names[0]} was measured for a training length of {trained[0]:,} tokens and {names[1]} for {trained[1]:,}, so "
        f"{multiple} is another length in each: measure {names[1]} again with miniwin eval MODEL --suite {suite} "
        f"--trained-length {trained[0]} --out FOLDER, and compare FOLDER"
    )


def _multiples(value: Any) -> Iterator[str]:
    """The lengths in a suite that are multiples of the training length."""
    if isinstance(value, str):
        if times(value) is not None:
            yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _multiples(item)


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

"""What a result says in words: loss beyond the training length, and which tasks are above chance there.

A part of a task alone may give more than chance: a model may know what is left to answer, say, and not where it stood.
A task counts as better than chance only if it is better than that, too.
"""

from __future__ import annotations

import math

import numpy as np

from miniwin.display.formats import plural
from miniwin.evaluation import intervals
from miniwin.evaluation.suite.charts import Shown, measures, rows_of, titled, value_of
from miniwin.evaluation.suite.result import SuiteResult, SuiteRow
from miniwin.evaluation.suite.samples import losses
from miniwin.evaluation.suite.units import unit_of


def verdicts(result: SuiteResult) -> list[str]:
    """One sentence for each loss over several lengths, then which tasks are above chance, and which are not."""
    found = [rows_of(result, measure) for measure in measures([Shown(result, "")])]
    found = [rows for rows in found if not unit_of(rows[0].unit).aside]
    said = [text for rows in found if (text := loss_verdict(rows))]
    above: list[str] = []
    partly: list[str] = []
    alike: list[str] = []
    for rows in found:
        last = rows[-1]
        if last.chance is None or last.low is None or last.high is None or last.value is None:
            continue
        times = f", {last.times:.4g}x" if last.times is not None else ""
        text = f"{titled(last.measure)} ({unit_of(last.unit).text(value_of(last))} at {last.length:,}{times})"
        better = last.low > last.chance if last.better == "higher" else last.high < last.chance
        if better and last.blind is not None and last.low <= last.blind:
            partly.append(
                f"{text.removesuffix(')')}, of which a part alone gives {unit_of(last.unit).text(last.blind)})"
            )
        else:
            (above if better else alike).append(text)
    if above:
        said.append(f"Better than chance at the longest length: {', '.join(above)}.")
    if partly:
        said.append(f"Not known to be better than a part of the task at the longest length: {', '.join(partly)}.")
    if alike:
        said.append(f"Not known to be better than chance at the longest length: {', '.join(alike)}.")
    return said


def caveats(result: SuiteResult) -> list[str]:
    """On what a loss of texts depends besides the model: the longest length says which documents are long enough."""
    said: dict[str, None] = {}
    for row in result.rows:
        longest = row.setting.get("tokens")
        if row.detail.get("buckets") and isinstance(longest, int):
            said[
                f"{titled(row.measure).capitalize()} are of documents longer than {longest:,} tokens, the longest "
                "length here; another longest length means other documents."
            ] = None
    return list(said)


def loss_verdict(rows: list[SuiteRow]) -> str:
    """The loss at the longest length against that at the shortest, on the same documents; empty for other measures.

    A loss of texts has buckets of positions.
    """
    first, last = rows[0], rows[-1]
    before, after = losses(first), losses(last)
    if len(rows) < 2 or not last.detail.get("buckets") or before is None or after is None:
        return ""
    if not np.array_equal(before[1], after[1]):
        return ""
    bits = intervals.loss_difference(after[0], before[0], after[1]).through(lambda nats: nats * after[2])
    text = unit_of(first.unit).text
    ends = f"is {text(value_of(last))}, and {text(value_of(first))} at {_at(first)}"
    said = f"{titled(first.measure).capitalize()} at {_at(last)} {ends}: "
    if not bits.excludes(0.0):
        return said + f"not distinguishable on {plural(bits.n, 'document')}."
    more = "more" if bits.value > 0 else "less"
    low, high = sorted(abs(end) for end in (bits.low, bits.high))
    much = f"{text(low)} to {text(high)}" if math.isfinite(high) else f"at least {text(low)}"
    return said + f"{much} {more} on the same {plural(bits.n, 'document')}."


def _at(row: SuiteRow) -> str:
    times = f" ({row.times:.4g} times the training length)" if row.times is not None and row.times != 1 else ""
    return f"{row.length:,} tokens{times}"

"""Results of a suite side by side: paired intervals, and what is refused or marked instead of compared silently."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest
from html_page import Page
from suite_results import made_up

from miniwin.evaluation import intervals
from miniwin.evaluation.suite.comparison import Comparison, compare
from miniwin.evaluation.suite.comparison_page import render
from miniwin.evaluation.suite.comparison_table import cells, print_comparison
from miniwin.evaluation.suite.pairs import Difference, difference
from miniwin.evaluation.suite.result import SuiteResult
from miniwin.evaluation.suite.units import signed
from miniwin.specs import UserError


@pytest.fixture(scope="module")
def good() -> SuiteResult:
    return made_up("runs/good")


@pytest.fixture(scope="module")
def poor() -> SuiteResult:
    return made_up("runs/poor", skill=0.5, loss=1.5)


@pytest.fixture(scope="module")
def found(good: SuiteResult, poor: SuiteResult) -> Comparison:
    return compare([good, poor, made_up("runs/alike", skill=0.9, loss=1.4005)])


def changed(result: SuiteResult, key: str, **changes: Any) -> SuiteResult:
    rows = [row.model_copy(update=changes) if row.key == key else row for row in result.rows]
    return result.model_copy(update={"rows": rows})


def of(first: SuiteResult, other: SuiteResult, key: str) -> Difference:
    found = difference(first, other, key)
    assert found is not None
    return found


def test_a_share_is_paired_over_its_examples(good: SuiteResult, poor: SuiteResult) -> None:
    for key in ("recall@512", "last-write@512"):
        a, b = good[key].samples, poor[key].samples
        found = of(good, poor, key)
        assert found.interval == intervals.share_difference(b["right"], a["right"], a["asked"])  # type: ignore[arg-type]
        assert found.interval is not None and found.interval.value < 0 and found.said == "worse"
        assert of(poor, good, key).said == "better"


def test_a_loss_is_paired_over_its_documents_and_much_narrower_than_either(
    good: SuiteResult, poor: SuiteResult
) -> None:
    a, b = good["bits_per_byte@2048"], poor["bits_per_byte@2048"]
    found = of(good, poor, a.key).interval
    assert found is not None and a.value is not None and b.value is not None
    nats = [np.array(row.samples["nats"], dtype=float) for row in (a, b)]
    expected = intervals.loss_difference(nats[1], nats[0], a.samples["bytes"])  # type: ignore[arg-type]
    assert (found.low, found.high) == pytest.approx((expected.low / math.log(2), expected.high / math.log(2)))
    assert found.value == pytest.approx(b.value - a.value)
    assert found.high - found.low < 0.3 * (a.high - a.low)  # type: ignore[operator]
    nats_row = of(good, poor, "recall-nats@512").interval
    assert nats_row is not None and nats_row.n == 48


def test_what_has_no_pairs_goes_by_both_intervals(good: SuiteResult, poor: SuiteResult) -> None:
    a, b = good["prefill_seconds@512"], poor["prefill_seconds@512"]
    found = of(good, poor, a.key).interval
    assert found is not None and None not in (a.value, b.value, a.low, a.high, b.low, b.high)
    assert found.low == b.value - a.value - math.hypot(b.value - b.low, a.high - a.value)  # type: ignore[operator]
    spread = changed(good, "bits_per_byte@512", value=0.4, low=0.3, high=0.5)  # not what its samples give
    other = changed(poor, "bits_per_byte@512", value=0.6, low=0.5, high=0.7)
    found = of(spread, other, "bits_per_byte@512").interval
    assert found is not None and found.low == pytest.approx(0.2 - math.hypot(0.1, 0.1))
    half = changed(good, "recall@512", value=0.1, low=0.0, high=0.2)
    found = of(half, poor, "recall@512").interval
    assert found is not None and found.value == poor["recall@512"].value - 0.1  # type: ignore[operator]
    unknown = of(changed(good, "prefill_seconds@512", low=None, high=None), poor, a.key)
    assert unknown.said == "not distinguishable" and unknown.to_dict()["low"] is None


def test_a_row_that_could_be_paired_and_is_not_says_so(good: SuiteResult, poor: SuiteResult) -> None:
    assert {row.differences[0].unpaired for row in compare([good, poor]).rows if row.differences[0]} == {""}
    bare = changed(poor, "recall@512", samples={})
    found = compare([good, bare])
    row = next(row for row in found.rows if row.any.key == "recall@512")
    one = row.differences[0]
    assert one is not None and one.text == f"{one.said} (unpaired: no samples)" and one.text == cells(row)[-1]
    assert render(found).count("(unpaired: no samples)") == 1
    said = {row["key"]: row["differences"][0] for row in found.to_dict()["rows"]}
    assert said["recall@512"]["unpaired"] == "no samples" and said["needle@512"]["unpaired"] is None
    spread = changed(poor, "bits_per_byte@512", value=0.4, low=0.3, high=0.5)  # not what its samples give
    assert of(good, spread, "bits_per_byte@512").unpaired == "not a mean"


def trained_at(result: SuiteResult, length: int) -> SuiteResult:
    """The same result with every length of another training length."""
    rows = [
        row if row.length is None else row.model_copy(
            update={"key": f"{row.measure}@{row.length * 2}", "length": row.length * 2}
        )
        for row in result.rows
    ]  # fmt: skip
    return result.model_copy(update={"rows": rows, "model": result.model.model_copy(update={"trained_length": length})})


def test_other_training_lengths_are_named_and_how_to_mend_it(good: SuiteResult, poor: SuiteResult) -> None:
    found = compare([good, trained_at(poor, 256)])
    assert found.sentences[1] == (
        "A was measured for a training length of 128 tokens and B for 256, so 1x is another length in each: measure B "
        "again with miniwin eval MODEL --suite quick --trained-length 128 --out FOLDER, and compare FOLDER."
    )
    assert found.sentences[1] in Page(render(found)).words
    assert len(compare([good, poor]).sentences) == 1
    alone = trained_at(poor, 256)
    alone = alone.model_copy(update={"rows": [row for row in alone.rows if row.unit == "share"]})
    with pytest.raises(UserError, match=r"have no row in common: .*\. runs/good was measured for a training length"):
        compare([good.model_copy(update={"rows": good.rows[:1]}), alone])
    fixed = {**good.spec, "lengths": [512]}
    same = [one.model_copy(update={"spec": fixed}) for one in (good, trained_at(poor, 256))]
    assert len(compare(same).sentences) == 1  # multiples are not why


def test_exact_values_are_equal_or_not(good: SuiteResult, poor: SuiteResult) -> None:
    assert of(good, poor, "cache_bytes@128").said == "equal"
    more = changed(poor, "cache_bytes@128", value=1e6, low=1e6, high=1e6)
    assert of(good, more, "cache_bytes@128").said == "worse"


def test_the_same_result_twice_is_not_told_apart(good: SuiteResult) -> None:
    twice = compare([good, good])
    assert {one.said for row in twice.rows for one in row.differences if one} == {"not distinguishable", "equal"}


@pytest.mark.parametrize(
    ("key", "change", "reason"),
    [
        ("recall@512", {"setting": {"seed": 1}}, "other seed: 0 and 1"),
        (
            "recall@512",
            {"setting": {"seed": 0, "split": "test", "task": {"type": "recall", "num_pairs": 4}, "length": 512}},
            "other task.num_pairs: left out and 4",
        ),
        ("needle@512", {"samples": "depth"}, "other examples: their depth differs"),
        ("bits_per_byte@512", {"samples": "bytes"}, "other documents: their sizes differ"),
        ("cache_bytes@128", {"setting": {"dtype": "bfloat16"}}, "other dtype: float32 and bfloat16"),
        ("recall@512", {"unit": "nats/answer"}, "other unit: share and nats/answer"),
        ("recall@512", {"value": None, "low": None, "high": None}, "other left out"),
    ],
)
def test_what_is_not_the_same_is_not_compared(
    good: SuiteResult, poor: SuiteResult, key: str, change: dict[str, Any], reason: str
) -> None:
    if isinstance(name := change.get("samples"), str):  # the same value, from other examples or documents
        samples = poor[key].samples
        doubled = {one: [2.0 * (value or 0) for value in samples[one]] for one in {name, "nats"}}
        change = {"samples": {**samples, **doubled}}
    found = of(good, changed(poor, key, **change), key)
    assert found.interval is None and found.said == reason
    assert found.to_dict() == {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
        "verdict": None,
        "not_comparable": reason,
    }


def test_times_of_another_machine_are_not_compared(good: SuiteResult, poor: SuiteResult) -> None:
    faster = poor.model_copy(update={"machine": {"cpu": "another", "cores": 2}})
    assert of(good, faster, "prefill_seconds@128").said == "other cpu: AMD EPYC and another"
    assert of(good, faster, "prefill_exponent").interval is None
    assert of(good, faster, "recall@128").interval is not None  # answers do not depend on it
    assert of(good, poor.model_copy(update={"dtype": "bfloat16"}), "prefill_seconds@128").interval is None


def test_a_row_that_only_one_has_is_marked(good: SuiteResult, poor: SuiteResult) -> None:
    fewer = poor.model_copy(update={"rows": [row for row in poor.rows if row.measure != "needle"]})
    assert of(good, fewer, "needle@512") == Difference(None, "only the first has it")
    assert of(fewer, good, "needle@512") == Difference(None, "only the other has it")
    assert difference(good, poor, "copy@128") is None  # both left it out
    found = compare([good, fewer])
    assert found.sentences[0].endswith(", 3 rows not comparable.")


def test_several_models_are_compared_with_the_first(found: Comparison) -> None:
    poor, alike = found.sentences
    assert re.fullmatch(r"B against A: of 28 rows, worse in \d+, equal in 3, not distinguishable in \d+\.", poor)
    assert alike.startswith("C against A: of 28 rows, ") and "equal in 3" in alike
    measures = [row.any.measure for row in found.rows]
    assert len(set(measures)) == sum(a != b for a, b in zip(measures, [None, *measures], strict=False))


def test_the_json_says_all_and_comes_back(found: Comparison) -> None:
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [model["name"] for model in data["models"]] == ["A", "B", "C"] and data["kind"] == "suite-comparison"
    row = next(row for row in data["rows"] if row["key"] == "recall@2048")
    assert len(row["values"]) == 3 and len(row["differences"]) == 2
    assert row["differences"][0]["verdict"] == "worse" and row["differences"][0]["high"] < 0


def test_the_terminal_has_a_row_for_each_difference(found: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(found)
    text = capsys.readouterr().out
    assert "A  runs/good: 1,180,000 parameters, on cpu in float32" in text and "B - A" in text and "C - A" in text
    assert text.count("recall-nats") == 3 and "copy" not in text
    row = next(row for row in found.rows if row.any.key == "recall@2048")
    shown = cells(row)
    assert shown[:3] == ["recall", "2k", "48"] and len(shown) == 3 + 3 + 2 * 2 and shown[7] == "worse"
    assert "of twenty rows without any difference" in text


def test_a_difference_has_its_sign_and_its_unit_once() -> None:
    assert signed("share", 0.021, -0.005, 0.047) == "+2.1 [-0.5, +4.7] points"
    assert signed("bits/byte", -0.0124, -0.03, math.inf) == "-0.012 [-0.030, ?]"
    assert signed("seconds", 0.0012, -0.0003, 0.002) == "+1.2 ms [-300 us, +2 ms]"
    assert signed("bytes", -2048.0) == "-2 KiB"


def test_the_page_has_every_model_in_every_chart(found: Comparison) -> None:
    text = render(found)
    page = Page(text)
    assert len(page.all("script")) == 1 and not any("src" in attrs for _, attrs in page.elements)
    recall = text[text.index('id="length-recall-t"') :].split("</svg>")[0]
    assert recall.count("<polyline") == 3 and recall.count('class="span m2"') == 3
    assert page.words.count("A: runs/good") > 3 and all(said in page.words for said in found.sentences)
    assert text.count('<table class="sortable">') == 2  # the models, and the rows
    evil = "</title><script>alert(1)</script>"
    both = compare([made_up(evil), made_up(evil, skill=0.5)])
    assert "<script>alert" not in render(both)


def test_what_cannot_be_compared_is_refused(good: SuiteResult, poor: SuiteResult) -> None:
    with pytest.raises(UserError, match="got 1; expected at least two"):
        compare([good])
    with pytest.raises(UserError, match="got 7; expected at most 6"):
        compare([good] * 7)
    with pytest.raises(UserError, match=r"by the suite quick, and runs/x by quick, with seed 0 and 1; measure both"):
        compare([good, made_up("runs/x", seed=1)])
    longer = poor.model_copy(update={"suite": "long-context", "spec": {**poor.spec, "name": "long-context"}})
    with pytest.raises(UserError, match=r"suite quick, and runs/poor by long-context; measure both by one suite"):
        compare([good, longer])
    rows = [row.model_copy(update={"setting": {"seed": 5}}) for row in poor.rows if row.unit in ("share", "bits/byte")]
    with pytest.raises(UserError, match=r"runs/good and runs/poor have no row in common: .*other seed: 0 and 5"):
        compare([good, poor.model_copy(update={"rows": rows})])

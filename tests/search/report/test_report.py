"""The search report: what it says, that it needs nothing but itself, and that nothing in it can break out."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from html_page import Page
from hypothesis import given, settings
from hypothesis import strategies as st
from report_helpers import LENGTHS, confirmed, make_study, search_spec

from miniwin.display.formats import bytes_text, count_text, length_text, seconds_text
from miniwin.display.page.axes import BOTTOM, HEIGHT, TOP, Axis, Scale, linear_ticks, octave_ticks
from miniwin.display.page.svg import Point, Series, lines, scatter
from miniwin.search.claims import Claim, finish, take_work
from miniwin.search.creation import create_study
from miniwin.search.report import render, verdict, write_report
from miniwin.search.report.charts import front_chart
from miniwin.search.report.measures import measure
from miniwin.search.study import Study
from miniwin.search.study_data import StudyData, TrialRecord
from miniwin.specs import UserError, parse_spec
from miniwin.specs.objectives import Objective

LN2 = math.log(2)


@pytest.fixture
def study(tmp_path: Path) -> StudyData:
    return make_study(tmp_path)


# -- the page as a whole


def test_page_is_whole_and_stands_alone(study: StudyData) -> None:
    text = render(study)
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert [i for i, n in Counter(ids).items() if n > 1] == []
    for _, attrs in page.elements:
        assert "src" not in attrs and "srcset" not in attrs
        for name in ("href", "xlink:href", "action", "data", "poster"):
            if target := attrs.get(name):
                assert target.startswith("#") and target[1:] in ids, target
        assert not any(name.startswith("on") for name in attrs)
        for label in (attrs.get("aria-labelledby") or "").split():
            assert label in ids
    assert re.search(r"https?://", text) is None
    assert "@import" not in text and "url(" not in text
    assert not page.all("link") and not page.all("iframe") and not page.all("img")


def test_headings_go_down_step_by_step_and_what_scrolls_can_be_reached(study: StudyData) -> None:
    page = Page(render(confirmed(study, "better")))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    boxes = [attrs for attrs in page.all("div") if "scroll" in (attrs.get("class") or "").split()]
    assert len(boxes) == 6, "by length, layouts, differences, means, cost, trials"
    assert all(box["tabindex"] == "0" and box["role"] == "region" and box["aria-label"] for box in boxes)
    for image in page.all("svg"):
        named = image.get("aria-labelledby") or image.get("aria-label")
        assert image.get("aria-hidden") or (image["role"] == "img" and named)


def test_policy_allows_exactly_the_script_of_the_page(study: StudyData) -> None:
    page = Page(render(study))
    assert len(page.all("script")) == 1
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    fingerprint = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    assert policy is not None and policy.startswith("default-src 'none';") and f"'sha256-{fingerprint}'" in policy


def test_page_is_small_with_200_trials(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=200)
    text = render(study)
    assert len(text.encode()) < 1_000_000
    rows = [attrs for attrs in Page(text).all("tr") if (attrs.get("id") or "").startswith("trial-")]
    assert len(rows) == 200


def test_everything_from_a_study_is_escaped(tmp_path: Path) -> None:
    evil = "</title><script>alert('x')</script><img src=x onerror=\"alert(1)\">&amp;'\""
    study = make_study(tmp_path, trials=12)
    names = [evil, "plain"]
    spec = study.spec.model_copy(
        update={
            "name": evil,
            "objectives": study.spec.objectives,
            "constraints": [evil],
            "variables": {evil: parse_spec(_with_choice(names), "search").variables["choice"]},
        }
    )
    trials = [
        replace(t, params={evil: names[t.number % 2]}, reason=evil, layout=evil, run_folder=tmp_path / evil)
        for t in study.trials
    ]
    best = study.best
    assert best is not None
    folder = tmp_path / "run"
    folder.mkdir()
    about = {"machine": {"cpu": evil, "cores": 2, "torch": evil}, "code": evil, "data": {"source": evil}}
    (folder / "run.json").write_text(json.dumps(about))
    trials[best.number] = replace(trials[best.number], run_folder=folder)
    baseline = replace(study.baseline, reason=evil, state=evil) if study.baseline else None
    text = render(replace(study, spec=spec, trials=trials, baseline=baseline, folder=tmp_path / "evil"))
    page = Page(text)
    assert len(page.all("script")) == 1 and "alert" not in page.script
    assert not page.all("img")
    assert "<script>alert" not in text and 'onerror="' not in text
    assert page.words.count("<script>alert('x')</script>") > 5  # it is there to be read


def test_a_page_turns_no_line_around_and_can_be_written(tmp_path: Path) -> None:
    """A folder whose name is not UTF-8, and a reason that reads backwards or speaks to a terminal."""
    study = make_study(tmp_path / b"caf\xe9".decode("utf-8", "surrogateescape"), trials=12)
    trials = [replace(t, reason="\u202ereversed\x1b]0;owned\x07", layout="\x9b2J") for t in study.trials]
    text = render(replace(study, trials=trials))
    assert "caf\\udce9" in text and "\\u202ereversed\\x1b]0;owned\\x07" in text and "\\x9b2J" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", text)
    assert Page(text).text and text.encode()


def _with_choice(names: list[str]) -> dict[str, Any]:
    data = search_spec().model_dump(mode="json")
    data["variables"] = {"choice": {"choice": names}}
    data["set"] = {"pattern": "choice"}
    return data


def test_works_without_its_script(study: StudyData) -> None:
    page = Page(render(study))
    hidden = [(tag, attrs.get("class")) for tag, attrs in page.elements if "hidden" in attrs]
    assert {name for _, name in hidden} == {"filter", "copy"}  # only what needs the script to work
    assert page.all("details") and "pattern:" in page.words


# -- what it says


def test_verdict_names_winner_baseline_and_numbers(study: StudyData) -> None:
    best, baseline = study.best, study.baseline
    assert best is not None and baseline is not None
    first, second = verdict(study)
    ours, theirs = best.losses[4096] / LN2, baseline.losses[4096] / LN2
    assert first.startswith(f"Trial {best.number} ({best.layout}, window ")
    assert f"{ours:.3f} bits per byte at 4,096 tokens, 8 times its training length of 512" in first
    assert f"the baseline minimind-tiny, trained with the same 4 M tokens, needs {theirs:.3f}" in first
    assert first.endswith(f"{1 - ours / theirs:.1%} fewer for the winner.")
    assert second.startswith("At what was asked for: bits per byte at 4,096 tokens: ")
    assert "cache at 131,072 tokens: " in second
    page = Page(render(study))
    assert first in page.words and second in page.words


def test_verdict_says_when_the_baseline_is_better_or_equal(study: StudyData) -> None:
    best, baseline = study.best, study.baseline
    assert best is not None and baseline is not None
    better = replace(baseline, losses={n: best.losses[n] * 0.8 for n in LENGTHS})
    assert "the baseline is better, by 20.0%." in verdict(replace(study, baseline=better))[0]
    equal = replace(baseline, losses={n: best.losses[n] * 1.001 for n in LENGTHS})
    assert "no difference to speak of, on one seed." in verdict(replace(study, baseline=equal))[0]


def test_verdict_without_baseline_or_at_another_length(study: StudyData) -> None:
    assert "There is no baseline to compare with." in verdict(replace(study, baseline=None))[0]
    failed = replace(study.baseline, losses={}, values={}, reason="loss is not a number") if study.baseline else None
    assert (
        "The baseline has not been measured there (loss is not a number)."
        in verdict(replace(study, baseline=failed))[0]
    )
    short = [replace(t, losses={n: v for n, v in t.losses.items() if n <= 2048}) for t in study.trials]
    assert "at 2,048 tokens, 4 times its training length" in verdict(replace(study, trials=short))[0]


def test_verdict_of_a_study_that_goes_on(study: StudyData) -> None:
    best, trained = study.best, len(study.trained)
    assert best is not None and verdict(study)[0].startswith(f"Trial {best.number} ({best.layout}, ")
    assert ") won. It needs " in verdict(study)[0]
    more = study.spec.model_copy(update={"budget": study.spec.budget.model_copy(update={"trials": trained + 3})})
    said = verdict(replace(study, spec=more))[0]
    assert f") leads so far, after {trained} of {trained + 3} trials. It needs " in said


def test_study_without_a_completed_trial(study: StudyData) -> None:
    trials = [replace(t, state="running", values={}, losses={}, rungs=[]) for t in study.trials[:3]]
    page = Page(render(replace(study, trials=trials, baseline=None)))
    assert "No trial has completed yet, so there is no winner." in page.words
    assert "Too few: 0 trials completed, at least 8 are needed." in page.words
    assert "miniwin search promote" not in page.words
    assert Page(render(replace(study, trials=[], baseline=None)))


def test_missing_numbers_are_empty_not_nan(study: StudyData) -> None:
    holes: dict[int, Any] = {n: None if n == 8192 else math.nan if n == 2048 else 1.5 for n in LENGTHS}
    trials = [replace(t, losses=holes) if t.losses else t for t in study.trials]
    text = render(replace(study, trials=trials))
    assert not re.search(r"\b(nan|None|inf)\b", Page(text).words)


def test_header_counts_states_time_tokens_and_machine(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=30, several=False)
    best = study.best
    assert best is not None and best.run_folder is not None
    best.run_folder.mkdir(parents=True)
    about = {"machine": {"cpu": "Test CPU 9000", "cores": 2, "torch": "2.13.0", "python": "3.11.7"}, "code": "0.1.0"}
    (best.run_folder / "run.json").write_text(json.dumps({**about, "data": {"source": "python-stdlib"}}))
    states = Counter(t.state for t in study.trials)
    words = Page(render(study)).words
    for state in ("complete", "pruned", "infeasible", "duplicate"):
        assert states[state] and f"{state.title()} {states[state]}" in words
    trained = states["complete"] + states["pruned"]
    assert f"Trained {trained} of {trained} trials" in words
    assert f"Time, all trials {seconds_text(sum(t.seconds for t in study.trials))}" in words
    assert "Test CPU 9000, 2 cores, torch 2.13.0, Python 3.11.7" in words
    assert "4 M tokens of length 512" in words and "python-stdlib" in words and "miniwin 0.1.0" in words


def test_winner_comes_with_its_spec_and_the_command(tmp_path: Path) -> None:
    study = make_study(tmp_path / "a study")
    best = study.best
    assert best is not None and best.spec is not None
    words = Page(render(study)).words
    name = "period-window-ratio-winner"
    assert f"miniwin search promote '{tmp_path / 'a study'}' --trial {best.number} --name {name}" in words
    assert f"pattern: {best.spec.pattern}" in words


def test_study_at_home_is_named_not_located(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_HOME", str(tmp_path))
    study = make_study(tmp_path / "searches" / "period-window-ratio", trials=12)
    assert "miniwin search promote period-window-ratio --trial " in Page(render(study)).words


def test_trial_table_has_every_number(study: StudyData) -> None:
    text = render(study)
    trial = next(t for t in study.trials if t.state == "complete" and t is not study.best)
    assert trial.spec is not None and trial.run_folder is not None
    row = re.search(rf'<tr id="trial-{trial.number}" data-state="complete">(.*?)</tr>', text)
    assert row is not None
    cells = re.findall(r"<t[dh]([^>]*)>(.*?)</t[dh]>", row[1])
    shown = [cell for _, cell in cells]
    assert shown[:3] == [str(trial.number), "complete", trial.layout]
    assert [str(trial.params[name]) for name in ("ratio", "window", "factor")] == shown[4:7]
    for length in LENGTHS:
        assert f"{trial.losses[length] / LN2:.3f}" in shown
    assert f'data-v="{trial.spec.parameters()}"' in row[1]
    assert f"{trial.seconds:.1f}" in shown
    assert f"trials/{trial.number:012x}/run" in shown
    head = re.search(r'<table class="sortable" id="trials"><thead><tr>(.*?)</tr>', text)
    assert head is not None and head[1].count("<th") == len(cells)


# -- charts


def test_front_of_two_objectives(study: StudyData) -> None:
    chart = Page(front_chart(study, 8192))
    circles = [attrs["class"] for attrs in chart.all("circle") if (attrs["class"] or "").startswith("mark")]
    legend = 3
    assert circles.count("mark best") == 2 and circles.count("mark front") == len(study.front)
    assert len(circles) == len(study.completed) + legend
    assert study.best is not None and f"trial {study.best.number}" in chart.words
    assert any(attrs["class"] == "line front" for attrs in chart.all("polyline")) == (len(study.front) > 1)
    # The baseline is far off: drawn at the edge, with its value.
    assert study.baseline is not None
    assert f"baseline {study.baseline.losses[4096] / LN2:.3f} \u2191" in chart.words


def test_front_of_one_objective_is_against_cache_bytes(tmp_path: Path) -> None:
    study = make_study(tmp_path, several=False)
    chart = Page(front_chart(study, 8192))
    assert "cache at 8,192 tokens" in chart.words
    best = study.best
    assert best is not None and best.spec is not None
    assert bytes_text(best.spec.cache_bytes(8192)) in chart.words
    assert front_chart(study, None) == ""


def test_staircase_follows_the_better_corner(study: StudyData) -> None:
    def at(number: int, loss: float, size: float) -> TrialRecord:
        values = {"loss@4096": loss * LN2, "cache_bytes@131072": size}
        return TrialRecord(number, "complete", {}, values)

    trials = [at(0, 2.0, 1000.0), at(1, 1.9, 2000.0), at(2, 1.8, 3000.0), at(3, 2.0, 3000.0)]
    chart = Page(front_chart(replace(study, trials=trials, baseline=None), None))
    line = next(attrs["points"] for attrs in chart.all("polyline") if attrs["class"] == "line front")
    corners = [tuple(map(float, pair.split(","))) for pair in (line or "").split()]
    assert len(corners) == 5  # three trials and a corner between each two
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        assert (x0 == x1) != (y0 == y1) and x1 >= x0 and y1 >= y0  # right, then down (SVG's y grows downwards)


OUTLIERS = {
    "one trial": [(1.8, 3e3)],
    "the worst of the front far off": [(400.0, 1e3), (1.9, 2e3), (1.8, 3e3), (1.8, 3e3)],
    "half of the front far off": [(1e9, 500.0), (9e8, 1e3), (1.9, 2e3), (1.8, 3e3), (1.82, 3e3), (1.81, 4e3)],
    "far off in both": [(1e300, 1.0), (1.9, 2e3), (1.8, 1e18)],
    "what is no number": [(math.nan, 1e3), (1.9, math.inf), (1.8, 3e3), (1.7, 4e3), (math.inf, 1.0)],
    "all alike": [(1.8, 3e3), (1.8, 3e3)],
    "nothing to lose": [(0.0, 1e3), (0.0, 2e3)],
}


@pytest.mark.parametrize("case", OUTLIERS)
@pytest.mark.parametrize("goals", ["minimize loss@4096", "maximize recall@4096"])
def test_the_front_lies_within_the_axes(study: StudyData, case: str, goals: str) -> None:
    name, sign = goals.partition(" ")[2], (1 if goals.startswith("min") else -1)
    spec = search_spec(objectives=[goals, "minimize cache_bytes@131072"])
    trials = [
        TrialRecord(number, "complete", {}, {name: sign * up, "cache_bytes@131072": across})
        for number, (up, across) in enumerate(OUTLIERS[case])
    ]
    text = front_chart(replace(study, spec=spec, trials=trials, baseline=None), None)
    chart = Page(text[text.index("<svg") : text.index("</svg>") + 6])  # without the legend
    drawn = [(float(a["cx"] or ""), float(a["cy"] or "")) for a in chart.all("circle")]
    assert drawn
    for line in (attrs["points"] for attrs in chart.all("polyline")):
        corners = [tuple(map(float, pair.split(","))) for pair in (line or "").split()]
        assert {corners[0], corners[-1]} <= set(drawn), "it begins and ends at points that are drawn"
        drawn += corners
    (base,) = (a for a in chart.all("line") if a["class"] == "base" and a["y1"] == a["y2"])
    for x, y in drawn:
        assert float(base["x1"] or "") <= x <= float(base["x2"] or "") and TOP <= y <= HEIGHT - BOTTOM


def test_pruned_trials_are_in_the_learning_curves(tmp_path: Path) -> None:
    text = render(make_study(tmp_path, several=False))
    assert "While training" in text and 'class="line complete"' in text and 'class="mark pruned"' in text
    assert "While training" not in render(make_study(tmp_path))  # several objectives: no rungs, nothing to show


def test_charts_leave_out_what_cannot_be_drawn() -> None:
    axis = Axis("x", log=True)
    points = [Point(x, 1.0, "complete", "t") for x in (0.0, -1.0, math.nan, math.inf, 4.0, 8.0)]
    assert scatter(points, x=axis, y=Axis("y"), title="t", description="d", ident="i").count("<circle") == 2
    assert scatter(points[:4], x=axis, y=Axis("y"), title="t", description="d", ident="i") == ""
    assert lines([Series("best", [(1.0, math.nan)])], x=axis, y=Axis("y"), title="t", description="d", ident="i") == ""


def test_chart_texts_are_escaped() -> None:
    point = Point(1.0, 2.0, "best", "<b>&", label="<i>", href='#"><script>')
    chart = scatter([point], x=Axis("<x>"), y=Axis("<y>"), title="<t>", description="<d>", ident="i")
    assert not re.search(r"<(b|i|x|y|t|d|script)>", chart)
    page = Page(chart)
    assert "<x>" in page.words and page.all("a")[0]["href"] == '#"><script>'


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-6, 1e12), st.floats(1e-6, 1e12))
def test_linear_ticks_are_round_and_inside(low: float, width: float) -> None:
    high = low + width
    ticks = linear_ticks(low, high)
    if width < low * 1e-9:  # nothing to tell apart
        return
    assert 2 <= len(ticks) <= 11
    step = ticks[1] - ticks[0]
    tiny = 1e-6 * step
    assert all(low - tiny <= t <= high + tiny for t in ticks)
    assert all(abs((b - a) - step) <= 1e-3 * step for a, b in itertools.pairwise(ticks))
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-6)
    assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 1e-3


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-3, 1e12), st.floats(1e-8, 1e3), st.sampled_from(["loss", "recall", "cache_bytes", "parameters"]))
def test_ticks_can_be_told_apart(low: float, width: float, metric: str) -> None:
    """Of every axis, each tick says another number than what lies halfway to the next."""
    values = [low, low * (1 + width)]
    shown = measure(Objective("minimize", metric, 64 if metric != "parameters" else None), 64)
    for axis in (shown.axis(values), Axis("plain")):
        points = [Point(v, v, "complete", "") for v in values]
        chart = scatter(points, x=axis, y=axis, title="t", description="d", ident="i")
        texts = re.findall(r'<text class="tick"[^>]*text-anchor="end">([^<]*)<', chart)
        assert len(set(texts)) == len(texts) >= 1, texts


def test_ticks_have_the_digits_that_they_need() -> None:
    def ticks(*values: float, metric: str = "loss") -> list[str]:
        axis = measure(Objective("minimize", metric, 64), 64).axis(values)
        points = [Point(1.0, v, "complete", "") for v in values]
        chart = scatter(points, x=Axis("x"), y=axis, title="t", description="d", ident="i")
        return re.findall(r'<text class="tick"[^>]*text-anchor="end">([^<]*)<', chart)

    assert ticks(4.7701, 4.7709) == ["4.7702", "4.7704", "4.7706", "4.7708"]
    assert ticks(4.0, 5.0) == ["4.0", "4.5", "5.0"]
    assert ticks(4.77, 4.77 + 1e-13) == ticks(4.77)  # nothing to tell apart
    assert ticks(0.5001, 0.5003, metric="recall") == ["50.010%", "50.015%", "50.020%", "50.025%", "50.030%"]
    assert ticks(3.3278, 3.3287) == ["3.3280", "3.3285"]  # with three decimals the second would be 3.329
    close = ticks(2.0**30, 2.0**30 + 2.0**20, metric="cache_bytes")
    assert len(set(close)) == len(close) > 2


@settings(max_examples=100, deadline=None)
@given(st.floats(1, 1e12), st.floats(2, 1e6))
def test_octave_ticks_are_powers_of_two_inside(low: float, ratio: float) -> None:
    high = low * ratio
    ticks = octave_ticks(low, high)
    assert ticks and len(ticks) <= 11
    assert all(low * 0.999 <= t <= high * 1.001 for t in ticks)
    if math.floor(math.log2(high)) - math.ceil(math.log2(low)) >= 1:
        assert len(ticks) <= 6 and all(math.log2(t).is_integer() for t in ticks)


def test_scale_of_a_single_value_has_room() -> None:
    for log in (False, True):
        scale = Scale([4096.0], 0.0, 100.0, log)
        assert scale(4096.0) == pytest.approx(50.0)
        assert scale.limits[0] < 4096.0 < scale.limits[1]
    assert Scale([0.0], 0.0, 1.0)(0.0) == pytest.approx(0.5)


# -- writing it


def make_folder(folder: Path) -> Study:
    """A real study folder: two trials and a baseline, taken and ended as a worker does, without training."""
    spec = search_spec(several=False, train="tiny.yaml")
    (folder / "tiny.yaml").write_text(
        "kind: train\nformat: 1\nname: tiny\ndata: {source: python-stdlib}\ntokens: 4e6\n"
    )
    study = create_study(spec, folder, out=folder / "study")
    for level in (3.0, 1.5, 1.4):
        claim = take_work(study, "test")
        assert isinstance(claim, Claim)
        claim.outcome.losses = {n: level for n in LENGTHS}
        claim.outcome.values = {"loss@4096": level}
        claim.outcome.tokens, claim.outcome.seconds = 4_000_000, 12.5
        claim.outcome.end("complete")
        finish(study, claim)
        claim.entry.let_go()
    return study


def test_write_report_of_a_study_folder(tmp_path: Path) -> None:
    study = make_folder(tmp_path)
    path = write_report(study.folder)
    assert path == study.folder / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    best = f"{1.4 / LN2:.3f} bits per byte at 4,096 tokens"
    assert best in page.words and "All 2 trials" in page.words
    path.write_text("old")
    assert write_report(study.folder) == path and path.read_text().startswith("<!DOCTYPE html>")
    assert [p.name for p in path.parent.glob("*report*")] == ["report.html"]  # nothing left over
    elsewhere = tmp_path / "new" / "page.html"
    assert write_report(study.folder, elsewhere) == elsewhere and elsewhere.is_file()
    with pytest.raises(UserError, match=r"--out .* is a folder; expected the name of a file, such as .*report\.html"):
        write_report(study.folder, tmp_path)
    with pytest.raises(UserError, match=r"could not be written \(.*\); choose another place"):
        write_report(study.folder, elsewhere / "below-a-file.html")


def test_a_report_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_folder(tmp_path)
    path = write_report(study.folder)
    before = path.read_text()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match=r"could not be written \(No space left on device\); make room there"):
        write_report(study.folder)
    assert path.read_text() == before


def test_write_report_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no study"):
        write_report(tmp_path)


# -- numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (bytes_text(640), "640 B"),
        (bytes_text(2.1 * 2**20), "2.1 MiB"),
        (bytes_text(2**30), "1 GiB"),
        (bytes_text(2**20 - 1), "1 MiB"),
        (bytes_text(0), "0 B"),
        (count_text(4096), "4,096"),
        (count_text(1_180_000), "1.18 M"),
        (count_text(999_999), "1 M"),
        (count_text(120e6), "120 M"),
        (count_text(12_345), "12.3 k"),
        (length_text(512), "512"),
        (length_text(4096), "4k"),
        (length_text(2**20), "1M"),
        (length_text(5000), "5000"),
        (seconds_text(8.44), "8.4 s"),
        (seconds_text(59.99), "1 min 00 s"),
        (seconds_text(3599.7), "1 h 00 min"),
        (seconds_text(7500), "2 h 05 min"),
    ],
)
def test_numbers_as_people_read_them(text: str, value: str) -> None:
    assert text == value


def test_every_objective_can_be_shown() -> None:
    from miniwin.specs.objectives import METRICS, NATS, find

    for name in (*METRICS, "recall", "last-write", "last-write" + NATS):
        row = find(name)
        assert row is not None
        direction: Any = "maximize" if row.better == "higher" else "minimize"
        for at, text in ((4096, " at 4,096 tokens"), ("16x", " at 16x (8,192 tokens)")):
            shown = measure(Objective(direction, name, at if row.by_length else None), 512)
            assert shown.lower_is_better == (direction == "minimize")
            assert shown.text(0.5) and shown.title and (text in shown.title) == row.by_length
    assert measure(Objective("minimize", "loss", 512), 512).factor == pytest.approx(1 / LN2)

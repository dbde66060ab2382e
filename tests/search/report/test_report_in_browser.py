"""The report in a real browser, on a phone and on a desk: nothing sticks out, and every section is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from browser import browser, measured_in_browser
from report_helpers import confirmed, make_study

from miniwin.search.report import render

WIDTHS = (390, 1280)


def test_no_page_scrolls_sideways_and_charts_can_be_read(tmp_path: Path) -> None:
    browser()
    one = confirmed(make_study(tmp_path, trials=40, several=False), "better")
    long = "a-name-without-any-place-to-break-it-" * 6
    wordy = [replace(t, reason=long, params={**t.params, "window": long}) for t in one.trials]
    pages = {
        "one.html": one,
        "two.html": confirmed(make_study(tmp_path, trials=40), "not distinguishable"),
        "wordy.html": replace(one, trials=wordy, folder=tmp_path / long),
    }
    for name, study in pages.items():
        (tmp_path / name).write_text(render(study), encoding="utf-8")
    found = measured_in_browser([tmp_path / name for name in pages], WIDTHS)
    for (name, width), page in found.items():
        assert page["inner"] <= width and page["scroll"] <= page["inner"], f"{name} is wider than {width} pixels"
        assert page["out"] == [] and page["small"] == 0, (name, width, page)
        wanted = {"What to do next", "Which variable mattered", "Layouts of the best", "Confirmed on unseen text"}
        assert wanted | {"What it cost", "The winner"} <= set(page["sections"]), (name, page["sections"])
        assert ("While training" in page["sections"]) == (name != "two.html")

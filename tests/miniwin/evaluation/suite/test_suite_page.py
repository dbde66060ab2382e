"""The page of a suite: every row with its interval and chance, charts that can be read without seeing, no network."""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape
from pathlib import Path

import pytest
from html_page import Page
from suite_results import made_up

from miniwin.display.page.axes import BOTTOM, HEIGHT, TOP
from miniwin.evaluation.suite.charts import Shown, by_length, by_position, heat, interval_text, spread
from miniwin.evaluation.suite.page import render, write_page
from miniwin.evaluation.suite.result import SuiteResult
from miniwin.evaluation.suite.units import unit_of
from miniwin.evaluation.suite.verdicts import verdicts
from miniwin.specs import UserError


@pytest.fixture(scope="module")
def result() -> SuiteResult:
    return made_up()


def changed(result: SuiteResult, key: str, **changes: object) -> SuiteResult:
    rows = [row.model_copy(update=changes) if row.key == key else row for row in result.rows]
    return result.model_copy(update={"rows": rows})


def table_of(text: str) -> list[list[str]]:
    body = text[text.index('<table class="sortable">') :].split("</table>")[0]
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", body)]


def test_the_page_stands_alone_and_its_script_is_the_only_one(result: SuiteResult) -> None:
    text = render(result)
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>") and len(page.all("script")) == 1
    fingerprint = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and f"script-src 'sha256-{fingerprint}'" in policy and "default-src 'none'" in policy
    assert not any("src" in attrs or "href" in attrs for _, attrs in page.elements)
    assert not re.search(r"url\(|@import|https?://", text)
    idents = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(set(idents)) == len(idents)
    for chart in [attrs for attrs in page.all("svg") if attrs.get("role") == "img"]:
        assert all(name in idents for name in (chart["aria-labelledby"] or "").split())


def test_the_page_says_on_which_documents_a_loss_rests(result: SuiteResult) -> None:
    rows = [
        row.model_copy(update={"setting": {**row.setting, "tokens": 2048}}) if row.detail.get("buckets") else row
        for row in result.rows
    ]
    found = Page(render(result.model_copy(update={"rows": rows}))).words
    assert found.count("Bits per byte are of documents longer than 2,048 tokens, the longest length here; another") == 1
    assert "are of documents longer" not in Page(render(result)).words  # a result that does not say


def test_the_table_has_every_row_with_interval_n_and_chance(result: SuiteResult) -> None:
    heads, *rows = table_of(render(result))
    assert heads[:7] == ["measure", "length", "value", "95 % interval", "n", "of", "chance"]
    assert len(rows) == len(result.rows)
    for row in result.rows:
        text = unit_of(row.unit).text
        length = "" if row.length is None else {2048: "2k"}.get(row.length, str(row.length))
        shown = next(cells for cells in rows if cells[0] == row.measure.replace("_", " ") and cells[1] == length)
        assert shown[2:5] == ["" if row.value is None else text(row.value), interval_text(row), f"{row.n:,}"]
        assert shown[6] == ("none" if row.chance is None else text(row.chance))
        assert shown[-1] == escape(row.note)


def test_an_interval_is_exact_unknown_or_has_two_limits(result: SuiteResult) -> None:
    assert interval_text(result["cache_bytes@128"]) == "exact"
    assert re.fullmatch(r"\[\d+\.\d%, \d+\.\d%\]", interval_text(result["recall@2048"]))
    few = changed(result, "recall@2048", low=None, high=None)
    assert interval_text(few["recall@2048"]) == "[?, ?]"
    assert interval_text(result["copy@128"]) == ""
    assert Page(render(few)).text


def test_charts_say_their_numbers_in_words_and_draw_intervals_and_chance(result: SuiteResult) -> None:
    shown = Shown(result, "a model")
    chart = by_length([shown], "recall")
    assert chart.count("<circle") == chart.count('class="span m0"') == 3 and chart.count('class="band m0"') == 1
    assert chart.count('class="rule"') == 2 and ">chance</text>" in chart and ">trained at</text>" in chart
    for length in (128, 512, 2048):
        row = result[f"recall@{length}"]
        assert f"{unit_of('share').text(row.value)} {interval_text(row)} at {length:,}" in chart
    assert "Chance is 6.2%" in chart and "48 examples at each length" in chart
    assert ">0.0%</text>" in chart and ">100.0%</text>" in chart  # the axis has all shares, whatever was found
    loss = by_length([shown], "bits_per_byte")
    ends = [float(end) for span in re.findall(r'd="M[\d.]+ ([-\d.]+)V([-\d.]+)"', loss) for end in span]
    assert len(ends) == 6 and all(TOP < end < HEIGHT - BOTTOM for end in ends)  # intervals stay in the picture
    few = by_length([Shown(changed(result, "recall@512", low=None, high=None), "a model")], "recall")
    assert few.count("<circle") == 3 and few.count('class="span m0"') == 2
    assert by_length([shown], "copy") == ""  # left out: nothing to draw
    both = by_length([shown, Shown(made_up("other", skill=0.5), "another", "m1")], "recall")
    assert both.count("polyline") == 2 and both.count("<li>") == 2 and "another" in both and "band" not in both


def test_the_page_of_one_model_shows_positions_documents_and_depths(result: SuiteResult) -> None:
    shown = Shown(result, "a model")
    assert by_position([shown], "bits_per_byte").count("<circle") == 5  # 0-128, 128-256, ... 1024-2048
    documents = spread(shown, "bits_per_byte")
    assert documents.count("<circle") == 3 * 24 and documents.count("<rect") == 3
    cells = heat(shown, "needle")
    depths = [cell for length in (128, 512, 2048) for cell in result[f"needle@{length}"].detail["depths"]]
    assert cells.count('class="heat"') == len(depths) and "of 48 examples" not in cells
    assert sum(cell["n"] for cell in depths) == 3 * 48
    for drawn in (by_position([shown], "recall"), spread(shown, "recall"), heat(shown, "recall")):
        assert drawn == ""  # it has none of these


def test_an_empty_cell_of_the_heat_map_is_dashed(result: SuiteResult) -> None:
    fewer = result["needle@512"].detail["depths"][1:]
    cells = heat(Shown(changed(result, "needle@512", detail={"depths": fewer}), "a model"), "needle")
    assert cells.count('class="heat none"') == 1 and "no example" in cells


def test_the_sentences_say_what_holds_beyond_the_training_length(result: SuiteResult) -> None:
    first, second = verdicts(result)
    assert re.fullmatch(
        r"Bits per byte at 2,048 tokens \(16 times the training length\) is \d\.\d{3}, and \d\.\d{3} at 128 tokens: "
        r"0\.0\d\d to 0\.0\d\d more on the same 24 documents\.",
        first,
    )
    assert re.match(r"Better than chance at the longest length: recall \(\d+\.\d% at 2,048, 16x\), needle \(", second)
    flat = made_up(skill=1.5)  # its loss does not depend on the length
    assert verdicts(flat)[0].endswith("not distinguishable on 24 documents.")
    blind = verdicts(changed(result, "recall@2048", blind=0.999))
    assert "recall" not in blind[1]
    assert re.match(
        r"Not known to be better than a part of the task at the longest length: recall \(\d+\.\d% at 2,048, 16x, of "
        r"which a part alone gives 99\.9%\)\.",
        blind[2],
    )
    guessing = verdicts(made_up(skill=0.01))
    assert guessing[1].startswith("Not known to be better than chance at the longest length: recall (")


def test_nothing_of_a_result_breaks_out() -> None:
    evil = "</title><script>alert('x')</script><img src=x onerror=\"alert(1)\">&amp;'\"\x1b[31m\u202e"
    result = made_up(evil)
    result = changed(result, "copy@128", note=evil, of=evil, unit=evil)
    result = result.model_copy(update={"spec": {"name": evil}, "suite": evil, "machine": {"cpu": evil}})
    text = render(result)
    page = Page(text)
    assert len(page.all("script")) == 1 and "alert" not in page.script and not page.all("img")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)


def test_writing_the_page(tmp_path: Path, result: SuiteResult) -> None:
    path = write_page(result, tmp_path / "new" / "page.html")
    assert path.read_text().startswith("<!DOCTYPE html>") and path.stat().st_size < 200_000
    assert [one.name for one in path.parent.iterdir()] == ["page.html"]
    with pytest.raises(UserError, match=r"is a folder; expected the name of a file, such as .*suite\.html"):
        write_page(result, tmp_path)

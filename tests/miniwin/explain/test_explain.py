"""`miniwin explain` with a length, a shift or a page: what it prints, its JSON, and the file it writes."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers import GLOBAL, attention, tiny_spec
from typer.testing import CliRunner

from miniwin.cli import app
from miniwin.explain import explanation, groups, layer_numbers, sees
from miniwin.explain.layer_strip import strip
from miniwin.explain.page import figures, page
from miniwin.explain.soundness import soundness
from miniwin.specs import ModelSpec, UserError, load_spec

SHAPES = {
    "S": attention(8, {"type": "p-rope", "period": 8, "harmonic": False}),
    "R": attention(None, {"type": "rope"}),
    "G": attention(None, {"type": "nope"}),
}


def spec_file(folder: Path) -> Path:
    path = folder / "model.yaml"
    path.write_text(json.dumps(tiny_spec(SHAPES).model_dump(mode="json")), encoding="utf-8")
    return path


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["explain", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_without_a_length_nothing_is_judged(tmp_path: Path) -> None:
    shown = run(str(spec_file(tmp_path)))
    assert "is it sound" not in shown and "verdict" not in shown
    assert "soundness" not in json.loads(run(str(spec_file(tmp_path)), "--json"))


def test_lengths_are_written_as_for_eval(tmp_path: Path) -> None:
    path = str(spec_file(tmp_path))
    asked = [path, "--length", "8k,1e6", "--length", "100", "--trained-length", "4k", "--json"]
    plain = [path, "--length", "8192", "--length", "1000000", "--length", "100", "--trained-length", "4096", "--json"]
    assert run(*asked) == run(*plain)
    with pytest.raises(UserError, match="--length: expected a number of tokens such as 2048, 16k or 1M, got 'long'"):
        run(path, "--length", "long")


def test_with_a_length_each_layer_is_judged(tmp_path: Path) -> None:
    shown = flat(run(str(spec_file(tmp_path)), "--length", "1000"))
    assert "is it sound at 1,000 tokens? (trained at 1,000, as nothing else was said)" in shown
    for text in ("p-rope, published, theta 10000 (layers 0, 3): outside: straddling", "no positions at all"):
        assert text in shown
    for name in ("aliasing", "stability", "cosine sum", "precision", "angle error", "trained turns", "phases"):
        assert name in shown
    shown = flat(run(str(spec_file(tmp_path)), "--length", "1000", "--trained-length", "100"))
    assert "(trained at 100)" in shown and "their angles beyond it are new" in shown


def test_the_json_has_the_same(tmp_path: Path) -> None:
    file = str(spec_file(tmp_path))
    facts = json.loads(run(file, "--json", "--length", "1000", "--shift", "--angle-dtype", "float16"))
    assert facts["soundness"]["1000"] == json.loads(json.dumps(soundness(tiny_spec(SHAPES), 1000, dtype="float16")))
    assert [row["block"] for row in facts["shift"]] == ["S", "R", "G"]
    assert facts["shift"][0]["mean"] > 0.05 > facts["shift"][1]["max"]
    facts = json.loads(run(file, "--json", "--length", "100000", "--angle-dtype", "float16"))
    error = next(c for c in facts["soundness"]["100000"][1]["criteria"] if c["name"] == "angle error")
    assert error["value"] is None and error["verdict"] == "outside", "infinity has no JSON"


def test_shift_prints_a_table(tmp_path: Path) -> None:
    shown = flat(run(str(spec_file(tmp_path)), "--shift"))
    assert "the same content, some tokens later" in shown and "8 tokens 1 to 8" in shown
    assert re.search(r"S p-rope, published, theta 10000 8 tokens 1 to 8 \d+\.\d% \d+\.\d%", shown)


class Page(HTMLParser):
    """Collects text and refuses what would leave the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.open: list[str] = []
        self.tags: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert tag not in ("script", "link", "img", "iframe"), tag
        assert not {"src", "href", "onload"} & {name for name, _ in attrs}
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_one_small_file_by_itself(tmp_path: Path) -> None:
    out = tmp_path / "model.html"
    run(str(spec_file(tmp_path)), "--length", "4096", "--length", "131072", "--shift", "--html", str(out))
    html = out.read_text(encoding="utf-8")
    assert len(html) < 1_000_000 and "http" not in html.replace("http-equiv", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.html", "model.yaml"], "no temporary file stays"
    found = Page(html)
    assert not found.open and found.tags.count("svg") == 1 + 2, "the strip, and one plot for each rotary block"
    text = " ".join(found.text)
    for part in ("Is it sound at 4,096 tokens?", "Is it sound at 131,072 tokens?", "131,072", "straddling", "nope"):
        assert part in text
    assert 'class="text outside"' in html and "nan" not in html


def test_the_page_without_lengths_uses_the_usual_ones(tmp_path: Path) -> None:
    out = tmp_path / "model.html"
    shown = run(str(spec_file(tmp_path)), "--html", str(out))
    assert "is it sound" not in shown and str(out) in shown.replace("\n", "")
    assert "Is it sound at 1,048,576 tokens?" in out.read_text(encoding="utf-8")


def test_a_page_goes_over_an_older_one_but_not_into_a_folder(tmp_path: Path) -> None:
    file, out = str(spec_file(tmp_path)), tmp_path / "model.html"
    out.write_text("old", encoding="utf-8")
    run(file, "--html", str(out))
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    with pytest.raises(UserError, match=r"--html: .* is a folder; expected a file to write, such as"):
        run(file, "--html", str(tmp_path))
    with pytest.raises(UserError, match=r"--html: there is no folder .*nowhere; make it first"):
        run(file, "--html", str(tmp_path / "nowhere" / "model.html"))


def test_a_trained_length_needs_a_length(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--trained-length: got it without --length"):
        run(str(spec_file(tmp_path)), "--trained-length", "100")


def test_what_comes_from_outside_is_escaped() -> None:
    spec = tiny_spec(SHAPES)
    facts = {**explanation(spec, [64]), "name": "<b>&", "soundness": {64: soundness(spec, 64)}}
    html = page(spec, facts)
    assert "<b>" not in html and "&lt;b&gt;&amp;" in html


def test_what_a_layer_sees() -> None:
    def shown(**fields: int) -> str:
        window = fields.pop("window", None)
        spec: ModelSpec = tiny_spec({"S": attention(window, {"type": "rope"}, **fields)})
        return sees(spec.layer_specs[0].attention)

    assert (shown(), shown(window=8), shown(chunk=16)) == ("all", "8 keys", "chunks of 16")
    assert shown(window=8, keep_first=2) == "8 keys + first 2"


def test_the_period_of_what_follows_learned_vectors() -> None:
    position = {"type": "learned", "num_positions": 4, "then": {"type": "p-rope", "period": 16}}
    spec = tiny_spec({"S": attention(8, position)})
    row = explanation(spec, [64])["layers"][0]
    assert (row["period"], row["periods"]) == (16, [16])
    assert {c["name"] for c in soundness(spec, 64)[0]["criteria"]} >= {"window in period", "phases"}


def test_several_periods_are_in_the_table() -> None:
    for position in ({"periods": [32, 5]}, {"periods": [32, 5], "gate": True}):
        spec = tiny_spec({"S": attention(8, {"type": "p-rope", **position}), "G": attention(None, GLOBAL)})
        facts = explanation(spec, [64])
        assert (facts["layers"][0]["period"], facts["layers"][0]["periods"]) == (32, [5, 32])
        assert facts["layers"][1]["periods"] == []
        facts |= {"soundness": {64: soundness(spec, 64)}}
        assert "5/32" in page(spec, facts)
    assert "5/32" in run("miniwin-1m", "--set", "blocks.S.attention.position={type: p-rope, periods: [32, 5]}")


def test_small_words() -> None:
    assert layer_numbers([0, 1, 2, 4, 6, 7]) == "0-2, 4, 6-7" and layer_numbers([3]) == "3"
    assert figures({"value": 4096, "bound": float("inf")}) == ("4,096", "inf")
    assert figures({"value": 0.123456, "bound": 62831.85}) == ("0.123", "62,832")


# -- equal layers


def test_equal_layers_are_one_row() -> None:
    rows = explanation(load_spec("llama-3-8b"), [512])["layers"]
    assert len(rows) == 32 and [numbers for numbers, _ in groups(rows)] == [list(range(32))]
    shown = run("llama-3-8b")
    (row,) = [line for line in shown.splitlines() if "rope" in line]
    assert row.split()[:3] == ["0-31", "32", "G"] and "218,112,000" in row and "32.0 MiB" in row
    assert "params and cache are of one layer" in shown and "8,030,261,248" in shown
    assert len(json.loads(run("llama-3-8b", "--json"))["layers"]) == 32


def test_layers_of_several_kinds_are_a_row_each(tmp_path: Path) -> None:
    rows = explanation(load_spec("miniwin-1m"), [512])["layers"]
    assert [(numbers, row["block"]) for numbers, row in groups(rows)] == [([0, 1, 2, 3, 5, 6], "S"), ([4, 7], "G")]
    assert layer_numbers([0, 2, 4], 2) == "0, 2, ..." and layer_numbers([0, 2], 2) == "0, 2"
    shown = run("llama-4-scout")
    assert "0-2, 4-6, ... " in shown and "2,202,101,760" in shown and "107,769,861,120" in shown, "no number is cut"
    single = run(str(spec_file(tmp_path)), "--set", "num_layers=3", "--set", "pattern=SRG")
    assert "of one layer" not in single


def test_the_strip_has_a_bar_for_each_layer() -> None:
    facts = explanation(load_spec("llama-4-scout"), [4096, 1 << 20])
    drawn = Page(strip(facts))
    assert drawn.tags.count("rect") == 48 and drawn.tags.count("li") == 2 and not drawn.open
    heights = [float(height) for height in re.findall(r'height="([0-9.]+)" rx', strip(facts))]
    assert heights[3] == 72 and 0.5 * 72 < heights[0] < 0.9 * 72 and heights[:4] * 12 == heights
    assert "C, 36 layers: 0-2, 4-6" in "".join(drawn.text) and "sees chunks of 8192" in "".join(drawn.text)
    evil = {**facts, "layers": [{**row, "encoding": "<script>"} for row in facts["layers"]]}
    assert "<script>" not in strip(evil) and Page(strip(evil)).tags.count("rect") == 48
    one = explanation(load_spec("miniwin-tiny"), [1])
    assert 'height="72.0"' in strip(one) and "nan" not in strip(one)

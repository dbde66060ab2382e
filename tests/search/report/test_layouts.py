"""Layouts as strips: a box for each layer, for people who see them and for those who do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from html_page import Page
from report_helpers import make_study

from miniwin.search.report import layouts
from miniwin.search.report.layouts import said, section, strip
from miniwin.specs import load_model_spec, parse_spec


def test_a_strip_has_a_box_for_each_layer_and_a_sentence(tmp_path: Path) -> None:
    best = make_study(tmp_path).best
    assert best is not None and best.spec is not None
    drawn = Page(strip(best))
    kinds = [attrs["class"] for attrs in drawn.all("rect")]
    assert kinds == ["layer whole" if letter == "G" else "layer local" for letter in best.spec.layout]
    assert drawn.words.count("S") >= best.spec.layout.count("S")
    (svg,) = drawn.all("svg")
    assert svg["role"] == "img" and svg["aria-label"] == said(best.spec)
    assert "layer 0: S, a window of 64, p-rope" in drawn.text


def test_what_is_said_of_a_layout() -> None:
    tiny, plain = load_model_spec("miniwin-tiny"), load_model_spec("minimind-tiny")
    places = [str(place) for place, letter in enumerate(tiny.layout) if letter == "G"]
    assert said(tiny).startswith(f"{tiny.layout}: {len(tiny.layout)} layers, of which ")
    assert all(place in said(tiny) for place in places) and said(tiny).endswith("the whole context")
    assert said(plain) == f"{plain.layout}: {len(plain.layout)} layers, of which all see the whole context"


def test_a_layer_whose_heads_differ_is_not_whole(tmp_path: Path) -> None:
    best = make_study(tmp_path).best
    assert best is not None
    data = load_model_spec("miniwin-tiny").model_dump(mode="json")
    data["blocks"]["G"]["attention"]["windows"] = [None, 32]
    mixed = parse_spec(data, "model")
    drawn = Page(strip(replace(best, spec=mixed)))
    assert {attrs["class"] for attrs in drawn.all("rect")} == {"layer local"}
    first = mixed.layout.index("G")
    assert f"layer {first}: G, all in 1 of 2 KV heads, 32 keys in 1, nope" in drawn.text
    assert said(mixed).endswith("of which none sees the whole context")


def test_the_best_come_first_and_the_baseline_last(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=60)
    page = Page(section(study))
    links = [attrs["href"] for attrs in page.all("a")]
    assert links == [*(f"#trial-{trial.number}" for trial in study.ranked), "#baseline"]
    assert page.all("tr")[1]["class"] == "best"
    one = make_study(tmp_path, trials=60, several=False)
    assert len(Page(section(one)).all("a")) == layouts.MOST + 1
    assert section(replace(study, trials=[], baseline=None)) == ""
    lost = replace(study, trials=[replace(trial, spec=None) for trial in study.trials])
    assert section(lost) == "", "specs that cannot be read are not drawn"

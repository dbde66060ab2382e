"""The benchmark of the server: what it makes of samples, and its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving import page
from benchmarks.serving.soak import GROWTH, trend
from benchmarks.serving.throughput import asking, at_once, one_by_one, prompts, spread


def test_a_leak_is_told_from_memory_that_fills_and_then_stays() -> None:
    fills = [(float(t), min(t, 40) * 10 + 100 + t % 3) for t in range(120)]
    leaks = [(float(t), 300 + 2 * t + t % 3) for t in range(120)]
    assert abs(trend(fills)) < 0.01
    assert trend(leaks) == pytest.approx(120 / (300 + 180), rel=0.02) and trend(leaks) > GROWTH
    with pytest.raises(SystemExit, match="expected 3"):
        trend(fills[:3])


def test_prompts_differ_in_length_and_none_begins_like_another() -> None:
    some = prompts(8, 100) + prompts(8, 108)
    assert len({text.partition("\n")[0] for text in some}) == 16
    assert len({len(text) for text in some[:8]}) == 8
    assert [text.partition("\n")[2] for text in some[:8]] == [text.partition("\n")[2] for text in some[8:]]


def test_both_ways_ask_for_every_text() -> None:
    for way in (one_by_one, at_once):
        asked: list[tuple[int, str]] = []
        assert way(lambda seed, text, asked=asked: asked.append((seed, text)) or 3, ["a", "b", "c"]) == 9
        assert sorted(asked) == [(0, "a"), (1, "b"), (2, "c")]

    def fails(seed: int, text: str) -> int:
        raise SystemExit("refused")  # which a thread drops silently

    with pytest.raises(SystemExit, match="3 of 3 sessions failed"):
        at_once(fails, ["a", "b", "c"])


def test_ratios_are_of_the_same_repeat() -> None:
    assert spread([6.0, 8.0, 9.0], [2.0, 1.0, 3.0]) == {"median": 3.0, "least": 3.0, "most": 8.0}


def soaked(wrong: list[str], growth: float) -> dict[str, Any]:
    counts = {"killed": 3, "talk": 4}
    return {
        "model": "m@1.0.0",
        "minutes": 30.0,
        "sessions": counts,
        "wrong": wrong,
        "tokens": {"generated": 5},
        "memory": [(0.0, 3e8), (1.0, 4e8)],
        "growth": growth,
        "bounded": growth <= GROWTH,
    }


def test_a_soak_that_went_wrong_says_so() -> None:
    assert "0 went wrong" in page.words("soak", soaked([], 0.01)) and "+1.0%: bounded" in page.words(
        "soak", soaked([], 0.01)
    )
    said = page.words("soak", soaked(["talk: KeyError: x"], 0.3))
    assert "1 went wrong: talk: KeyError: x" in said and "NOT BOUNDED" in said


def test_the_page_is_what_the_results_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = sorted(page.RESULTS.glob("*.json"))
    assert kept, "nothing has been measured"
    wanted = page.PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(page, "PAGE", tmp_path / "README.md")
    page.write_page()
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == wanted
    for path in kept:
        found = json.loads(path.read_text(encoding="utf-8"))
        if "ratio" in found:
            rates = found["tokens_per_second"]
            assert found["ratio"] == spread(rates["at once"], rates["one by one"])


def test_the_client_is_asked_for_both_kinds_of_answer() -> None:
    given: list[dict[str, Any]] = []

    class Part:
        def __init__(self, tokens: int | None) -> None:
            self.usage = None if tokens is None else type("Usage", (), {"completion_tokens": tokens})

    class Client:
        completions: Any

        def create(self, **options: Any) -> Any:
            given.append(options)
            return [Part(None), Part(7)] if options.get("stream") else Part(5)

    client: Any = Client()
    client.completions = client
    assert asking(client, "m", 9, False, 0.5)(1, "x") == 5
    assert asking(client, "m", 9, True, 0.5)(2, "y") == 7
    assert [one["seed"] for one in given] == [1, 2] and all(one["max_tokens"] == 9 for one in given)

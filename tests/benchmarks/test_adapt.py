"""The page of adapted models is written from the results that are kept."""

from __future__ import annotations

import json
import shlex

from benchmarks.adapt import keeping, page
from miniwin.search.adapt.words import is_original


def test_the_page_is_that_of_the_results() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), "run: python -m benchmarks.adapt"


def test_the_command_shown_says_what_was_asked_for() -> None:
    for path in keeping.RESULTS.glob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        words = shlex.split(page.command(path.stem, result))
        for flag in ("--heads", "--widen"):  # which have no value
            assert (flag in words) == result["settings"].get(flag.removeprefix("--"), False)
        words = [word for word in words if word not in ("--heads", "--widen")]
        given = dict(zip(words[3::2], words[4::2], strict=False))
        assert words[:3] == ["miniwin", "adapt", result["base"]["ref"]] and given["--out"] == path.stem
        for name in ("window", "sinks", "length", "seq_len", "rows", "evaluations"):
            assert float(given["--" + name.replace("_", "-")]) == result["settings"][name]
        if is_original(result, "chosen"):  # the same model twice has no times
            continue
        held = result["decode"]
        for name, said in held["predicted_bytes"].items():
            assert abs(held["cache_bytes"][name] / said - 1) < 0.01

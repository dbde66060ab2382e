"""The benchmark of fine-tuning on a novel: its parts, its intervals, and that the page is that of its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import miniwin
from benchmarks.lora_novel import __main__ as command
from benchmarks.lora_novel.measuring import bits, change, nats, verdict
from benchmarks.lora_novel.novels import chapters, parts
from benchmarks.lora_novel.page import FOLDER, RESULTS, page, write_page
from miniwin.evaluation.intervals import Interval
from miniwin.specs import UserError


def novel(path: Path, count: int = 40) -> Path:
    contents = "".join(f"CHAPTER {number}. Its name.\n" for number in range(count))
    texts = [f"CHAPTER {number}. Its name.\n" + f"word{number} " * (200 + 10 * number) for number in range(count)]
    path.write_text("A title.\n" + contents + "\n".join(texts))
    return path


def test_parts_are_whole_chapters_in_order(tmp_path: Path) -> None:
    found = chapters(novel(tmp_path / "a.txt"))
    assert len(found) == 40 and all(text.startswith(f"CHAPTER {number}.") for number, text in enumerate(found))
    learnt, choosing, end = parts(found)
    assert learnt + choosing + end == found
    sizes = [sum(len(text.encode()) for text in part) for part in (learnt, choosing, end)]
    assert np.array(sizes) / sum(sizes) == pytest.approx([0.7, 0.15, 0.15], abs=0.03)
    with pytest.raises(UserError, match="got 9 chapters; expected a novel with 20 or more"):
        chapters(novel(tmp_path / "short.txt", 9))
    with pytest.raises(UserError, match="cannot be read: No such file"):
        chapters(tmp_path / "none.txt")


def test_every_token_of_a_text_is_counted_once() -> None:
    """Against the probabilities of one window, and a text of three windows."""
    import torch

    model = miniwin.build("miniwin-1m", seed=1)
    assert model.tokenizer is not None and model.tokenizer.separator is not None
    ids = torch.tensor([[model.tokenizer.separator, *model.tokenizer.encode("a text")]])
    wanted = -model.eval()(ids)[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None]).sum()
    assert nats(model, ["a text"])[0] == pytest.approx(float(wanted.detach()), rel=0.02), "a token is a sixth of it"
    long, whole = "x y " * 300, "x y " * 128
    first, rest = nats(model, [whole])[0], nats(model, [long])[0]
    assert first < rest < 1200 * np.log(model.spec.vocab_size) * 1.2


def test_intervals_are_paired() -> None:
    draw = np.random.default_rng(0)
    units = draw.integers(5000, 9000, 25)
    before = units * draw.normal(0.7, 0.1, 25)
    after = before * draw.normal(0.95, 0.004, 25)
    difference, ratio = change(before.tolist(), after.tolist(), units.tolist())
    assert ratio.value == pytest.approx(after.sum() / before.sum()) and 0.94 < ratio.low < 0.95 < ratio.high < 0.96
    gone = bits(before.tolist(), units.tolist()).value - bits(after.tolist(), units.tolist()).value
    assert difference.value == pytest.approx(-gone) and difference.high < 0
    assert bits(before.tolist(), units.tolist()).low < bits(after.tolist(), units.tolist()).high, "alone they overlap"


@pytest.mark.parametrize(
    ("low", "high", "wanted"), [(0.90, 0.97, "holds"), (0.971, 0.98, "does not hold"), (0.96, 0.98, "not shown: ")]
)
def test_a_bar_holds_only_as_a_whole(low: float, high: float, wanted: str) -> None:
    assert verdict(Interval((low + high) / 2, low, high, 9), 0.97).startswith(wanted)


def test_the_page_is_that_of_the_results(tmp_path: Path) -> None:
    if not RESULTS.exists():
        pytest.skip("there are no results yet")
    found: dict[str, Any] = json.loads(RESULTS.read_text())
    assert page(found) == (FOLDER / "README.md").read_text()
    assert found["training"]["tokens"] >= command.TOKENS and "dirty" not in found["machine"]["miniwin"]
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UserError, match="no results of this benchmark"):
        write_page(tmp_path / "bad.json", tmp_path)


def test_the_command_names_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--novel", "a.txt"]) == 2
    assert "expected --gguf --other --work, or --page" in capsys.readouterr().err

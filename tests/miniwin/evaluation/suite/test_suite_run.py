"""Running a suite: every row against a plain forward pass, which documents are read, what has no room."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from suites import SIZES, TRAINED, corpus, measure, model, small, untimed
from torch.nn import functional as F
from word_tokenizers import model as tokenized

from miniwin.data import Corpus
from miniwin.data.mixture import MixedRows
from miniwin.evaluation.suite.cost import exponent_rows, median_of
from miniwin.evaluation.suite.documents import Documents, places
from miniwin.evaluation.suite.losses import buckets, document_losses
from miniwin.evaluation.suite.part import Planned
from miniwin.evaluation.suite.result import SuiteResult
from miniwin.evaluation.suite.rows import row
from miniwin.evaluation.suite.run import run_suite
from miniwin.evaluation.suite.tasks import Asker
from miniwin.evaluation.task_scores import score_task
from miniwin.evaluation.tasks import Recall
from miniwin.evaluation.tasks.words import BuiltIn
from miniwin.specs import UserError
from miniwin.specs.suite import SuiteTask


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SuiteResult:
    return measure(small(), out=tmp_path_factory.mktemp("suite") / "out")


def one_forward(ids: np.ndarray) -> np.ndarray:
    """Nats of every predicted token, from one forward pass without a cache."""
    tokens = torch.from_numpy(ids.astype(np.int64))
    with torch.no_grad():
        logits = model()(tokens[None, :-1])[0].double()
    return F.cross_entropy(logits, tokens[1:], reduction="none").numpy()


def long_documents(tokens: int) -> list[np.ndarray]:
    starts, sizes = places(corpus().valid, 0)
    return [
        corpus().valid[start : start + tokens + 1] for start, size in zip(starts, sizes, strict=True) if size > tokens
    ]


def test_documents_lie_between_separators() -> None:
    starts, sizes = places(corpus().valid, 0)
    assert tuple(sizes) == SIZES
    assert starts == [0, 41, 342, 353, 524, 654, 955]
    assert places(np.array([1, 2]), 0) == ([], [])  # cut off: no document


def test_documents_of_the_test_split_and_of_a_mixture() -> None:
    one, other = np.array([5, 6, 7, 0]), np.array([8, 9, 0, 1, 0])
    with_test, without = (
        Corpus(one, other, "a" * 64, {}, test=other[:3]),
        Corpus(one, one, "b" * 64, {"source": "text"}),
    )
    parts = (("one", 1.0, with_test), ("other", 3.0, without))
    nothing = np.zeros(0, dtype=np.int64)
    mixture = Corpus(nothing, nothing, "c" * 64, {}, MixedRows([("one", with_test.rows)], [1.0]), parts)

    def count(corpus: Corpus, split: str) -> int:
        planned = Planned(small(loss={"split": split}), model(), TRAINED, corpus)
        return Documents(planned).count(0)

    assert [count(with_test, split) for split in ("valid", "test", "all")] == [2, 1, 4]
    assert [count(mixture, split) for split in ("valid", "all")] == [3, 6]
    with pytest.raises(UserError, match="data: text has no test split; set test_fraction or test_paths"):
        count(without, "test")
    with pytest.raises(UserError, match=r"data\.parts\.1: other has no test split"):
        count(mixture, "test")


def test_every_measure_has_a_row_at_each_of_its_lengths(result: SuiteResult) -> None:
    each = ["bits_per_byte", "bits_per_byte_spread", "recall", "recall-nats", "needle", "needle-nats"]
    expected = [f"{name}@{length}" for name in each for length in (32, 128)]
    expected += ["shift_change@1", "shift_change@5"]
    expected += [
        f"{name}@{length}" for name in ("prefill_seconds", "decode_seconds", "cache_bytes") for length in (32, 128)
    ]
    assert [one.key for one in result.rows] == [*expected, "prefill_exponent"]
    assert {one.times for one in result.rows if one.length == 128} == {4.0}
    for one in result.rows:
        assert one.value is not None and one.n > 0
        assert one.low is None or one.low <= one.value <= (one.high or 0)
        assert (one.chance is None) == (one.unit not in ("share", "nats/answer"))


@pytest.mark.parametrize("length", [32, 128])
def test_losses_are_those_of_plain_passes_over_windows(result: SuiteResult, length: int) -> None:
    """The drawn documents are three of the five that are long enough; every length has the same 128 tokens of each."""
    one = result[f"bits_per_byte@{length}"]
    every = [
        sum(one_forward(text[start : start + length + 1]).sum() for start in range(0, 128, length))
        for text in long_documents(128)
    ]
    assert len(every) == 5 and len(one.samples["nats"]) == 3
    matches = [min(range(5), key=lambda number: abs(every[number] - (nats or 0))) for nats in one.samples["nats"]]
    assert sorted(set(matches)) == matches
    assert one.samples["nats"] == pytest.approx([every[number] for number in matches], abs=1e-3)
    assert one.samples["bytes"] == [128.0] * 3
    assert one.value == pytest.approx(sum(every[number] for number in matches) / (3 * 128) / math.log(2), abs=1e-5)


def test_a_document_has_to_have_a_token_more_than_the_length(tmp_path: Path) -> None:
    """The first token is given. What follows a document of 129 tokens is no part of it."""
    suite = small(tasks=[], shift=None, speed=None, cache=None, loss={"lengths": [129], "documents": 10})
    assert measure(suite, out=tmp_path / "out")["bits_per_byte@129"].n == 4 == len(long_documents(129))


def test_losses_by_position() -> None:
    """Windows of 200 in texts of 299 tokens: the second window is shorter, and the buckets are 0-128 and 128-200."""
    texts = long_documents(299)
    found = document_losses(model(), texts, 200)
    assert found.buckets == ((0, 128), (128, 200)) == buckets(200)
    for number, text in enumerate(texts):
        first, second = one_forward(text[:201]), one_forward(text[200:300])
        assert found.nats[number] == pytest.approx([first[:128].sum() + second.sum(), first[128:].sum()], abs=1e-3)
        assert found.bytes[number].tolist() == [128 + 99, 72]


def test_batches_and_chunks_do_not_change_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = long_documents(128)
    together = document_losses(model(), texts, 64)
    monkeypatch.setattr("miniwin.inference.FORWARD_TOKENS", 64)  # one window at a time
    monkeypatch.setattr("miniwin.inference.WHOLE", 16)
    monkeypatch.setattr("miniwin.inference.CHUNK", 16)
    apart = document_losses(model(), texts, 64)
    assert together.nats == pytest.approx(apart.nats, abs=1e-3)


def test_memory_is_bounded_whatever_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents stay where they are on disk, and a forward pass has at most FORWARD_TOKENS tokens."""
    monkeypatch.setattr("miniwin.inference.FORWARD_TOKENS", 32)
    monkeypatch.setattr("miniwin.inference.WHOLE", 16)
    monkeypatch.setattr("miniwin.inference.CHUNK", 16)
    np.save(tmp_path / "valid.npy", corpus().valid)
    ids = np.load(tmp_path / "valid.npy", mmap_mode="r")
    starts, sizes = places(ids, 0)
    texts = [ids[start : start + 129] for start, size in zip(starts, sizes, strict=True) if size > 128]
    assert all(isinstance(text, np.memmap) for text in texts)
    tested, passes = model(), []
    hook = tested.register_forward_hook(lambda module, inputs, logits: passes.append(logits.shape[0] * logits.shape[1]))
    document_losses(tested, texts, 128)
    hook.remove()
    assert max(passes) <= 32 and sum(passes) == 5 * 128


@pytest.mark.parametrize("length", [32, 128])
def test_tasks_are_scored_on_the_test_split(result: SuiteResult, length: int) -> None:
    score = score_task(model(), Recall(num_pairs=2, num_queries=2), length, examples=6, split="test")
    one, nats = result[f"recall@{length}"], result[f"recall-nats@{length}"]
    assert one.samples["right"] == score.right.tolist() and one.samples["asked"] == [2] * 6
    assert nats.samples["nats"] == score.nats.tolist()
    assert one.value == score.accuracy and one.chance == 1 / 26 and one.n == 6
    assert one.blind == Recall(num_pairs=2, num_queries=2).blind and nats.blind is None
    assert nats.value == pytest.approx(score.nats_per_answer) and nats.chance == pytest.approx(math.log(26))


def test_depths_make_the_cells_of_a_heat_map(result: SuiteResult) -> None:
    one = result["needle@128"]
    depths = [depth for depth in one.samples["depth"] if depth is not None]
    assert len(depths) == 6
    cells = one.detail["depths"]
    assert sum(cell["n"] for cell in cells) == 6
    for cell in cells:
        assert cell["n"] == sum(cell["start"] <= depth < cell["end"] + (cell["end"] == 1) for depth in depths)


@pytest.mark.parametrize("shift", [1, 5])
def test_shift_change_is_that_of_plain_passes(result: SuiteResult, shift: int) -> None:
    one = result[f"shift_change@{shift}"]
    changes = []
    for text in long_documents(32):
        shifted = np.concatenate((np.full(shift, ord("\n")), text))
        changes.append(one_forward(shifted)[shift + 16 :] - one_forward(text)[16:])
    found = [(np.abs(change).sum(), change.sum()) for change in changes]
    assert len(one.samples["nats"]) == 3
    for absolute, signed in zip(one.samples["nats"], one.samples["signed"], strict=True):
        assert any(np.allclose((absolute, signed), pair, atol=1e-3) for pair in found)
    assert one.samples["bytes"] == [16.0] * 3
    assert one.value is not None and one.value > 0


def test_cache_bytes_are_exact(result: SuiteResult) -> None:
    one = result["cache_bytes@128"]
    assert one.value == one.low == one.high == model().spec.cache_bytes(128)


def test_the_exponent_of_times_that_grow_with_the_square() -> None:
    times = [
        row(
            "prefill_seconds",
            length,
            None,
            median_of([1e-6 * length**power for power in (1.9, 2.0, 2.1)]),
            of="repetitions",
            unit="seconds",
            samples={"seconds": [1e-6 * length**power for power in (1.9, 2.0, 2.1)]},
        )
        for length in (128, 512, 4096)
    ]
    (found,) = exponent_rows(times)
    assert found.samples["exponent"] == pytest.approx([1.9, 2.0, 2.1])
    assert found.value == pytest.approx(2.0) and found.n == 3
    assert found.low is not None and found.low == pytest.approx(2 - 4.303 * 0.1 / math.sqrt(3), abs=1e-3)
    assert exponent_rows(times[:1]) == []


def test_an_interval_of_a_median_holds_it_often_enough() -> None:
    """At least 95 % of 2,000 draws, of times with a long tail; fewer than six have none."""
    rng = np.random.default_rng(0)
    for n in (6, 7, 20):
        found = [median_of(rng.exponential(1, n).tolist()) for _ in range(2000)]
        assert 0.94 <= np.mean([one.low <= math.log(2) <= one.high for one in found]) <= 0.99
    assert median_of([1.0, 2.0, 3.0, 4.0, 5.0]).low == -math.inf


def test_the_same_suite_gives_the_same_rows(result: SuiteResult, tmp_path: Path) -> None:
    again = measure(small(), out=tmp_path / "again")
    assert untimed(again) == untimed(result)
    other = measure(small(seed=1), out=tmp_path / "other")
    assert other["recall@32"].samples != result["recall@32"].samples


def test_words_are_asked_where_they_are_wanted(tmp_path: Path) -> None:
    tasks = [
        {"task": {"type": "recall", "num_pairs": 2, "num_queries": 1}, "form": "words", "lengths": [512], "examples": 2}
    ]
    found = measure(small(tasks=tasks, loss=None, shift=None, speed=None), out=tmp_path / "out")
    one = found["recall@512"]
    assert (one.setting["form"], one.setting["tokenizer"]) == ("words", "byte")  # whose lengths they are
    assert one.chance is not None and one.chance < 1 / 26


def test_a_model_that_gives_nan_has_rows_without_a_value(tmp_path: Path) -> None:
    broken = model()
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    found = run_suite(broken, small(speed=None), corpus(), trained_length=TRAINED, out=tmp_path)
    assert found["bits_per_byte@32"].value is None and found["recall-nats@32"].value is None
    assert found["recall@32"].value == 0.0 and found["cache_bytes@32"].value is not None
    assert SuiteResult.read(tmp_path / "result.json") == found and (tmp_path / "index.html").is_file()


def test_examples_of_this_python_pair_with_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def setting() -> dict[str, Any]:
        task = SuiteTask(task={"type": "signature"})
        return Asker.of(model(), task, examples=2, seed=0, split="test").setting

    before = setting()
    monkeypatch.setattr("miniwin.evaluation.suite.tasks.python_version", lambda: "4.0.0")
    assert setting() != before and setting()["python"] == "4.0.0"


def test_a_model_with_a_tokenizer_is_asked_in_words_and_reads_its_prefix(tmp_path: Path) -> None:
    tested = tokenized("bpe with <bos>")
    tokenizer = tested.tokenizer
    assert tokenizer is not None and tokenizer.prefix and tokenizer.separator is not None
    texts = [tokenizer.encode(" ".join(islice(BuiltIn().pieces(Random(number)), 8))) for number in range(5)]
    assert min(map(len, texts)) > 20
    ids = np.array([token for text in texts for token in (*text, tokenizer.separator)], dtype=np.uint16)
    read = Corpus(train=ids, valid=ids, fingerprint="f" * 64, info={"source": "made"})
    recall = {"type": "recall", "num_pairs": 2, "num_queries": 1}
    suite = small(
        tasks=[{"task": recall, "lengths": [256], "examples": 2}, {"task": {"type": "sorted-order"}, "lengths": [64]}],
        loss={"lengths": [20], "documents": 5},
        shift={"shifts": [3], "length": 20, "documents": 5},
        speed=None,
        cache=None,
    )
    found = run_suite(tested, suite, read, trained_length=64, out=tmp_path / "out")
    assert found["recall@256"].setting["form"] == "words" and found["recall@256"].blind is None
    assert found["sorted-order@64"].setting["form"] == "bytes"  # it has no other

    def nats(front: list[int], text: list[int]) -> np.ndarray:
        """Of the 20 tokens after the first of a text, from one pass."""
        whole = torch.tensor([[*tokenizer.prefix, *front, *text[:21]]])
        with torch.no_grad():
            logits = tested(whole[:, :-1])[0].double()
        return F.cross_entropy(logits, whole[0, 1:], reduction="none").numpy()[-20:]

    alone = [nats([], text) for text in texts]
    sizes = [tokenizer.token_bytes(np.array(text[1:21])).sum() for text in texts]
    assert found["bits_per_byte@20"].samples["nats"] == pytest.approx([one.sum() for one in alone], abs=1e-3)
    assert found["bits_per_byte@20"].samples["bytes"] == sizes and max(sizes) > 40
    filler = (tokenizer.encode("\n") * 3)[:3]
    changes = [np.abs(nats(filler, text) - one)[10:].sum() for text, one in zip(texts, alone, strict=True)]
    assert found["shift_change@3"].samples["nats"] == pytest.approx(changes, abs=1e-3)


def test_a_tokenizer_that_lacks_a_character_is_refused(tmp_path: Path) -> None:
    suite = small(tasks=[{"task": {"type": "recall"}, "form": "bytes"}], loss=None, shift=None, speed=None)
    with pytest.raises(UserError, match=r"tasks\.0: the tokenizer .* has no single token for the character"):
        run_suite(tokenized("unigram with <bos>"), suite, trained_length=128, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()

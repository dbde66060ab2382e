"""Evaluation: streamed losses against one forward pass, bits per byte, positions, recall, cache, data, CLI."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import run_cli, spec
from tiny_runs import tiny_model, tiny_train
from torch.nn import functional as F

import miniwin
from miniwin.data import Corpus, associative_recall
from miniwin.evaluation import evaluate, loss_at, sequence_loss
from miniwin.evaluation.data import _own_data
from miniwin.evaluation.recall import recall_at
from miniwin.evaluation.result import Metrics
from miniwin.evaluation.speed import measure_speed
from miniwin.evaluation.streamed_loss import position_losses, span
from miniwin.files.writing import check_writable
from miniwin.inference import chunk_for
from miniwin.language_model import LanguageModel
from miniwin.specs import UserError
from miniwin.specs.data import PythonStdlibData
from miniwin.zoo import add

VALID = np.random.default_rng(0).integers(0, 256, 1501).astype(np.uint16)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """Random weights, large enough that the loss depends on the context."""
    model = miniwin.build(spec(), seed=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6)
    return model


@pytest.fixture
def corpus() -> Corpus:
    return Corpus(train=VALID[:300], valid=VALID, fingerprint="f" * 64, info={"source": "random"})


class Sizes:
    """A tokenizer of which only the sizes are asked: id i stands for i % 3 bytes."""

    prefix: tuple[int, ...] = ()

    def token_bytes(self, ids: np.ndarray) -> np.ndarray:
        return ids % 3


def one_forward(model: LanguageModel, ids: np.ndarray) -> torch.Tensor:
    """Nats of every predicted token, from one forward pass without a cache."""
    tokens = torch.from_numpy(ids.astype(np.int64))
    with torch.no_grad():
        logits = model(tokens[None, :-1])[0]
    return F.cross_entropy(logits, tokens[1:], reduction="none")


# --- losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 31, 64, 100, 257])
@pytest.mark.parametrize("chunk", [1, 5, 16, 64])
def test_streamed_losses_equal_one_forward_pass(model: LanguageModel, length: int, chunk: int) -> None:
    if length // chunk > 64:
        pytest.skip("one token at a time over hundreds of tokens says nothing more")
    windows = np.stack([VALID[: length + 1], VALID[500 : 501 + length]]).astype(np.int64)
    with torch.no_grad():
        streamed = sequence_loss(model, torch.from_numpy(windows), chunk)
    expected = torch.stack([one_forward(model, window) for window in windows])
    torch.testing.assert_close(streamed, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("length", [1, 7, 64, 100, 333, 1000])
def test_loss_at_is_the_mean_over_windows_of_the_same_span(model: LanguageModel, corpus: Corpus, length: int) -> None:
    tokens = 1000 if length > 10 else 150
    starts = range(0, tokens, length)
    sums = [one_forward(model, VALID[start : min(start + length, tokens) + 1]).sum() for start in starts]
    expected = float(sum(sums)) / tokens  # one byte per token
    for chunk in (17, 2000):
        assert loss_at(model, corpus, length, tokens=tokens, chunk=chunk) == pytest.approx(expected, abs=1e-4)


def test_context_matters_to_this_model(model: LanguageModel, corpus: Corpus) -> None:
    """Otherwise the tests above could not tell a window from another."""
    losses = [loss_at(model, corpus, length, tokens=1000) for length in (1, 8, 1000)]
    assert max(losses) - min(losses) > 0.01


def test_batches_of_windows_do_not_change_the_loss(
    model: LanguageModel, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = loss_at(model, corpus, 50, tokens=990, chunk=20)
    monkeypatch.setattr("miniwin.inference.CACHE_BYTES", 1)  # room for one window at a time
    assert loss_at(model, corpus, 50, tokens=990, chunk=20) == pytest.approx(together, abs=1e-6)


def test_memory_is_bounded_by_chunk_and_caches(model: LanguageModel, corpus: Corpus) -> None:
    sizes: list[tuple[int, ...]] = []
    hook = model.register_forward_hook(lambda module, inputs, logits: sizes.append(tuple(logits.shape)))
    try:
        loss_at(model, corpus, 1500, tokens=1500, chunk=100)
    finally:
        hook.remove()
    assert sizes == [(1, 100, 256)] * 15


def test_loss_is_counted_per_byte(model: LanguageModel, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "tokenizer", Sizes())
    nats = float(one_forward(model, VALID[:101]).sum())
    found = loss_at(model, corpus, 100, tokens=100)
    assert found == pytest.approx(nats / int((VALID[1:101] % 3).sum()), abs=1e-4)


def test_losses_by_position(model: LanguageModel) -> None:
    losses = position_losses(model, VALID, 100, 250)  # two windows of 100 and one of 50
    windows = [one_forward(model, VALID[start : min(start + 100, 250) + 1]) for start in (0, 100, 200)]
    assert losses.bytes.tolist() == [3.0] * 50 + [2.0] * 50
    expected = sum(float(window[10:60].sum()) for window in windows) / (3 * 40 + 2 * 10) / math.log(2)
    assert losses.bits_per_byte(10, 60) == pytest.approx(expected, abs=1e-4)


def test_evaluation_in_the_middle_of_training_leaves_no_trace(model: LanguageModel, corpus: Corpus) -> None:
    model.train()
    model.decoder.layers[0].eval()
    modes = [module.training for module in model.modules()]
    try:
        loss_at(model, corpus, 64, tokens=128, chunk=16)
        assert [module.training for module in model.modules()] == modes and len(set(modes)) == 2
        model(torch.from_numpy(VALID[None, :80].astype(np.int64))).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
    finally:
        model.zero_grad()
        model.eval()


def test_chunks_are_bounded() -> None:
    assert [chunk_for(length) for length in (1, 512, 4096)] == [1, 512, 4096]
    assert [chunk_for(length) for length in (4097, 16384, 131072, 2**24)] == [1024] * 4


def test_the_span() -> None:
    assert span(VALID, 100, None) == 1500, "the default takes what there is"
    assert span(np.zeros(10**6, dtype=np.uint8), 100, None) == 65536
    assert span(np.zeros(10**6, dtype=np.uint8), 10**5, None) == 10**5, "every length fits in"
    with pytest.raises(
        UserError,
        match="validation split has 1500 tokens to predict, and 2048 are needed for length 2048: evaluate",
    ):
        span(VALID, 2048, None)
    with pytest.raises(UserError, match="has 1500 tokens to predict, and 1501 are needed for length 10"):
        span(VALID, 10, 1501)
    with pytest.raises(UserError, match="tokens: 99 are fewer than one window of 100; ask for at least 100"):
        span(VALID, 100, 99)
    with pytest.raises(UserError, match="length: expected at least 1 token, got 0"):
        span(VALID, 0, None)
    with pytest.raises(UserError, match="has 0 tokens to predict"):
        span(VALID[:0], 1, None)


# --- recall, speed, cache -------------------------------------------------------------------------


class Oracle(torch.nn.Module):
    """Stands in for a decoder: knows the sequences, and answers the first `right` queries of each row."""

    def __init__(self, ids: torch.Tensor, positions: torch.Tensor, right: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.following = ids.roll(-1, dims=1)
        for row, at in enumerate(positions):
            self.following[row, at[right:]] = ord("?")
        self.row = 0

    def new_cache(self, batch_size: int) -> dict[str, int]:
        self.row += batch_size
        return {"length": 0, "row": self.row - batch_size}

    def forward(self, input_ids, cache, attention_mask, logits_to_keep):  # type: ignore[no-untyped-def]
        start = cache["length"]
        cache["length"] += input_ids.shape[1]
        rows = slice(cache["row"], cache["row"] + len(input_ids))
        logits = F.one_hot(self.following[rows, start : cache["length"]], 256).float()
        return logits[:, -logits_to_keep:] if logits_to_keep else logits


@pytest.mark.parametrize("right", [0, 3, 16])
@pytest.mark.parametrize("chunk", [7, 64, 199])
def test_recall_counts_right_answers(model: LanguageModel, right: int, chunk: int) -> None:
    ids, positions, _ = associative_recall(200, num_pairs=16, seed=5, batch=6)
    oracle = LanguageModel(Oracle(ids, positions, right), model.spec, model.tokenizer)  # type: ignore[arg-type]
    assert recall_at(oracle, 200, sequences=6, seed=5, chunk=chunk) == right / 16


def test_recall_is_the_same_with_and_without_cache(model: LanguageModel) -> None:
    whole = recall_at(model, 300, sequences=8, chunk=300)
    assert recall_at(model, 300, sequences=8, chunk=41) == whole
    assert 0 <= whole <= 1


def test_recall_needs_room(model: LanguageModel) -> None:
    with pytest.raises(UserError, match="16 pairs and 16 queries take 160 bytes, and length is 100"):
        recall_at(model, 100)


def test_speed_is_positive_and_of_the_length_asked_for(model: LanguageModel) -> None:
    speed = measure_speed(model, 40, decode_tokens=3, repeats=2, chunk=16)
    assert speed.length == 40 and speed.prefill_tokens_per_second > 0 and speed.decode_tokens_per_second > 0


@pytest.mark.parametrize("name", ["miniwin-tiny", "minimind-tiny"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_cache_bytes_are_those_of_a_real_cache(name: str, dtype: str) -> None:
    model = miniwin.load(name, dtype=dtype)
    for length in (10, 33, 150):
        cache = model.new_cache()
        with torch.no_grad():
            for part in torch.zeros(1, length, dtype=torch.int64).split(64, dim=1):
                model(part, cache=cache)
        assert cache.nbytes == model.spec.cache_bytes(length, dtype)


# --- evaluate -------------------------------------------------------------------------------------


def test_evaluate_measures_everything(model: LanguageModel, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miniwin.evaluation.by_length.SPEED_LENGTH", 32)
    monkeypatch.setattr("miniwin.evaluation.recall.TOKENS", 400)
    metrics = evaluate(model, corpus, lengths=(300, 64, 64), tokens_per_length=900, chunk=50)
    assert metrics.model == "tiny" and metrics.parameters == model.spec.parameters() and metrics.tokens == 900
    assert metrics.data == {"source": "random", "fingerprint": "f" * 64}
    assert list(metrics.loss) == list(metrics.bits_per_byte) == list(metrics.cache_bytes) == [64, 300]
    assert list(metrics.recall) == [300], "64 has no room for the pairs"
    for length in (64, 300):
        assert metrics.loss[length] == pytest.approx(loss_at(model, corpus, length, tokens=900), abs=1e-5)
        assert metrics.bits_per_byte[length] == metrics.loss[length] / math.log(2)
        assert metrics.cache_bytes[length] == model.spec.cache_bytes(length)
    assert list(metrics.by_position) == ["0-128", "128-256", "256-300"]
    weights = {"0-128": 128, "128-256": 128, "256-300": 44}
    mean = sum(metrics.by_position[bucket] * weight for bucket, weight in weights.items()) / 300
    assert mean == pytest.approx(metrics.bits_per_byte[300])
    assert metrics.speed_length == 32 and metrics.prefill_tokens_per_second and metrics.decode_tokens_per_second


def test_metrics_go_through_json() -> None:
    metrics = Metrics("m", 7, {"source": "x"}, 10, {8: 0.5}, {8: 0.7}, {"0-8": 0.7}, {8: 0.25}, {8: 64}, 1.0, 2.0, 32)
    assert Metrics.from_dict(json.loads(json.dumps(metrics.to_dict(), allow_nan=False))) == metrics
    broken = Metrics("m", 7, loss={8: float("nan"), 16: float("inf")})
    data = json.loads(json.dumps(broken.to_dict(), allow_nan=False))
    assert data["loss"] == {"8": None, "16": None}
    assert math.isnan(Metrics.from_dict(data).loss[8])
    with pytest.raises(UserError, match="metrics: unknown field 'los'; known are bits_per_byte, by_position"):
        Metrics.from_dict({"model": "m", "parameters": 1, "los": {}})
    with pytest.raises(UserError, match="metrics: field 'parameters' is missing"):
        Metrics.from_dict({"model": "m"})


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ((), "lengths: expected at least one length, got none"),
        ((64, 0), "lengths: expected whole numbers of at least 1, got 0"),
        ((64.5,), "lengths: expected whole numbers of at least 1, got 64.5"),
        ((64, 2000), "has 1500 tokens to predict, and 2000 are needed for length 2000"),
    ],
)
def test_wrong_lengths(model: LanguageModel, corpus: Corpus, lengths: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(model, corpus, lengths=lengths, recall=False, speed=False)


def test_no_tokenizer_no_loss_per_byte(corpus: Corpus) -> None:
    small = miniwin.build(spec().model_copy(update={"vocab_size": 64}))
    with pytest.raises(UserError, match="tiny has no tokenizer, so its loss per byte is not defined"):
        loss_at(small, corpus, 8)
    with pytest.raises(UserError, match="tiny has no tokenizer, so it cannot be evaluated on text"):
        evaluate(small, "python-stdlib")


# --- data by any name, and the command line -------------------------------------------------------


@pytest.fixture
def text_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "novel.txt"
    path.write_text("".join(f"Line {i} of a novel that is not very good.\n" for i in range(400)), encoding="utf-8")
    return path


def test_data_by_any_name(model: LanguageModel, text_file: Path) -> None:
    train_spec = text_file.with_name("train.yaml")
    train_spec.write_text(
        f"kind: train\nformat: 1\nname: t\ntokens: 1000\ndata: {{source: text, paths: [{text_file.name}]}}\n",
        encoding="utf-8",
    )
    settings = {"lengths": (32,), "tokens_per_length": 64, "recall": False, "speed": False}
    by_file = evaluate(model, text_file, **settings)  # type: ignore[arg-type]
    by_spec = evaluate(model, str(train_spec), **settings)  # type: ignore[arg-type]
    assert by_file.data["fingerprint"] == by_spec.data["fingerprint"]
    assert by_file.loss == by_spec.loss and by_file.data["source"] == "text"
    by_folder = evaluate(model, text_file.parent, **settings)  # type: ignore[arg-type]  # it holds a train.yaml
    assert by_folder.loss == by_file.loss
    with pytest.raises(UserError, match=r"data: nowhere.txt does not exist; expected python-stdlib, a text file"):
        evaluate(model, "nowhere.txt", **settings)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="data: got an empty name; expected python-stdlib, a file or a folder"):
        evaluate(model, "", **settings)  # type: ignore[arg-type]


def test_the_command_prints_tables_and_writes_json(text_file: Path) -> None:
    numbers = text_file.with_name("metrics.json")
    arguments = [
        "eval",
        "miniwin-tiny",
        "--data",
        str(text_file),
        "--lengths",
        "64,256",
        "--tokens",
        "1k",
        "--no-recall",
    ]
    code, out, err = run_cli(*arguments, "--no-speed", "--json", str(numbers))
    assert code == 0, err
    metrics = Metrics.from_dict(json.loads(numbers.read_text(encoding="utf-8")))
    assert list(metrics.loss) == [64, 256] and metrics.tokens == 1024
    assert "miniwin-tiny (random weights): 361,544 parameters, 1,024 validation tokens of text" in out
    for length in (64, 256):
        assert f"{metrics.bits_per_byte[length]:.4f}" in out
    assert "by position, at 256" in out and "128-256" in out and "recall" not in out and "speed" not in out
    assert "bits per byte at 256" in err, "progress goes to stderr"
    code, out, _ = run_cli(*arguments, "--no-speed", "--quiet", "--json", "-")
    assert code == 0 and Metrics.from_dict(json.loads(out)).loss == metrics.loss


@pytest.mark.parametrize("name", ["missing/x.json", ".", ""])
def test_the_command_refuses_a_file_that_cannot_be_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run_cli("eval", "no-such-model", "--json", name)
    assert code == 2 and out == "" and "cannot write there; expected a file name in a folder that exists" in err


def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable(tmp_path / "x.json")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"x\.json: cannot write there"):
        check_writable(tmp_path / "x.json")


def test_a_disk_that_is_full_in_the_end_is_one_message(text_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("miniwin.files.writing.flush", full)
    arguments = ("--lengths", "64", "--tokens", "64", "--no-recall", "--no-speed", "--quiet")
    code, out, err = run_cli("eval", "miniwin-tiny", "--data", str(text_file), *arguments, "--json", "x.json")
    assert code == 2 and "by position" in out, "the tables come first"
    assert (
        err
        == "error: x.json: could not be written (No space left on device); make room there, or choose another place\n"
    )


def test_the_command_refuses_lengths_that_are_no_numbers() -> None:
    code, _, err = run_cli("eval", "miniwin-tiny", "--lengths", "512,long")
    assert code == 2 and err == "error: --lengths: expected a number of tokens such as 2048, 16k or 1M, got 'long'\n"


# --- what a model was trained on, and nothing else

BRIEF: dict[str, Any] = {"lengths": (32,), "tokens_per_length": 64, "recall": False, "speed": False}


@pytest.fixture
def trained(text_file: Path) -> Path:
    train = tiny_train(data={"source": "text", "paths": [text_file.name]}, tokens=256)
    folder = text_file.parent
    miniwin.train(tiny_model(), train, out=folder / "run", base=folder, progress=False, tracking="off")
    return folder / "run"


def test_a_run_is_measured_on_its_own_data_wherever_one_stands(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(trained.parent))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(trained.parent)
    relative = miniwin.load("run")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for model in (relative, "~/run", trained):
        assert evaluate(model, **BRIEF).data["source"] == "text"
    measured: list[str] = []
    train = tiny_train(data={"source": "text", "paths": [str(trained.parent / "novel.txt")]}, tokens=256)
    miniwin.train(
        tiny_model(),
        train,
        out="run",  # relative, and the model that is passed is measured like any other
        on_eval=lambda _, model: measured.append(evaluate(model, **BRIEF).data["source"]) or True,  # type: ignore[func-returns-value]
        eval_at=[128],
        progress=False,
        tracking="off",
    )
    assert measured == ["text"]


def test_other_data_is_never_taken_in_its_place(trained: Path, text_file: Path) -> None:
    model = miniwin.load(trained)
    text = text_file.read_text(encoding="utf-8")
    text_file.write_text(text.replace("novel", "story"), encoding="utf-8")
    for measure in (lambda: evaluate(model, **BRIEF), lambda: evaluate(str(trained), **BRIEF)):
        with pytest.raises(UserError, match=r"run was trained on other data than what is there now: .*put the data ba"):
            measure()
    code, _, err = run_cli("zoo", "add", str(trained), "--name", "mine", "--lengths", "32")
    assert code == 2 and "was trained on other data than what is there now" in err
    assert evaluate(model, trained, **BRIEF).data["source"] == "text", "unless it is named"
    text_file.unlink()
    with pytest.raises(UserError, match=r"run was trained on cannot be read: .*no such file or folder: .*--data"):
        evaluate(model, **BRIEF)
    (trained / "train.yaml").unlink()  # run.json knows as well
    with pytest.raises(UserError, match=r"run was trained on cannot be read: .*no such file or folder"):
        evaluate(model, **BRIEF)
    trained.rename(trained.with_name("moved"))
    with pytest.raises(
        UserError, match=r"run is gone, which said what the model was trained on; name what to measure on"
    ):
        evaluate(model, **BRIEF)
    code, _, err = run_cli("eval", str(trained.with_name("moved")), "--lengths", "32")
    assert code == 2 and "was trained on cannot be read" in err and "--data" in err


def test_a_cache_that_cannot_be_written_is_not_missing_data(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"^cannot write the prepared data to .*; set MINIWIN_CACHE to a folder that"):
        evaluate(str(trained), **BRIEF)


def test_an_entry_is_measured_on_what_it_was_trained_on(trained: Path, text_file: Path) -> None:
    entry = add(trained, name="mine", zoo=text_file.parent / "zoo")
    with pytest.raises(UserError, match=r"mine@1.0.0 was trained on text \(novel.txt\), which an entry does not hold"):
        evaluate(str(entry.folder), **BRIEF)
    assert evaluate(str(entry.folder), text_file, **BRIEF).data["source"] == "text"
    task = {"source": "tasks", "task": "associative-recall", "length": 256, "tokens": 3000}
    other = text_file.parent / "other"
    miniwin.train(tiny_model(), tiny_train(data=task, tokens=256), out=other, progress=False, tracking="off")
    entry = add(other, name="task", zoo=text_file.parent / "zoo")
    assert evaluate(str(entry.folder), **BRIEF).data["source"] == "tasks"
    assert _own_data(miniwin.load("miniwin-1m@1.0.0")) == (PythonStdlibData(), None)
    assert _own_data(miniwin.build(spec())) == (PythonStdlibData(), None)

"""Mixtures: whose rows a batch has, the loss of each part, runs, evaluations, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import run_cli
from tiny_runs import MIXTURE, TASKS, tiny_model, tiny_train, write_text
from torch.nn import functional as F

from miniwin.checkpoint import load_checkpoint
from miniwin.data import Corpus, batch_at, loader, prepare
from miniwin.data.corpus import Text
from miniwin.evaluation import Metrics, evaluate, loss_at
from miniwin.evaluation.streamed_loss import position_losses
from miniwin.loading import load
from miniwin.runs import read_evaluations, read_metrics
from miniwin.specs import UserError
from miniwin.specs.data import ExamplesData, MixtureData, TextData
from miniwin.tokenizer import ByteTokenizer
from miniwin.tracking import _metrics
from miniwin.training.batch_loss import PartLosses, batch_loss, shares
from miniwin.training.distributed import Group
from miniwin.training.launch import train
from miniwin.zoo import add

BYTE = ByteTokenizer()
NAMES = ["text", "last-write", "recall", "which-first"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)


def corpora() -> tuple[Corpus, list[Corpus]]:
    """The mixture, and its parts alone."""
    spec = tiny_train(**MIXTURE).data
    assert isinstance(spec, MixtureData)
    return prepare(spec, BYTE), [prepare(part.data, BYTE) for part in spec.parts]


# -- rows


def test_each_part_walks_through_its_own_rows() -> None:
    """In every batch the rows that the part has alone, one after the other, for each length by itself."""
    mixture, parts = corpora()
    batches = list(
        loader(mixture.rows, start_step=0, num_steps=30, batch_size=3, seq_len=[32, 64], weights=[2, 1], seed=5)
    )
    for length, size in ((32, 6), (64, 3)):
        done = [0] * 4
        own = [batch for batch in batches if batch[0].shape[1] == length]
        for number, (inputs, targets) in enumerate(own):
            sizes = mixture.rows.sizes(number * size, size)
            assert sum(sizes) == size
            start = 0
            for part, count in enumerate(sizes):
                for row in range(start, start + count):
                    alone = batch_at(parts[part].rows, done[part], batch_size=1, seq_len=length, seed=5)
                    assert torch.equal(inputs[row], alone[0][0]) and torch.equal(targets[row], alone[1][0])
                    done[part] += 1
                start += count
        total = len(own) * size
        assert all(abs(count - weight * total) <= 2 for count, weight in zip(done, (0.7, 0.1, 0.1, 0.1), strict=True))
    later = list(
        loader(
            mixture.rows, start_step=17, num_steps=4, batch_size=3, seq_len=[32, 64], weights=[2, 1], seed=5, workers=1
        )
    )
    assert all(torch.equal(one[1], other[1]) for one, other in zip(later, batches[17:], strict=False))


def test_the_fingerprint_is_of_the_parts_and_their_weights() -> None:
    def found(*parts: tuple[float, str | None, Any]) -> str:
        made = [{"weight": weight, "name": name, "data": data} for weight, name, data in parts]
        return prepare(MixtureData.model_validate({"source": "mixture", "parts": made}), BYTE).fingerprint

    text, task = TextData(paths=("text.txt",)), ExamplesData(task=TASKS[0])
    plain = found((1, None, text), (1, None, task))
    assert plain == found((1, "prose", text), (1, None, task)), "a name changes no row"
    others = [
        found((2, None, text), (1, None, task)),
        found((1, None, task), (1, None, text)),
        found((1, None, text), (1, None, ExamplesData(task=TASKS[0], seed=1))),
    ]
    assert len({plain, *others}) == 4


# -- the loss


def pass_of(rows: tuple[int, ...], answers: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """(inputs, targets) (B, 24): of each part so many rows, in which so many targets count."""
    draw = torch.Generator().manual_seed(3)
    inputs, targets = (torch.randint(256, (sum(rows), 24), generator=draw) for _ in range(2))
    for row, counted in enumerate(count for size, count in zip(rows, answers, strict=True) for _ in range(size)):
        targets[row, torch.randperm(24, generator=draw)[: 24 - counted]] = -100
    return inputs, targets


@pytest.mark.parametrize("rows", [(4, 2, 2), (5, 0, 3), (8, 0, 0), (0, 7, 1)])
def test_the_loss_is_the_mean_over_rows_of_each_parts_mean(rows: tuple[int, ...]) -> None:
    """By all the logits at once; and two processes find the same loss and gradients as one."""
    inputs, targets = pass_of(rows, (24, 2, 1))
    torch.manual_seed(0)
    decoder = tiny_model().build().double()

    def gradients() -> list[torch.Tensor]:
        found = [parameter.grad.clone() for parameter in decoder.parameters() if parameter.grad is not None]
        decoder.zero_grad()
        return found

    expected, parts, start = torch.zeros((), dtype=torch.float64), [], 0
    for size in rows:
        logits = decoder.logits(decoder.hidden(inputs[start : start + size])) if size else None
        mean = F.cross_entropy(logits.flatten(0, 1), targets[start : start + size].flatten()) if size else 0.0  # type: ignore[union-attr]
        expected = expected + size / sum(rows) * mean
        parts.append(float(mean) if size == 0 else float(mean.detach()))
        start += size
    expected.backward()  # type: ignore[no-untyped-call]
    wanted = gradients()
    loss, _, _, losses = batch_loss(decoder, decoder.hidden(inputs), targets, shares(Group(), targets, rows))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
    assert losses.tolist() == pytest.approx(parts, rel=1e-6)
    for one, other in zip(gradients(), wanted, strict=True):
        torch.testing.assert_close(one, other)
    total, seen = 0.0, torch.zeros(3)
    for rank in range(2):
        group = Group(rank, 2)
        own = group.rows(targets)
        loss, _, _, losses = batch_loss(decoder, decoder.hidden(group.rows(inputs)), own, shares(group, targets, rows))
        (loss / 2).backward()  # type: ignore[no-untyped-call]
        total, seen = total + float(loss.detach()) / 2, seen + losses / 2
    assert total == pytest.approx(float(expected.detach()), rel=1e-9)
    assert seen.tolist() == pytest.approx(parts, rel=1e-6)
    for one, other in zip(gradients(), wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_a_process_without_a_counted_target_waits_for_the_others() -> None:
    """Of a single part with few answers, all of them may be in the other process's rows. Both reduce all gradients."""
    inputs, targets = pass_of((4,), (1,))
    targets[2:] = -100
    decoder = tiny_model(tie_word_embeddings=False).build()
    found = []
    for rank in range(2):
        group = Group(rank, 2)
        (share,) = shares(group, targets, (4,))
        loss, *_ = batch_loss(decoder, decoder.hidden(group.rows(inputs)), group.rows(targets), [share])
        loss.backward()  # type: ignore[no-untyped-call]
        found.append((share.of_part, float(loss.detach())))
        assert all(parameter.grad is not None for parameter in decoder.parameters())
        decoder.zero_grad()
    assert found[0][0] == 2.0 and found[1] == (0.0, 0.0)


def test_losses_of_parts_are_means_over_rows_since_the_last_line() -> None:
    losses = PartLosses(["a", "b"], torch.device("cpu"))
    losses.see(torch.tensor([2.0, 8.0]), (3, 1))
    losses.see(torch.tensor([4.0, 0.0]), (1, 0))
    losses.end_step(Group())
    again = PartLosses(["a", "b"], torch.device("cpu"))
    again.restore(losses.state())
    assert again.means() == losses.take() == {"a": 2.5, "b": 8.0}
    assert losses.means() == {}


# -- runs


def test_a_run_says_the_loss_of_each_part(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miniwin.training.progress.PLAIN_SECONDS", 0.0)
    options: dict[str, Any] = {"tracking": "off", "device": "cpu"}
    spec = tiny_train(**MIXTURE, tokens=10 * 256, log_every=5)
    result = train(tiny_model(), spec, out="run", **options)
    lines = read_metrics(result.folder)
    assert [list(line["losses"]) for line in lines[1:]] == [NAMES] * 2
    assert all(0 < loss < 7 for line in lines for loss in line["losses"].values())
    said = capsys.readouterr().err
    assert "(text " in said and ", which-first " in said
    assert "losses" not in read_metrics(train(tiny_model(), tiny_train(tokens=256), out="plain", **options).folder)[0]
    assert "parts" not in load_checkpoint(Path("plain/checkpoint.pt"))
    moved = Path("elsewhere")
    moved.mkdir()
    Path("text.txt").rename(moved / "text.txt")
    parts = [{**part, "data": dict(part["data"])} for part in MIXTURE["data"]["parts"]]
    parts[0]["data"]["paths"] = ["elsewhere/text.txt"]
    there = {**MIXTURE, "data": {"source": "mixture", "parts": parts}, "tokens": 10 * 256, "log_every": 5}
    assert train(tiny_model(), tiny_train(**there), out="run", **options) == result, "files may move"
    parts[0]["weight"] = 0.6
    with pytest.raises(UserError, match=r"run holds a run with other settings \(train\.data\.parts"):
        train(tiny_model(), tiny_train(**there), out="run", **options)


def test_pieces_equal_the_whole() -> None:
    """Also where a checkpoint falls between two lines of metrics, and processes read ahead."""
    spec = tiny_train(**MIXTURE, batch_size=2, gradient_accumulation=2, tokens=14 * 256, log_every=4)
    options: dict[str, Any] = {"tracking": "off", "device": "cpu", "progress": False}
    train(tiny_model(), spec, out="whole", **options)
    for tokens in (256, 700, 1500):
        train(tiny_model(), spec, out="pieces", stop_after_tokens=tokens, workers=tokens % 2, **options)
    train(tiny_model(), spec, out="pieces", **options)
    assert Path("whole/model.safetensors").read_bytes() == Path("pieces/model.safetensors").read_bytes()
    lines = [[{**line, "tokens_per_second": 0} for line in read_metrics(run)] for run in ("whole", "pieces")]
    assert lines[0] == lines[1] and [line["step"] for line in lines[0]] == [1, 4, 8, 12, 14]


def test_mlflow_has_the_loss_of_each_part() -> None:
    line = {"step": 3, "loss": 2.0, "losses": {"text": 2.5, "recall": 1.0}}
    assert _metrics(line) == {"loss": 2.0, "losses.text": 2.5, "losses.recall": 1.0}


def test_documents_are_kept_apart_in_the_text_of_a_mixture() -> None:
    options: dict[str, Any] = {"tracking": "off", "device": "cpu", "progress": False}
    Path("more").mkdir()
    for number in range(50):
        Path(f"more/{number}.txt").write_text(f"document {number}\n")
    parts = [{"weight": 1, "data": {"source": "text", "paths": ["more"]}}, *MIXTURE["data"]["parts"][1:]]
    spec = {**MIXTURE, "data": {"source": "mixture", "parts": parts}, "tokens": 3 * 256}
    apart = train(tiny_model(), tiny_train(**spec, packing="documents"), out="apart", **options)
    stream = train(tiny_model(), tiny_train(**spec), out="stream", **options)
    first = [read_metrics(run.folder)[0]["losses"] for run in (apart, stream)]
    assert first[0]["text"] != first[1]["text"], "documents of text are kept apart"
    assert first[0]["recall"] == pytest.approx(first[1]["recall"], rel=1e-5), "an example is one document"


def test_an_entry_says_what_it_was_trained_on(tmp_path: Path) -> None:
    options: dict[str, Any] = {"tracking": "off", "device": "cpu", "progress": False}
    run = train(tiny_model(), tiny_train(**MIXTURE, tokens=256), out="run", **options).folder
    entry = add(run, name="mixed", zoo=tmp_path / "zoo")
    card = (entry.folder / "README.md").read_text(encoding="utf-8")
    assert "| Data | mixture: text (0.7), last-write (0.1), recall (0.1), which-first (0.1) |" in card
    assert "| Training length | 32, 64 |" in card
    assert str(tmp_path) not in "".join(path.read_text() for path in entry.folder.glob("*.json")), "no folders"
    with pytest.raises(UserError, match=r"was trained on text \(text\.txt\), which an entry does not hold"):
        evaluate(str(entry.folder), lengths=[32], recall=False, speed=False)


# -- evaluation


def test_bits_per_byte_of_a_mixture_are_of_its_texts_by_weight() -> None:
    (Path("other.txt")).write_text("0123456789" * 2000)
    parts = [
        {"weight": 3, "name": "prose", "data": {"source": "text", "paths": ["text.txt"]}},
        {"weight": 1, "name": "digits", "data": {"source": "text", "paths": ["other.txt"]}},
        {"weight": 4, "data": {"source": "examples", "task": TASKS[0]}},
    ]
    spec = tiny_train(data={"source": "mixture", "parts": parts}, tokens=256)
    options: dict[str, Any] = {"tracking": "off", "device": "cpu", "progress": False}
    model = load(train(tiny_model(), spec, out="run", **options).folder)
    corpus = prepare(spec.data, BYTE)
    assert [(text.name, text.weight) for text in corpus.texts] == [("prose", 0.75), ("digits", 0.25)]
    metrics = evaluate(model, lengths=[64], tokens_per_length=640, recall=False, speed=False)
    alone = [position_losses(model, text.ids, 64, 640) for text in corpus.texts]
    nats = 0.75 * alone[0].nats.sum() + 0.25 * alone[1].nats.sum()
    size = 0.75 * alone[0].bytes.sum() + 0.25 * alone[1].bytes.sum()
    assert metrics.loss[64] == pytest.approx(nats / size) == pytest.approx(loss_at(model, corpus, 64, 640))
    assert metrics.parts["digits"][64] == pytest.approx(alone[1].nats_per_byte / np.log(2))
    assert Metrics.from_dict(metrics.to_dict()) == metrics
    again = tiny_train(**{**spec.model_dump(mode="json"), "eval": {"every": 128, "lengths": [64], "tokens": 640}})
    train(tiny_model(), again, out="watched", **options)
    (line,) = (line for line in read_evaluations(Path("watched")) if line["step"] == 2)
    found = {name: row["value"] for name, row in line["eval"].items()}
    assert found["loss@64"] == pytest.approx(metrics.loss[64], rel=1e-5)
    assert found["bits_per_byte.digits@64"] == pytest.approx(metrics.parts["digits"][64], rel=1e-5)
    code, out, _ = run_cli("eval", "run", "--lengths", "64", "--tokens", "640", "--no-recall", "--no-speed")
    assert code == 0 and "of prose  of digits" in out


def test_a_single_text_is_measured_as_before() -> None:
    corpus = prepare(TextData(paths=("text.txt",)), BYTE)
    assert corpus.texts == (Text("text", 1.0, corpus.valid),) and corpus.available == len(corpus.valid) - 1


def test_a_mixture_of_tasks_alone_has_no_text() -> None:
    parts = [{"weight": 1, "data": {"source": "examples", "task": task}} for task in TASKS]
    corpus = prepare(tiny_train(data={"source": "mixture", "parts": parts}).data, BYTE)
    assert not corpus.has_text
    spec = tiny_train(data={"source": "mixture", "parts": parts}, tokens=256)
    model = load(train(tiny_model(), spec, out="run", tracking="off", progress=False).folder)
    with pytest.raises(UserError, match="there is no text to measure bits per byte on"):
        loss_at(model, corpus, 64)


# -- what is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: {"weight": 0}}, r"data\.parts\.0\.weight: got 0; expected more than 0"),
        ({0: {"weight": -1}}, r"data\.parts\.0\.weight: got -1; expected more than 0"),
        ({0: {"data": MIXTURE["data"]}}, r"data\.parts\.0\.data: got a mixture within a mixture; expected another"),
        ({1: {"name": "recall"}}, r"data\.parts\.2: called 'recall', as parts\.1 is; expected different names"),
        ({2: {"data": MIXTURE["data"]["parts"][1]["data"]}}, r"data\.parts\.2\.data: the same data as parts\.1"),
        ({3: {"data": {"source": "pictures"}}}, r"data\.parts\.3\.data\.source: unknown source 'pictures'"),
    ],
)
def test_mixtures_that_make_no_sense(change: dict[int, Any], message: str) -> None:
    parts = [{**part, **change.get(place, {})} for place, part in enumerate(MIXTURE["data"]["parts"])]
    with pytest.raises(UserError, match=message):
        tiny_train(data={"source": "mixture", "parts": parts})


def test_a_mixture_of_one_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.parts: got 1; expected two or more parts, or their source without"):
        tiny_train(data={"source": "mixture", "parts": MIXTURE["data"]["parts"][:1]})


def test_a_missing_file_of_a_part_is_said_at_its_place() -> None:
    Path("t.yaml").write_text(
        "kind: train\nformat: 1\nname: t\ntokens: 1e5\ndata:\n  source: mixture\n  parts:\n"
        "    - {weight: 1, data: {source: text, paths: [gone.txt]}}\n"
        "    - {weight: 1, data: {source: examples, task: {type: recall, num_pairs: 200}}}\n"
    )
    code, _, said = run_cli("check", "t.yaml")
    assert code == 2 and "t.yaml:8:47: data.parts.0.data.paths: no such file or folder: 'gone.txt'" in said
    assert "t.yaml:9:" in said and "data.parts.1.data.task: task recall: an example takes at least" in said
    with pytest.raises(UserError, match=r"^t\.yaml:8:47: data\.parts\.0\.data\.paths: no such file or folder"):
        train(tiny_model(), "t.yaml", out="run", tracking="off", device="cpu")
    assert not Path("run").exists()

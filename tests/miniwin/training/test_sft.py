"""Fine-tuning on chats: from weights with a chat format to a run that one can chat with, resumed bit for bit."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked import kill, start
from tiny import run_cli
from tiny_runs import assert_equal, tiny_model, tiny_train, train_there

import miniwin
from miniwin.chat import ChatFormat
from miniwin.checkpoint import load_checkpoint
from miniwin.evaluation import evaluate
from miniwin.evaluation.by_length import loss_at
from miniwin.evaluation.data import corpus_for
from miniwin.runs import RunResult, read_metrics, read_run
from miniwin.specs import TrainSpec, UserError, dump_yaml
from miniwin.training.launch import train

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ '\\x00' }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
FORMAT = ChatFormat(TEMPLATE, ("\0",), {}, 200)
CHATS = {"source": "chat", "paths": ["chats.jsonl"]}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "zoo"))
    monkeypatch.setenv("MINIWIN_HOME", "home")
    monkeypatch.chdir(tmp_path)
    write_chats("chats.jsonl")


def write_chats(name: str, *more: dict[str, Any]) -> None:
    draw = random.Random(0)
    lines = []
    for _ in range(60):
        letter = draw.choice("abcdef")
        said = [letter * draw.randint(1, 3), "Yes", "and?", "Yes"]
        roles = ["user", "assistant"] * 2
        lines.append({"conversations": [{"role": r, "content": c} for r, c in zip(roles, said, strict=True)]})
    Path(name).write_text("".join(json.dumps(line) + "\n" for line in (*lines, *more)))


def sft(**changes: Any) -> TrainSpec:
    fields: dict[str, Any] = {"data": CHATS, "seq_len": 96, "packing": "documents", "tokens": 12 * 4 * 96}
    return tiny_train(**{**fields, **changes})


def go(out: str, spec: TrainSpec, **options: Any) -> RunResult:
    return train(
        options.pop("model", tiny_model()), spec, out=out, progress=False, tracking="off", device="cpu", **options
    )


@pytest.fixture
def base() -> str:
    """A model with a chat format, of which little has been trained."""
    Path("text.txt").write_text("some text " * 500)
    result = go("base", tiny_train(tokens=640))
    FORMAT.write(result.folder)
    return "base"


def test_a_model_learns_its_answers_and_can_be_talked_with(base: str) -> None:
    result = go("run", sft(tokens=60 * 4 * 96), from_=base)
    losses = [line["loss"] for line in read_metrics("run") if "loss" in line]
    assert result.status == "complete" and losses[-1] < 0.5 < 2 < losses[0]
    model = miniwin.load("run")
    assert model.chat_format == FORMAT
    chat = model.chat(temperature=0)
    assert chat.say("bb") == "Yes" and chat.last is not None and chat.last.ended == "separator"
    assert chat.say("and?") == "Yes"
    record = read_run("run")["data"]
    assert record["source"] == "chat" and record["loss"] == "answers" and record["train_documents"] > 30
    assert corpus_for(model, None).fingerprint == record["fingerprint"]
    assert miniwin.load(go("more", tiny_train(tokens=640), from_="run").folder).chat_format == FORMAT


def test_an_evaluation_measures_the_answers(base: str) -> None:
    go("run", sft(tokens=30 * 4 * 96), from_=base)
    model = miniwin.load("run")
    corpus = corpus_for(model, None)
    (text,) = corpus.texts
    tokens = len(text.ids) - 1
    ids = torch.from_numpy(np.asarray(text.ids).astype(np.int64)).unsqueeze(0)
    with torch.no_grad():
        nats = torch.nn.functional.cross_entropy(model(ids[:, :-1])[0], ids[0, 1:], reduction="none").numpy()
    answers = np.asarray(text.counted[1:] != 0)
    assert answers.sum() < tokens / 3
    expected = nats[answers].sum() / answers.sum()  # a byte each
    found = evaluate(model, lengths=[tokens], tokens_per_length=tokens, recall=False, speed=False)
    assert found.loss[tokens] == pytest.approx(expected, rel=1e-4) and found.data["counted_of"] == ["chat"]
    assert loss_at(model, corpus, tokens, tokens) == found.loss[tokens]
    assert found.loss[tokens] < 0.5 * nats.mean()
    code, out, err = run_cli("eval", "run", "--lengths", "64", "--tokens", "128", "--no-recall", "--no-speed")
    assert code == 0 and "128 validation tokens of chat, of which answers count" in out, err


def test_chats_that_are_too_long_are_told(base: str) -> None:
    with pytest.warns(UserWarning, match="data: [1-9][0-9]* chats cut at seq_len 42, and 0 left out"):
        go("run", sft(seq_len=42, tokens=4 * 42), from_=base)
    assert read_run("run")["data"]["too_long"]["42"]["cut"] > 1


@pytest.mark.parametrize("lora", [None, {"r": 3, "lora_dropout": 0.1}], ids=["all", "lora"])
def test_a_run_that_is_killed_ends_the_same(base: str, lora: dict[str, Any] | None) -> None:
    spec = sft(checkpoint_seconds=0, tokens=30 * 4 * 96, lora=lora)
    go("whole", spec, from_=base)
    draw = random.Random(1)
    done = -1
    for _ in range(5 if lora is None else 2):  # with adapters each process imports transformers
        process = start(train_there, "killed", dump_yaml(spec), torch.get_num_threads(), base)
        deadline = done + draw.randint(1, 4)
        while process.is_alive() and len(read_metrics("killed")) < deadline:
            time.sleep(0.002)
        kill(process)
        done = len(read_metrics("killed"))
    assert go("killed", spec, from_=base).status == "complete"
    clock = {"seconds": None, "step_seconds": None}
    assert_equal(*({**load_checkpoint(Path(one, "checkpoint.pt")), **clock} for one in ("whole", "killed")))


def test_other_chats_are_another_run(base: str) -> None:
    go("run", sft(), from_=base, stop_after_tokens=2000)
    write_chats(
        "chats.jsonl", {"conversations": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}
    )
    with pytest.raises(UserError, match="other data"):
        go("run", sft(), from_=base)


def test_chats_may_be_part_of_a_mixture(base: str) -> None:
    parts = [{"weight": 1, "data": CHATS}, {"weight": 1, "data": {"source": "text", "paths": ["text.txt"]}}]
    result = go("run", sft(data={"source": "mixture", "parts": parts}, tokens=640), from_=base)
    assert result.status == "complete" and miniwin.load("run").chat_format == FORMAT


def test_a_wrong_line_ends_the_command_and_nothing_is_written(base: str) -> None:
    write_chats("chats.jsonl", {"conversations": [{"role": "user", "content": "only asked"}]})
    Path("spec.yaml").write_text(dump_yaml(sft()))
    Path("m.yaml").write_text(dump_yaml(tiny_model()))
    options = ["--train", "spec.yaml", "--out", "run", "--tracking", "off", "--device", "cpu", "--quiet"]
    code, _, err = run_cli("train", "m.yaml", "--from", base, *options)
    assert code == 2 and not Path("run").exists(), err
    assert "chats.jsonl:61: no answer in it" in err
    write_chats("chats.jsonl")
    code, _, err = run_cli("train", "m.yaml", *options)
    assert code == 2 and not Path("run").exists(), err
    assert "chats need a chat template" in err

"""Evaluation during training: what is measured and when, what is kept, and that the training does not notice."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import start
from tiny import run_cli
from tiny_runs import assert_equal, tiny_model, tiny_train, train_there
from tiny_runs import write_text as write_corpus

import miniwin
from miniwin.checkpoint import load_checkpoint
from miniwin.data import prepare
from miniwin.data.checking import check_data
from miniwin.evaluation import evaluate, loss_at
from miniwin.evaluation.task_scores import score_task
from miniwin.evaluation.tasks import LastWrite
from miniwin.language_model import LanguageModel
from miniwin.runs import BEST, RunResult, keep_metrics, read_evaluations, read_lines, read_metrics, read_run
from miniwin.specs import TrainSpec, UserError, dump_yaml, load_train_spec
from miniwin.tokenizer import load_tokenizer
from miniwin.training.launch import train
from miniwin.training.validation import Validation
from miniwin.zoo import resolve

EVAL = {
    "every": 1000,  # steps of 128 tokens: 8, 16, 24 and, at the end, 30
    "lengths": [64, 96],
    "tokens": 500,
    "tasks": [{"type": "last-write"}],
    "examples": 4,
    "keep_best": "minimize loss@96",
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path)


def spec(**changes: Any) -> TrainSpec:
    return tiny_train(eval={**EVAL, **changes})


def go(out: str, how: TrainSpec, **options: Any) -> RunResult:
    return train(tiny_model(), how, out=out, progress=False, tracking="off", device="cpu", **options)


def timeless(folder: str) -> list[dict[str, Any]]:
    clock = {"tokens_per_second": None, "seconds": None}
    return [{**line, **clock} for line in read_lines(folder)]


def test_each_multiple_and_the_end_are_measured_as_an_evaluation_would() -> None:
    result = go("run", spec())
    lines = read_evaluations("run")
    assert [(line["step"], line["tokens"]) for line in lines] == [(8, 1024), (16, 2048), (24, 3072), (30, 3840)]
    assert [line["step"] for line in read_metrics("run")] == list(range(1, 31)), "and no line of them among these"
    names = ["loss@64", "bits_per_byte@64", "loss@96", "bits_per_byte@96"]
    names += ["last-write@64", "last-write-nats@64", "last-write@96", "last-write-nats@96"]
    assert list(lines[-1]["eval"]) == names
    model, values = miniwin.load("run"), lines[-1]["eval"]
    corpus = prepare(spec().data, load_tokenizer("byte"), Path())
    for length in (64, 96):
        loss = loss_at(model, corpus, length, 500)
        assert values[f"loss@{length}"] == {"value": loss, "n": 500}
        assert values[f"bits_per_byte@{length}"] == {"value": loss / math.log(2), "n": 500}
        score = score_task(model, LastWrite(), length, examples=4, split="valid")
        row = values[f"last-write@{length}"]
        assert (row["value"], row["n"], row["chance"]) == (score.accuracy, 4, LastWrite().chance)
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
        assert values[f"last-write-nats@{length}"]["value"] == score.nats_per_answer
    assert result.status == "complete"


def test_the_default_lengths_and_tokens_are_those_of_the_training_and_of_eval() -> None:
    go("run", tiny_train(seq_len=[16, 32], eval={"every": 1e9}))
    (line,) = read_evaluations("run")
    valid = prepare(spec().data, load_tokenizer("byte"), Path()).valid
    assert list(line["eval"]) == ["loss@16", "bits_per_byte@16", "loss@32", "bits_per_byte@32"]
    assert line["eval"]["loss@32"]["n"] == len(valid) - 1


def test_lengths_may_be_multiples_of_the_training_length() -> None:
    best = go("run", tiny_train(eval={"every": 1e9, "lengths": ["3x", 32], "keep_best": "minimize loss@3x"})).best
    (line,) = read_evaluations("run")
    assert list(line["eval"]) == ["loss@32", "bits_per_byte@32", "loss@96", "bits_per_byte@96"]
    assert best is not None and best["name"] == "loss@96"


def test_the_training_does_not_notice() -> None:
    """Modes and random draws included: the evaluation here draws numbers, and leaves the model in eval mode."""
    go("plain", tiny_train())

    def meddle(self: Validation, model: LanguageModel, *rest: Any) -> dict[str, Any]:
        torch.randn(3)
        return measure(self, model, *rest)

    measure = Validation.measure
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Validation, "measure", meddle)
        go("run", spec())
    assert (Path("plain") / "model.safetensors").read_bytes() == (Path("run") / "model.safetensors").read_bytes()
    one, other = (load_checkpoint(Path(name) / "checkpoint.pt") for name in ("plain", "run"))
    assert other.pop("best") and "best" not in one
    clock = {"seconds": None, "step_seconds": None}
    assert_equal({**one, **clock}, {**other, **clock})
    assert [line["loss"] for line in read_metrics("plain")] == [line["loss"] for line in read_metrics("run")]


def test_time_of_an_evaluation_is_no_time_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation here takes an hour, as the clock says."""
    now = 0.0
    measure = Validation.measure

    def slowly(*of: Any) -> dict[str, Any]:
        nonlocal now
        now += 3600
        return measure(*of)

    def clock() -> float:
        nonlocal now
        now += 1e-3
        return now

    monkeypatch.setattr(Validation, "measure", slowly)
    monkeypatch.setattr("miniwin.training.loop.time.monotonic", clock)
    result = go("run", spec(tasks=[], keep_best=None))
    assert result.seconds > 4 * 3600
    assert result.tokens_per_second > 128 / 2e-2, "a step takes a few ticks of this clock"


def test_pieces_equal_the_whole() -> None:
    go("whole", spec())
    for tokens in (1024, 1025, 2000, 3700):
        assert go("pieces", spec(), stop_after_tokens=tokens).status == "interrupted"
    go("pieces", spec())
    assert timeless("whole") == timeless("pieces")
    for name in ("model.safetensors", BEST):
        assert (Path("whole") / name).read_bytes() == (Path("pieces") / name).read_bytes()
    assert read_run("whole")["best"] == read_run("pieces")["best"]


def rising() -> TrainSpec:
    """The learning rate rises to such a height that the last weights are not the best."""
    return tiny_train(eval=EVAL, optimizer={"lr": 1.0}, schedule={"type": "cosine", "warmup": 1.0})


PLACES = {  # what a process calls as it dies, the how manieth time, and the step of its checkpoint then
    "in an evaluation": ("miniwin.training.validation.score_task", 3, 8),
    "before the checkpoint": ("miniwin.training.engine.save_checkpoint", 2, 8),
    "before the weights": ("miniwin.training.run_writer.save", 2, 16),
    "before the record": ("miniwin.runs.write_json", 5, 16),
}


def dies_there(place: str, times: int, out: str, written: str, threads: int) -> None:
    """Trains until a function is called for the so many-th time, and dies without another word."""
    import importlib

    module, _, name = place.rpartition(".")
    target = importlib.import_module(module)
    real, left = getattr(target, name), times

    def fatal(*of: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), 9)
        return real(*of, **options)

    setattr(target, name, fatal)
    train_there(out, written, threads)


@pytest.mark.parametrize("where", PLACES)
def test_a_killed_evaluation_is_neither_lost_nor_repeated(where: str) -> None:
    how = rising()
    assert go("whole", how).best["step"] == 16, "so the killed process was about to keep the best of all"
    place, times, step = PLACES[where]
    process = start(dies_there, place, times, "killed", dump_yaml(how), torch.get_num_threads())
    process.join()
    assert load_checkpoint(Path("killed/checkpoint.pt"))["step"] == step
    assert read_run("killed")["status"] == "running" and read_run("killed")["best"]["step"] == 8
    assert go("killed", how).status == "complete"
    assert timeless("whole") == timeless("killed")
    for name in ("model.safetensors", BEST):
        assert (Path("whole") / name).read_bytes() == (Path("killed") / name).read_bytes(), name
    assert read_run("whole")["best"] == read_run("killed")["best"]
    assert not list(Path("killed").glob(".*.tmp"))


def test_the_best_weights_are_kept_and_load() -> None:
    how = rising()
    result = go("run", how)
    losses = {line["step"]: line["eval"]["loss@96"]["value"] for line in read_evaluations("run")}
    step = min(losses, key=lambda one: losses[one])
    assert step != 30, "or this test says nothing"
    assert result.best == read_run("run")["best"]
    assert result.best == {"name": "loss@96", "value": losses[step], "step": step, "tokens": step * 128}
    corpus = prepare(how.data, load_tokenizer("byte"), Path())
    assert loss_at(miniwin.load("run/best.safetensors"), corpus, 96, 500) == losses[step]
    assert loss_at(miniwin.load("run"), corpus, 96, 500) == losses[30], "the run itself is its last weights"
    assert miniwin.load("run/best.safetensors").ref == "run/best.safetensors"


def test_the_end_of_a_run_names_the_best_weights() -> None:
    Path("model.yaml").write_text(dump_yaml(tiny_model()))
    Path("train.yaml").write_text(dump_yaml(rising()))
    line = ("train", "model.yaml", "--train", "train.yaml", "--out", "run", "--quiet", "--tracking", "off")
    for _ in range(2):  # also of a run that was over already
        code, out, _ = run_cli(*line)
        best = read_run("run")["best"]
        said = f"  best weights: {Path('run', BEST)} (loss@96 {best['value']:.4f} after step {best['step']})"
        assert code == 0 and said in out.splitlines()
    code, out, _ = run_cli(*line, "--fresh", "--set-train", "eval=null")
    assert code == 0 and "best" not in out


def test_of_equal_evaluations_the_first_is_kept_and_what_is_no_number_never() -> None:
    validation = Validation(spec(keep_best="maximize last-write@64"), ())

    def line(step: int, value: float | None) -> dict[str, Any]:
        return {"step": step, "tokens": step * 128, "eval": {"last-write@64": {"value": value}}}

    found = [validation.improved(line(step, value)) for step, value in enumerate([math.nan, None, 0.2, 0.2, 0.1, 0.3])]
    assert found == [False, False, True, False, False, True]
    assert validation.best == {"name": "last-write@64", "value": 0.3, "step": 5, "tokens": 640}


def test_best_weights_that_are_not_there_are_said() -> None:
    go("run", tiny_train())
    with pytest.raises(
        UserError, match=r"run has no best\.safetensors: it is written at the first evaluation, and only"
    ):
        miniwin.load("run/best.safetensors")


def test_the_zoo_takes_the_best_weights(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from miniwin.zoo import add

    how = rising()
    best = go("run", how).best
    entry = add("run/best.safetensors", name="tiny", zoo=tmp_path / "zoo")
    assert_equal(load_file(entry.folder / "model.safetensors"), load_file(Path("run") / BEST))
    assert entry.provenance["weights"] == best and best is not None
    assert f"| Weights of the best evaluation | name loss@96, value {best['value']}" in entry.card
    with pytest.raises(ValueError, match=r"there is no such file or folder|not a run folder"):
        add("elsewhere/best.safetensors", name="other", zoo=tmp_path / "zoo")


def test_the_zoo_measures_the_best_weights_of_a_run_on_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "zoo"))
    go("run", rising())
    for name, source in (("best", "run/best.safetensors"), ("last", "run")):
        code, _, err = run_cli("zoo", "add", source, "--name", name)
        assert code == 0, err
    best, last = resolve("best").metrics, resolve("last").metrics
    assert list(best["bits_per_byte"]) == ["32", "128", "512", "1024"], "multiples of the length of the run"
    found = evaluate("run/best.safetensors", lengths=[32, 128, 512, 1024], recall=False, speed=False).to_dict()
    assert best["bits_per_byte"] == {str(n): bits for n, bits in found["bits_per_byte"].items()}
    assert best["bits_per_byte"] != last["bits_per_byte"]


def test_progress_says_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny_model(), spec(), out="run", progress=True, tracking="off", device="cpu")
    said = [line for line in capsys.readouterr().err.splitlines() if "valid" in line]
    values = read_evaluations("run")[0]["eval"]
    assert len(said) == 4
    assert said[0].startswith(
        f"run: valid  bits_per_byte@64 {values['bits_per_byte@64']['value']:.3f}  bits_per_byte@96 "
    )
    assert f"last-write@64 {values['last-write@64']['value']:.3f}" in said[0]


def test_lines_past_the_checkpoint_are_cut() -> None:
    go("run", spec(), stop_after_tokens=2048)
    assert [line["step"] for line in keep_metrics(Path("run"), 8) if "eval" in line] == [8]
    assert [line["step"] for line in read_lines("run")] == [*range(1, 9), 8]


# Refusals

REFUSED = {
    "every": (
        {"every": 100},
        "eval.every: got 100 tokens, and one optimizer step sees 128; expected at least one step",
    ),
    "tokens": ({"tokens": 95}, "eval.tokens: got 95, fewer than one window of 96; expected at least that"),
    "room": (
        {"lengths": [9, 64]},
        "eval.tasks.0: task last-write: an example takes at least 35 bytes, and length is 9",
    ),
    "twice": (
        {"tasks": [{"type": "last-write"}, {"type": "last-write", "writes": 2}]},
        "eval.tasks.1: the task last-write is there twice; its values would share their names",
    ),
    "unknown": (
        {"tasks": [{"type": "last-rite"}]},
        "eval.tasks.0.type: unknown type 'last-rite'; did you mean 'last-write'",
    ),
    "nothing": ({"tokens": 0, "tasks": []}, "eval: nothing would be measured; name tasks, or leave out tokens: 0"),
    "best": ({"keep_best": "minimize loss@128"}, "eval.keep_best: loss@128 is not measured here; did you mean 'loss@"),
    "cost": ({"keep_best": "minimize parameters"}, "eval.keep_best: parameters is not measured here; known: "),
    "words": ({"keep_best": "loss@96"}, "eval.keep_best: objective 'loss@96' cannot be read; expected 'minimize' or"),
    "direction": (
        {"keep_best": "maximize loss@96"},
        "eval.keep_best: objective 'maximize loss@96': loss is better when lower; write",
    ),
    "lengths": ({"lengths": []}, "eval.lengths: got []; expected 1 or more"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_refused(case: str) -> None:
    changes, message = REFUSED[case]
    written = json.loads(json.dumps(tiny_train().model_dump(mode="json")))
    Path("train.yaml").write_text(json.dumps({**written, "eval": {**EVAL, **changes}}, indent=1))
    with pytest.raises(UserError) as caught:
        load_train_spec("train.yaml")
    place, _, said = str(caught.value).splitlines()[0].partition(": ")
    assert said.startswith(message)
    assert place.startswith("train.yaml:") and place.count(":") == 2


def test_lengths_beyond_the_text_are_refused_before_there_is_a_folder() -> None:
    how = tiny_train(eval={"every": 1000, "lengths": [64, 100_000]})
    with pytest.raises(
        UserError, match=r"eval\.lengths: the validation split has \d+ tokens to predict, and 100000 are"
    ):
        go("run", how)
    assert not Path("run").exists()


def test_examples_of_a_task_have_no_text_to_measure_on() -> None:
    data = {"source": "examples", "task": {"type": "last-write"}}
    with pytest.raises(UserError, match=r"eval\.tokens: the data are examples of tasks, and no text to measure"):
        tiny_train(data=data, eval={**EVAL, "keep_best": None})
    how = tiny_train(
        data=data, seq_len=64, batch_size=2, eval={**EVAL, "tokens": None, "keep_best": "minimize last-write-nats@64"}
    )
    go("run", how)
    assert {name.partition("@")[0] for name in read_evaluations("run")[0]["eval"]} == {"last-write", "last-write-nats"}
    with pytest.raises(UserError, match=r"eval\.keep_best: loss@96 is not measured here"):
        tiny_train(data=data, eval={**EVAL, "tokens": None})
    with pytest.raises(UserError, match=r"eval: nothing would be measured; name tasks$"):
        tiny_train(data=data, eval={"every": 1000})


def test_a_tokenizer_without_the_characters_of_a_task_is_refused() -> None:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    words = ["[UNK]", "</s>", *"abcdefghijklmnopqrstuvwxyz .\n"]
    small = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, "[UNK]"))
    small.add_special_tokens(["</s>"])
    small.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    small.save("small.json")
    how = tiny_train(tokenizer="small.json", eval=EVAL)
    lacking = r"eval\.tasks\.0: the tokenizer wordlevel\S* has no single token for the character"
    with pytest.raises(UserError, match=lacking):
        go("run", how)
    assert not Path("run").exists()
    Path("train.yaml").write_text(dump_yaml(how))
    with pytest.raises(UserError, match=r"train\.yaml:\d+:\d+: " + lacking):
        check_data(how, Path("train.yaml"))


def test_old_specs_have_no_such_field() -> None:
    assert "eval" not in tiny_train().model_dump(mode="json")
    assert load_train_spec_of(spec()) == spec()


def load_train_spec_of(how: TrainSpec) -> TrainSpec:
    Path("again.yaml").write_text(dump_yaml(how))
    found: TrainSpec = load_train_spec("again.yaml")
    return found

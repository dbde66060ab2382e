"""Runs that learn from a teacher: the losses, resuming, the cache, and all that is refused."""

from __future__ import annotations

import json
import random
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import kill, start
from tiny_runs import MIXTURE, assert_equal, tiny_model, tiny_train, write_text
from torch.nn import functional as F
from typer.testing import CliRunner

import miniwin
from miniwin.blocks import native
from miniwin.checkpoint import load_checkpoint
from miniwin.cli import app
from miniwin.data import batch_at, prepare
from miniwin.runs import RunResult, read_metrics, read_run
from miniwin.specs import ModelSpec, TrainSpec, UserError, dump_yaml, load_train_spec, parse_spec
from miniwin.tokenizer import load_tokenizer
from miniwin.training.distilling import cache as caches
from miniwin.training.distilling.teacher import Teacher
from miniwin.training.launch import train

LAYERS = ("hidden", "attention_output")


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two: one that is wider than the student, and a twin of its width."""
    folder = tmp_path_factory.mktemp("teachers")
    write_text(folder)
    for name, model in (("teacher", big()), ("twin", big(hidden_size=32))):
        go(str(folder / name), model=model, spec=briefly(), base=folder)
    return folder


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, teachers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in ("teacher", "twin"):
        shutil.copytree(teachers / name, name)
    write_text(tmp_path)


def write_chats() -> None:
    chats = [[("user", str(number) * 2), ("assistant", "yes " * (number % 5 + 1))] for number in range(60)]
    lines = [{"conversations": [{"role": role, "content": said} for role, said in chat]} for chat in chats]
    Path("chats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("template.jinja").write_text(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ '\\x00' }}\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )


def briefly(seed: int = 3) -> TrainSpec:
    return tiny_train(tokens=8 * 128, seed=seed)


def big(**changes: Any) -> ModelSpec:
    """A teacher with other sizes than the student's."""
    return tiny_model(**{"name": "tiny-teacher", "hidden_size": 48, "num_layers": 4, "pattern": "SSSG", **changes})


def go(out: str, distill: dict[str, Any] | None = None, **options: Any) -> RunResult:
    model, spec = options.pop("model", None) or tiny_model(), options.pop("spec", None)
    if spec is None:
        given = {} if distill is None else {"distill": {"teacher": "teacher", **distill}}
        spec = tiny_train(**given, **options.pop("train", {}))
    return train(model, spec, out=out, progress=False, tracking="off", device="cpu", **options)


def timeless(folder: str) -> list[dict[str, Any]]:
    return [{**line, "tokens_per_second": None} for line in read_metrics(folder)]


def weights(folder: str) -> bytes:
    return Path(folder, "model.safetensors").read_bytes()


def refused(match: str, distill: dict[str, Any], **options: Any) -> None:
    """It is refused, and no run is written."""
    with pytest.raises(UserError, match=match):
        go("refused", distill, **options)
    assert not Path("refused/run.json").exists()


def first_batch(spec: TrainSpec) -> tuple[torch.Tensor, torch.Tensor]:
    corpus = prepare(spec.resolved(Path.cwd()).data, load_tokenizer("byte"), progress=False)
    return batch_at(corpus.rows, 0, batch_size=spec.batch_size, seq_len=spec.longest, seed=spec.seed)


# The losses


@pytest.mark.parametrize(("temperature", "weight"), [(1, 0.5), (2, 1)])
def test_kl_is_that_of_the_two_models(temperature: float, weight: float) -> None:
    how = {"temperature": temperature, "weight": weight}
    go("run", how, stop_after_tokens=1)
    line = read_metrics("run")[0]
    spec = tiny_train()
    inputs, targets = first_batch(spec)
    torch.manual_seed(spec.seed)
    student = tiny_model().build()
    z, theirs = student(inputs).flatten(0, 1), miniwin.load("teacher")(inputs).detach().flatten(0, 1)
    kl = F.kl_div(
        torch.log_softmax(z / temperature, -1), torch.softmax(theirs / temperature, -1), reduction="batchmean"
    )
    next_token = F.cross_entropy(z, targets.flatten())
    assert line["loss"] == pytest.approx(float(next_token), rel=1e-5), "the reported loss is the next-token loss"
    assert line["distillation_loss"] == pytest.approx(float(kl) * temperature**2, rel=1e-4)
    ((1 - weight) * next_token + weight * temperature**2 * kl).backward()
    norm = torch.stack([parameter.grad.norm() for parameter in student.parameters()]).norm()
    assert line["grad_norm"] == pytest.approx(float(norm), rel=1e-4)


@pytest.mark.parametrize("loss", LAYERS)
@pytest.mark.parametrize("layers", [None, [3, 0]])
def test_layers_are_compared_with_those_of_the_map(loss: str, layers: list[int] | None) -> None:
    go("run", {"teacher": "twin", "loss": loss, **({"layers": layers} if layers else {})}, stop_after_tokens=1)
    inputs, _ = first_batch(tiny_train())
    torch.manual_seed(0)
    heard = []
    for decoder in (tiny_model().build(), miniwin.load("twin").decoder):
        own: list[torch.Tensor] = []
        for layer in decoder.layers:
            module = layer if loss == "hidden" else layer.attention
            module.register_forward_hook(lambda module, given, output, own=own: own.append(output))
        with torch.no_grad():
            decoder.hidden(inputs)
        heard.append(own)
    found = []
    for mine, place in zip(heard[0], layers or [1, 3], strict=True):  # evenly: of four the second and the fourth
        said = heard[1][place]
        size = said.square().sum(-1)  # (B, N)
        size = size if loss == "hidden" else size.mean(1, keepdim=True)
        found.append(((mine - said).square().sum(-1) / size).mean())
    assert read_metrics("run")[0]["distillation_loss"] == pytest.approx(float(torch.stack(found).mean()), rel=1e-4)


@pytest.mark.parametrize("loss", ["kl", *LAYERS])
def test_a_model_learns_nothing_from_itself(loss: str) -> None:
    """All gradients but the next-token loss's are 0, and so is the loss. Without our kernels PyTorch may sum in another
    order where gradients are wanted, and rounding is left."""
    go("same", {"teacher": "teacher", "loss": loss, "weight": 1}, model=big(), from_="teacher", stop_after_tokens=1)
    line = read_metrics("same")[0]
    found = line["distillation_loss"], line["grad_norm"]
    assert found == ((0, 0) if native.missing() is None else pytest.approx((0, 0), abs=1e-6)) and line["loss"] > 1


@pytest.mark.parametrize("loss", ["kl", *LAYERS])
def test_the_student_comes_nearer_to_its_teacher(loss: str) -> None:
    go("run", {"teacher": "twin", "loss": loss, "weight": 1})
    said = [line["distillation_loss"] for line in read_metrics("run")]
    assert said[-1] < 0.9 * said[0]


def test_only_counted_tokens_are_learnt_from() -> None:
    """The prompt of a task is not: whatever the teacher says there changes nothing."""
    task = {"data": {"source": "examples", "task": {"type": "last-write"}, "loss": "answers"}, "seq_len": 64}
    go("run", {}, train=task, stop_after_tokens=1)
    spec = tiny_train(**task)
    inputs, targets = first_batch(spec)
    torch.manual_seed(0)
    z, theirs = tiny_model().build()(inputs), miniwin.load("teacher")(inputs)
    real = targets != -100
    assert 0 < int(real.sum()) < targets.numel() / 2
    kl = F.kl_div(torch.log_softmax(z[real], -1), torch.softmax(theirs[real], -1), reduction="batchmean")
    assert read_metrics("run")[0]["distillation_loss"] == pytest.approx(float(kl), rel=1e-4)


def test_passes_of_a_step_are_the_batch_in_pieces() -> None:
    one, four = {"batch_size": 4}, {"batch_size": 1, "gradient_accumulation": 4}
    for name, batch in (("one", one), ("four", four)):
        go(name, {}, train={**batch, "tokens": 256})
    for whole, pieces in zip(read_metrics("one"), read_metrics("four"), strict=True):
        for key in ("loss", "distillation_loss", "grad_norm"):
            assert whole[key] == pytest.approx(pieces[key], rel=1e-4)


EVERYTHING: dict[str, dict[str, Any]] = {
    "text": {},
    "mixture of two lengths": {**MIXTURE, "batch_size": 2, "packing": "documents"},
    "bfloat16": {"dtype": "bfloat16", "gradient_accumulation": 2},
    "chats": {
        "data": {"source": "chat", "paths": ["chats.jsonl"], "template": "template.jinja"},
        "seq_len": 64,
        "packing": "documents",
    },
}


@pytest.mark.parametrize("loss", ["kl", *LAYERS])
@pytest.mark.parametrize("data", list(EVERYTHING))
def test_pieces_equal_the_whole(loss: str, data: str) -> None:
    write_chats()
    how, changes = {"teacher": "twin", "loss": loss}, {"train": {**EVERYTHING[data], "tokens": 1000}}
    go("whole", how, **changes)
    go("pieces", how, **changes, stop_after_tokens=300)
    go("pieces", how, **changes)
    assert weights("whole") == weights("pieces") and timeless("whole") == timeless("pieces")
    assert all("distillation_loss" in line for line in timeless("whole"))
    if "losses" in timeless("whole")[0]:  # of each part, and of all: next-token losses
        assert min(timeless("whole")[0]["losses"].values()) > 2


def taught_there(out: str, spec: str, threads: int) -> None:
    """Trains in `out`: what processes do that the test kills."""
    torch.set_num_threads(threads)
    Path("spec.yaml").write_text(spec)
    train(tiny_model(), "spec.yaml", out=out, progress=False, tracking="off", device="cpu")


def test_killed_five_times_it_is_the_run_that_nobody_killed() -> None:
    """With a cache, of which any file may be half there."""
    distill = {"teacher": "teacher", "cache": "states"}
    spec = tiny_train(checkpoint_seconds=0, tokens=24 * 128, distill=distill)
    go("whole", {}, train={"checkpoint_seconds": 0, "tokens": 24 * 128})
    rng, done = random.Random(0), 0
    for _ in range(5):
        process = start(taught_there, "killed", dump_yaml(spec), torch.get_num_threads())
        wanted, metrics = done + rng.randint(2, 4), Path("killed/metrics.jsonl")
        while process.is_alive() and not (metrics.exists() and metrics.read_bytes().count(b"\n") >= wanted):
            time.sleep(0.002)
        kill(process)
        done = len(read_metrics("killed"))
    assert 0 < done < 24
    go("killed", spec=spec)
    clock = {"seconds": None, "step_seconds": None}
    one, other = (load_checkpoint(Path(name, "checkpoint.pt")) for name in ("whole", "killed"))
    assert_equal({**one, **clock}, {**other, **clock})
    assert weights("whole") == weights("killed") and timeless("whole") == timeless("killed")


def test_an_evaluation_and_a_checkpoint_know_nothing_of_the_teacher() -> None:
    go("plain", train={"eval": {"every": 1280, "tokens": 512}})
    go("taught", {}, train={"eval": {"every": 1280, "tokens": 512}})
    names = [set(load_checkpoint(Path(name, "checkpoint.pt"))["model"]) for name in ("plain", "taught")]
    assert names[0] == names[1]
    assert read_run("taught")["parameters"] == read_run("plain")["parameters"]
    found = miniwin.evaluate("taught", lengths=[32], tokens_per_length=512, recall=False, speed=False)
    assert found is not None


# The cache


def count_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has one entry for each pass that a teacher computes."""
    passes: list[int] = []
    hidden = Teacher._hidden

    def counted(self: Teacher, *given: Any) -> torch.Tensor:
        passes.append(1)
        return hidden(self, *given)

    monkeypatch.setattr(Teacher, "_hidden", counted)
    return passes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_cache_changes_no_bit_and_saves_the_teachers_work(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = count_passes(monkeypatch)
    changes = {"train": {"tokens": 1000, "dtype": dtype}}
    go("without", {}, **changes)
    steps = len(passes)
    go("first", {"cache": "states"}, **changes)
    assert len(passes) == 2 * steps
    go("second", {"cache": "states", "temperature": 2}, **changes)
    go("third", {"cache": "states"}, **changes)
    assert len(passes) == 2 * steps, "nothing is computed twice"
    assert weights("without") == weights("first") == weights("third") != weights("second")
    assert timeless("without") == timeless("first") == timeless("third")
    (folder,) = Path("states").iterdir()
    about = json.loads((folder / "about.json").read_text())
    assert about["teacher"] == read_run("first")["teacher"]["sha256"] and about["dtype"] == dtype
    assert len(list(folder.glob("*.safetensors"))) == steps


def test_nothing_is_taken_from_the_cache_that_would_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = count_passes(monkeypatch)
    go("other", model=big(), spec=briefly(seed=4))

    def computes(name: str, expected: int, how: dict[str, Any] | None = None, **changes: Any) -> None:
        passes.clear()
        go(name, {"cache": "states", **(how or {})}, train={"tokens": 256, **changes})
        assert len(passes) == expected, name

    computes("first", 2)
    computes("again", 0)
    computes("rate", 0, optimizer={"lr": 1e-3})
    computes("teacher-other", 2, {"teacher": "other"})
    computes("length", 2, seq_len=16, batch_size=8)
    computes("batch", 4, batch_size=2)
    computes("seed", 2, seed=1)
    computes("packing", 2, packing="documents")
    computes("dtype", 2, dtype="bfloat16")
    Path("text.txt").write_text(Path("text.txt").read_text()[9:])
    computes("text", 2)


def test_a_damaged_file_of_the_cache_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = count_passes(monkeypatch)
    go("first", {"cache": "states"}, train={"tokens": 512})
    files = sorted(Path("states").glob("*/*.safetensors"))
    whole = [file.read_bytes() for file in files]
    files[0].write_bytes(whole[0][: len(whole[0]) // 2])
    files[1].write_bytes(b"")
    passes.clear()
    go("second", {"cache": "states"}, train={"tokens": 512})
    assert len(passes) == 2 and [file.read_bytes() for file in files] == whole
    assert weights("first") == weights("second")


def test_true_is_miniwins_own_cache() -> None:
    go("run", {"cache": True}, train={"tokens": 256})
    assert len(list(Path("cache/teachers").glob("*/*.safetensors"))) == 2


def test_a_disk_without_room_is_said_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda path: usage._replace(free=9_999))
    size = "take 24.6 kB, 0 B are there, and 10.0 kB are free"  # 128 tokens of 48 float32
    refused(f"distill.cache: the teacher's states of this run {size}", {"cache": "states"}, train={"tokens": 128})
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda path: usage._replace(free=30_000))
    go("run", {"cache": "states"}, train={"tokens": 128})
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda path: usage._replace(free=0))
    go("again", {"cache": "states"}, train={"tokens": 128})  # what is there needs no room


def test_a_cache_that_cannot_be_made_is_refused() -> None:
    Path("file").write_text("mine")
    refused("distill.cache: .*file/.* cannot be made or read", {"cache": "file"})


# Going on


def test_a_run_goes_on_only_with_the_teacher_that_it_had() -> None:
    go("run", {}, stop_after_tokens=500)
    assert read_run("run")["teacher"]["ref"] == str(Path("teacher").resolve())
    before = Path("run/run.json").read_bytes()
    shutil.move("teacher", "kept")
    with pytest.raises(UserError, match=r"distill\.teacher: teacher: no such file or folder"):
        go("run", {})
    go("teacher", model=big(), spec=briefly(seed=4))
    with pytest.raises(UserError, match=r"run holds a run that learns from other weights \(of .*teacher, sha256 "):
        go("run", {})
    with pytest.raises(UserError, match=r"with other settings \(train.distill.weight: 0.5 there, 0.6 now\)"):
        go("run", {"teacher": "kept", "weight": 0.6})
    with pytest.raises(UserError, match=r"with other settings \(train\.distill: \{"):
        go("run")
    assert Path("run/run.json").read_bytes() == before
    go("run", {"teacher": "kept", "cache": True})  # under another name, and a cache is no other setting
    go("whole", {"teacher": "kept"})
    assert weights("run") == weights("whole")


def test_a_spec_without_a_teacher_is_written_as_before() -> None:
    assert "distill" not in tiny_train().model_dump(mode="json")
    spec = tiny_train(distill={"teacher": "a"})
    assert spec.model_dump(mode="json")["distill"] == {
        "teacher": "a",
        "loss": "kl",
        "temperature": 1.0,
        "weight": 0.5,
    }
    assert parse_spec(spec.model_dump(mode="json"), "train") == spec


def test_paths_start_at_the_yaml_file_where_the_teacher_is_there(tmp_path: Path) -> None:
    spec = tiny_train(distill={"teacher": "teacher", "cache": "states"})
    found = spec.resolved(tmp_path).distill
    assert found is not None
    assert (found.teacher, found.cache) == (str(tmp_path / "teacher"), str(tmp_path / "states"))
    elsewhere = spec.resolved(tmp_path / "elsewhere").distill
    assert elsewhere is not None and elsewhere.teacher == "teacher", "a name, or a path from here"


# What is refused


SPECS = [
    ({"temperature": 0}, "distill.temperature: got 0; expected more than 0"),
    ({"weight": 0}, "distill.weight: got 0, with which the teacher says nothing; leave out distill"),
    ({"weight": 1.5}, "distill.weight: got 1.5; expected"),
    ({"loss": "mse"}, "distill.loss: got 'mse'; expected"),
    ({"teacher": ""}, "distill.teacher: got an empty name; expected a run folder"),
    ({"loss": "hidden", "temperature": 2}, "distill.temperature: got 2 with loss: hidden; expected it with kl only"),
    ({"layers": [0, 1]}, "distill.layers: got layers with loss: kl"),
    ({"loss": "hidden", "cache": True}, "distill.cache: got True with loss: hidden, which needs the states of every"),
]


@pytest.mark.parametrize(("distill", "message"), SPECS)
def test_a_wrong_field_is_said_with_its_place(distill: dict[str, Any], message: str) -> None:
    Path("spec.yaml").write_text(
        dump_yaml(tiny_train()) + f"distill: {json.dumps({'teacher': 'teacher', **distill})}\n"
    )
    with pytest.raises(UserError, match=r"spec\.yaml:") as caught:
        load_train_spec("spec.yaml")
    assert message in str(caught.value)


def test_a_teacher_that_does_not_fit_is_refused() -> None:
    Path("spec.yaml").write_text(dump_yaml(big()))
    refused(
        r"distill\.teacher: .*spec.yaml is a model spec, which has no weights; .* folder$", {"teacher": "spec.yaml"}
    )
    refused(r"distill\.teacher: nowhere: no such file or folder", {"teacher": "nowhere"})
    go("wide", model=big(vocab_size=300), spec=tiny_train(tokens=128))
    refused("distill.teacher: .*wide has a vocab_size of 300, and the model 'tiny-test' of 256", {"teacher": "wide"})
    for loss in LAYERS:
        refused("has a hidden_size of 48, the model 'tiny-test' of 32; expected the same, or loss: kl", {"loss": loss})
    deep = {"teacher": "twin", "loss": "hidden"}
    refused("has 5 layers, the teacher only 4", deep, model=tiny_model(num_layers=5, pattern="SSGGG"))
    for layers in ([0], [0, 4]):
        refused("expected 2 numbers, one for each layer of 'tiny-test', from 0 to 3", {**deep, "layers": layers})
    refused("distill.loss: got hidden with compile: true", deep, train={"compile": True})
    damaged = Path("twin/model.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:1000])
    refused("cannot be read as safetensors", {"teacher": "twin"})


def test_a_teacher_with_another_tokenizer_is_refused(words: Callable[[], str]) -> None:
    refused("distill.teacher: .*teacher knows the ids of byte, and this run has ", {}, train={"tokenizer": words()})


@pytest.fixture
def words() -> Callable[[], str]:
    """Writes a tokenizer.json with 200 words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    def written() -> str:
        vocabulary = {f"w{number}": number for number in range(199)} | {"[UNK]": 199}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.save("words.json")
        return "words.json"

    return written


def test_positions_beyond_the_teachers_are_refused_and_lengths_beyond_its_training_warned_of() -> None:
    go("learned", model=big(embed_positions=32), spec=tiny_train(tokens=128))
    refused("has 32 learned positions", {"teacher": "learned"}, train={"seq_len": 64})
    with pytest.warns(UserWarning, match="was trained on 32 tokens at a time, and seq_len is 64"):
        go("run", {}, train={"seq_len": 64, "tokens": 256})


def test_the_teachers_own_folder_is_no_place_for_the_run() -> None:
    before = weights("teacher")
    with pytest.raises(UserError, match="is the folder that the run is written to"):
        go("teacher", {}, resume=False)
    assert weights("teacher") == before


def test_the_command_says_who_teaches_and_refuses_with_the_place_in_the_file() -> None:
    Path("model.yaml").write_text(dump_yaml(tiny_model()))
    Path("train.yaml").write_text(dump_yaml(tiny_train(tokens=256, distill={"teacher": "teacher"})))
    line = "train model.yaml --train train.yaml --out run --tracking off --device cpu --quiet"
    dry = CliRunner().invoke(app, [*line.split(), "--dry-run"])
    assert dry.exit_code == 0 and "; taught by" in dry.output and "(loss kl, weight 0.5)" in dry.output
    done = CliRunner().invoke(app, line.split())
    assert done.exit_code == 0, done.output
    for change in ("distill.teacher=nowhere", "distill.loss=hidden"):
        wrong = CliRunner().invoke(app, [*line.split(), "--fresh", "--set-train", change])
        assert isinstance(wrong.exception, UserError) and change.partition("=")[0] in str(wrong.exception)
    at = CliRunner().invoke(app, [*line.split(), "--fresh", "--set", "vocab_size=300"])
    assert isinstance(at.exception, UserError) and re.search(
        "train.yaml:[0-9]+:[0-9]+: distill.teacher: ", str(at.exception)
    )

"""Training that begins with the weights of another model: a run, a zoo entry or an import."""

from __future__ import annotations

import hashlib
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import kill, start, together
from hf_tokenizers import tokenizer_json
from safetensors.torch import load_file, save_file
from tiny import run_cli
from tiny_runs import assert_equal, tiny_model, tiny_train, train_there, write_text

import miniwin
from miniwin.chat.format import FILES, ChatFormat
from miniwin.checkpoint import load_checkpoint
from miniwin.runs import BEST, CHAT, RunResult, read_metrics, read_run
from miniwin.specs import ModelSpec, TrainSpec, UserError, dump_yaml, load_train_spec
from miniwin.training.launch import train
from miniwin.zoo import add

IDS = torch.arange(60).unsqueeze(0)
TINY = ["--tracking", "off", "--device", "cpu", "--quiet"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "zoo"))
    monkeypatch.setenv("MINIWIN_HOME", "home")
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)


@pytest.fixture
def base() -> RunResult:
    """A run of a few steps."""
    return go("base", tiny_train(tokens=640, seed=5))


def go(out: str, spec: TrainSpec, model: ModelSpec | str | None = None, **options: Any) -> RunResult:
    settings = {"progress": False, "tracking": "off", "device": "cpu", **options}
    return train(model or tiny_model(), spec, out=out, **settings)


def imported(folder: str = "imported", **changes: Any) -> Path:
    """A model as `miniwin import` leaves it, with a tokenizer of its own and an end that its files name."""
    path = Path(folder)
    path.mkdir()
    text = tokenizer_json()
    (path / "tokenizer.json").write_text(text)
    size = len(json.loads(text)["model"]["vocab"]) + 8
    spec = tiny_model(vocab_size=size, **changes)
    (path / "model.yaml").write_text(dump_yaml(spec))
    torch.manual_seed(1)
    save_file(spec.build().state_dict(), path / "model.safetensors")
    ids = {"eos_token_id": [2], "bos_token_id": 1, "pad_token_id": None}
    ChatFormat("{{ messages[0].content }}", ("<eos>",), {"bos_token": "<bos>"}).write(path)
    (path / "import.json").write_text(json.dumps({"format": 1, "special_ids": ids, "licence": "mit"}))
    return path


def test_no_step_gives_the_logits_of_the_weights(base: RunResult) -> None:
    entry = add(base.folder, name="mine", licence="cc-by-4.0")
    wanted = miniwin.load("base")(IDS)
    sha256 = hashlib.sha256(Path("base/model.safetensors").read_bytes()).hexdigest()
    for ref, kind, licence in ("base", "run", None), ("mine", "zoo entry", "cc-by-4.0"):
        out = f"from-{ref}"
        result = go(out, tiny_train(tokens=0, seed=9), model=ref, from_=ref)
        assert (result.status, result.steps, result.tokens) == ("complete", 0, 0)
        assert torch.equal(miniwin.load(out)(IDS), wanted)
        record = read_run(out)["from"]
        assert record == {
            "ref": ref,
            "kind": kind,
            "spec_hash": tiny_model().hash,
            "weights": "model.safetensors",
            "sha256": sha256 if kind == "run" else entry.require_manifest().files["model.safetensors"].sha256,
            "licence": licence,
            "map": [],
            "tensors": {"kept": 21},
        }


def test_the_weights_are_trained_on_and_the_base_stays(base: RunResult) -> None:
    before = Path("base/model.safetensors").read_bytes()
    on = go("on", tiny_train(tokens=640), from_="base")
    fresh = go("fresh", tiny_train(tokens=640))
    first = [read_metrics(folder)[0]["loss"] for folder in ("base", "on", "fresh")]
    assert first[1] < first[0] - 0.5 and abs(first[2] - first[0]) < 0.1
    assert on.final_loss < fresh.final_loss
    assert Path("base/model.safetensors").read_bytes() == before
    assert "from" not in read_run("fresh")


def test_the_best_weights_and_the_last_checkpoint_of_a_run() -> None:
    spec = tiny_train(eval={"every": 1000, "tokens": 100, "keep_best": "minimize loss@32"}, optimizer={"lr": 0.3})
    go("base", spec, stop_after_tokens=2500)
    for ref, name in (f"base/{BEST}", BEST), ("base", "checkpoint.pt"):
        go(f"from-{name}", tiny_train(tokens=0), from_=ref)
        assert read_run(f"from-{name}")["from"]["weights"] == name
        assert torch.equal(miniwin.load(f"from-{name}")(IDS), miniwin.load(ref)(IDS))


def test_an_import_brings_its_tokenizer_and_its_special_ids() -> None:
    folder = imported()
    result = go("on", tiny_train(tokens=256), model="imported", from_="imported")
    assert result.status == "complete"
    theirs, ours = miniwin.load(folder), miniwin.load("on")
    assert ours.special == theirs.special and ours.ends == theirs.ends == (2,)
    assert ours.chat_format == theirs.chat_format is not None and all(Path("on", name).exists() for name in CHAT)
    assert CHAT == FILES
    assert ours.tokenizer is not None and theirs.tokenizer is not None
    assert ours.tokenizer.identity == theirs.tokenizer.identity
    assert ours.tokenizer.encode_prompt("the window") == theirs.tokenizer.encode_prompt("the window")
    assert read_run("on")["from"]["licence"] == "mit" and read_run("on")["data"]["tokenizer"] == theirs.tokenizer.name
    spec = load_train_spec("on/train.yaml")
    assert spec.tokenizer == str(Path("on").resolve() / "tokenizer.json")
    go("again", spec.model_copy(update={"tokens": 0}), model="on", from_="on")
    assert miniwin.load("again").special == theirs.special
    entry = add("on", name="mine")
    assert miniwin.load("mine").special == theirs.special and entry.provenance["run"]["from"]["licence"] == "mit"


@pytest.mark.parametrize("said", ["byte", "imported/tokenizer.json"])
def test_a_tokenizer_that_is_said_has_to_be_that_of_the_weights(said: str) -> None:
    imported()
    options: dict[str, Any] = {"model": "imported", "from_": "imported"}
    if said == "byte":
        with pytest.raises(
            UserError, match=r"tokenizer: got byte \(byte\), and the weights of imported know the ids of"
        ):
            go("on", tiny_train(tokenizer="byte"), **options)
        assert not Path("on").exists()
    else:
        assert go("on", tiny_train(tokens=128, tokenizer=said), **options).status == "complete"


# -- stopping and continuing


def test_pieces_equal_the_whole(base: RunResult) -> None:
    spec = tiny_train(freeze=["layers.0.*"])
    go("whole", spec, from_="base")
    for tokens in (1, 1500, None):
        go("pieces", spec, from_="base", stop_after_tokens=tokens)
    same_run("whole", "pieces")


def test_kill_9_at_random_moments(base: RunResult) -> None:
    spec = tiny_train(checkpoint_seconds=0, tokens=60 * 128, freeze=["embed_tokens.weight"])
    go("whole", spec, from_="base")
    rng = random.Random(0)
    done = -1  # the first one dies before its first checkpoint
    for _ in range(6):
        process = start(train_there, "killed", dump_yaml(spec), torch.get_num_threads(), "base")
        deadline = done + rng.randint(1, 5)
        while process.is_alive() and len(read_metrics("killed")) < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.03))
        kill(process)
        done = len(read_metrics("killed"))
    assert go("killed", spec, from_="base").status == "complete"
    same_run("whole", "killed")
    assert read_run("killed")["from"] == read_run("whole")["from"]


def same_run(one: str, other: str) -> None:
    clock = {"seconds": None, "step_seconds": None}
    states = [{**load_checkpoint(Path(folder, "checkpoint.pt")), **clock} for folder in (one, other)]
    assert_equal(*states)
    assert Path(one, "model.safetensors").read_bytes() == Path(other, "model.safetensors").read_bytes()


def test_a_run_goes_on_only_with_the_weights_that_it_began_with(base: RunResult) -> None:
    def on(out: str = "on", **options: Any) -> RunResult:
        return go(out, tiny_train(), **{"from_": "base", **options})

    on(stop_after_tokens=1000)
    go("random", tiny_train(), stop_after_tokens=1000)
    before = {path: path.read_bytes() for folder in ("on", "random") for path in Path(folder).iterdir()}
    with pytest.raises(
        UserError, match=r"on holds a run that began with the weights of base, and not with random ones"
    ):
        on(from_=None)
    with pytest.raises(UserError, match=r"random holds a run that began with random weights, not with those of base"):
        on("random")
    tensors = load_file("base/model.safetensors")
    kept = Path("base/model.safetensors").read_bytes()
    save_file({**tensors, "norm.weight": tensors["norm.weight"] + 1}, "base/model.safetensors")
    with pytest.raises(UserError, match=r"on holds a run that began with other weights \(of base, sha256 \w{12}; base"):
        on()
    with pytest.raises(
        UserError, match=r"on holds a run that began with other maps \(\[\] there, \['norm.weight=fresh'\]"
    ):
        Path("base/model.safetensors").write_bytes(kept)
        on(maps=["norm.weight=fresh"])
    assert {path: path.read_bytes() for path in before} == before
    assert on().status == "complete"


def in_two_processes() -> None:
    for engine in ("ddp", "fsdp"):
        go(f"none-{engine}", tiny_train(tokens=0), from_="base", distributed=engine)
        go(f"some-{engine}", tiny_train(tokens=256), from_="base", distributed=engine, stop_after_tokens=128)
        go(f"some-{engine}", tiny_train(tokens=256), from_="base", distributed=engine)


def test_several_processes_begin_with_the_weights(base: RunResult) -> None:
    together(in_two_processes)
    go("alone", tiny_train(tokens=256), from_="base")
    for engine in ("ddp", "fsdp"):
        weights = Path(f"none-{engine}", "model.safetensors").read_bytes()
        assert weights == Path("base/model.safetensors").read_bytes()
        losses = [[line["loss"] for line in read_metrics(folder)] for folder in (f"some-{engine}", "alone")]
        assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_a_longer_context_is_one_command(base: RunResult) -> None:
    """Trained at 32, and continued at 128 with YaRN and a longer window."""
    yarn = "{type: yarn, factor: 4, original_max_position_embeddings: 32}"
    rope = f"blocks.S.attention.position={{type: rope, scaling: {yarn}}}"
    line = ["train", "base", "--from", "base", "--out", "long", "--set", rope, "--set", "blocks.S.attention.window=64"]
    line += ["--set-train", "seq_len=128", "--set-train", "batch_size=1", "--set-train", "tokens=256"]
    code, out, err = run_cli(*line, *TINY)
    assert code == 0 and out.startswith("complete: long"), err
    assert read_run("long")["from"]["tensors"] == {"kept": 21} and read_run("long")["train"]["seq_len"] == 128
    assert miniwin.load("long").spec.blocks["S"].attention.window == 64
    code, out, err = run_cli(*line[:4], *TINY, "--out", "none", "--set-train", "seq_len=100000")
    assert (code, out) == (2, "") and "too little data" in err and not Path("none").exists()


# -- the command line


def test_the_command_prints_what_becomes_of_each_tensor(base: RunResult) -> None:
    Path("t.yaml").write_text(dump_yaml(tiny_train(tokens=128)))
    line = ["train", "base", "--train", "t.yaml", "--from", "base", *TINY]
    code, out, err = run_cli(*line, "--dry-run")
    assert code == 0 and err == "" and not Path("home").exists()
    told = out.splitlines()
    assert told[0].startswith("tiny-test: training starts from the weights of base (run; model.safetensors, sha256 ")
    assert told[1].split() == ["kept", "embed_tokens.weight", "(256,", "32)"]
    assert told[4].split() == ["kept", "layers.*.attention.k_proj.weight", "2", "x", "(16,", "32)"]
    plain = run_cli("train", "base/model.yaml", "--train", "t.yaml", "--dry-run", *TINY)
    assert plain[:1] == (0,) and plain[1].startswith(
        "tiny-test: training starts from random weights (seed 0), not from"
    )
    folder = Path("home/tiny-test-tiny-test-from-tiny-test")
    assert told[-1] == f"1 steps of 128 tokens, into {folder}; nothing was written"
    code, out, err = run_cli(*line)
    assert code == 0 and err.splitlines() == told[:-1] and out.startswith(f"complete: {folder}\n")
    code, out, err = run_cli(*line)
    assert code == 0 and err == "", "nothing starts"
    code, out, err = run_cli("train", "base", "--from", "base", "--set-train", "tokens=0", "--out", "own", *TINY)
    assert code == 0 and out.startswith("complete: own\nnext: "), "the train spec is that of the run"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "nothing"], "error: nothing: no such file or folder, zoo entry or shipped spec"),
        (
            ["--from", "model.yaml"],
            "error: --from: model.yaml is a model spec, which has no weights; expected a run fo",
        ),
        (["--from", "miniwin-tiny"], "error: --from: miniwin-tiny is a model spec, which has no weights"),
        (["--from", "empty"], "error: empty is neither a run folder (run.json) nor a zoo entry"),
        (["--from", "bare"], "error: bare has no weights yet: neither model.safetensors nor checkpoint.pt"),
        (["--from", "torn"], "error: torn/model.safetensors cannot be read as safetensors"),
        (
            ["--from", "foreign"],
            "error: foreign/model.safetensors does not hold the weights of the model.yaml beside it",
        ),
        (["--from", "base", "--out", "base"], "error: --out: base holds the weights that the run begins with"),
        (["--map", "layers=stacked"], "error: --map layers=stacked: got a map without --from"),
        (
            ["--set-train", "tokens=0"],
            "error: --set-train tokens=0: tokens: got 0; expected at least 1, or the weights",
        ),
    ],
)
def test_what_cannot_be_begun_with_is_refused(base: RunResult, arguments: list[str], message: str) -> None:
    Path("t.yaml").write_text(dump_yaml(tiny_train()))
    Path("model.yaml").write_text(dump_yaml(tiny_model()))
    Path("empty").mkdir()
    whole = Path("base/model.safetensors").read_bytes()
    tensors = load_file("base/model.safetensors")
    for name in ("bare", "torn", "foreign"):
        Path(name).mkdir()
        for file in ("run.json", "model.yaml", "tokenizer.json"):
            Path(name, file).write_bytes(Path("base", file).read_bytes())
    Path("torn/model.safetensors").write_bytes(whole[:-9])
    save_file({name: tensor for name, tensor in tensors.items() if name != "norm.weight"}, "foreign/model.safetensors")
    code, out, err = run_cli("train", "model.yaml", "--train", "t.yaml", *TINY, *arguments)
    assert (code, out) == (2, "") and err.startswith(message) and err.count("\n") == 1, err
    assert not Path("home").exists() or not list(Path("home").rglob("run.json"))
    assert Path("base/model.safetensors").read_bytes() == whole

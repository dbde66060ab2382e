"""`lora` in a train spec: what a run saves, that the base does not move, and that a run goes on bit for bit.

test_sft.py kills such runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from forked import together
from safetensors.torch import load_file
from tiny import run_cli
from tiny_runs import MIXTURE, assert_equal, tiny_model, tiny_train, write_text

import miniwin
from miniwin.checkpoint import load_checkpoint
from miniwin.runs import BEST, RunResult, read_metrics, read_run
from miniwin.specs import ModelSpec, UserError, dump_yaml, load_train_spec, parse_spec
from miniwin.training.launch import train

IDS = torch.arange(60).unsqueeze(0)
LORA = {"r": 3, "lora_alpha": 6, "lora_dropout": 0.2}
DORA = {"r": 2, "use_dora": True, "target_modules": ["q_proj", "mlp.*"]}
CLOCK = {"seconds": None, "step_seconds": None}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINIWIN_HOME", "home")
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)
    go("base", tokens=3840, from_=None)


def go(out: str, model: ModelSpec | None = None, from_: str | None = "base", **changes: Any) -> RunResult:
    options = {name: changes.pop(name) for name in ("stop_after_tokens", "distributed", "resume") if name in changes}
    spec = tiny_train(**{"tokens": 1280, "seed": 1, **changes})
    return train(
        model or tiny_model(), spec, out=out, from_=from_, progress=False, tracking="off", device="cpu", **options
    )


def weights(folder: str, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(Path(folder, name))


@pytest.mark.parametrize(
    ("lora", "moves"),
    [
        (LORA, {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        (DORA, {"q_proj", "gate_proj", "up_proj", "down_proj"}),
    ],
    ids=["lora", "dora"],
)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_saves_the_merged_model_and_nothing_else_moves(
    lora: dict[str, Any], moves: set[str], optimizer: str
) -> None:
    result = go("run", lora=lora, optimizer={"type": optimizer, "lr": 0.03})
    losses = [line["loss"] for line in read_metrics("run")]
    assert result.status == "complete" and losses[-1] < losses[0] - 0.02
    first, last = weights("base"), weights("run")
    assert list(first) == list(last)
    assert {name for name in first if not torch.equal(first[name], last[name])} == {
        name for name in first if name.split(".")[-2] in moves
    }
    record = read_run("run")
    own = load_file("run/adapter/adapter_model.safetensors")
    assert record["parameters"] == tiny_model().parameters() == result.parameters
    assert record["trained_parameters"] == sum(tensor.numel() for tensor in own.values()) < record["parameters"]
    assert torch.equal(miniwin.load("base", adapter="run/adapter")(IDS), miniwin.load("run")(IDS))
    state = load_checkpoint(Path("run/checkpoint.pt"))
    assert_equal(state["model"], last)
    assert sum(t.numel() for t in state["adapter"].values()) == record["trained_parameters"]


def test_no_step_gives_the_weights_of_the_base_to_the_bit() -> None:
    go("none", tokens=0, lora=LORA)
    go("none of dora", tokens=0, lora=DORA)
    for folder in ("none", "none of dora"):
        assert_equal(weights(folder), weights("base"))


@pytest.mark.parametrize("lora", [LORA, DORA], ids=["lora", "dora"])
def test_pieces_equal_the_whole(lora: dict[str, Any]) -> None:
    changes = {**MIXTURE, "batch_size": 2, "gradient_accumulation": 2, "lora": lora}
    go("whole", **changes)
    for tokens in (1, 600, 601):
        piece = go("pieces", stop_after_tokens=tokens, **changes)
        assert piece.status == "interrupted" and not Path("pieces/adapter").exists()
    merged = miniwin.load("pieces")(IDS)  # from its checkpoint
    assert torch.equal(merged, miniwin.load("pieces")(IDS)) and not torch.equal(merged, miniwin.load("base")(IDS))
    assert go("pieces", **changes).status == "complete"
    assert_equal(*({**load_checkpoint(Path(one, "checkpoint.pt")), **CLOCK} for one in ("whole", "pieces")))
    assert_equal(weights("whole"), weights("pieces"))
    assert_equal(*(load_file(f"{one}/adapter/adapter_model.safetensors") for one in ("whole", "pieces")))


def test_a_run_goes_on_only_with_the_same_adapter_and_base() -> None:
    go("run", lora=LORA, stop_after_tokens=300)
    with pytest.raises(UserError, match=r"with other settings \(train.lora.r: 3 there, 4 now\): choose another --out"):
        go("run", lora={**LORA, "r": 4})
    with pytest.raises(UserError, match=r"with other settings \(train.lora: .* there, None now\)"):
        go("run")
    go("other", tokens=768, from_=None)
    Path("base/model.safetensors").write_bytes(Path("other/model.safetensors").read_bytes())
    with pytest.raises(UserError, match="that began with other weights"):
        go("run", lora=LORA)


def test_merged_weights_are_trained_on_and_a_budget_grows() -> None:
    wsd = {"type": "wsd", "warmup": 0.0, "decay": 0.5}
    go("long", lora=LORA, schedule=wsd, tokens=2560)
    go("grown", lora=LORA, schedule=wsd)
    assert Path("grown/adapter/base.json").exists()
    go("grown", lora=LORA, schedule=wsd, tokens=2560)
    assert_equal(weights("grown"), weights("long"))
    go("on", from_="grown", lora=DORA)
    assert read_run("on")["from"]["ref"] == "grown"
    go("all", from_="on")
    assert "trained_parameters" not in read_run("all") and not Path("all/adapter").exists()
    go("grown", lora=LORA, schedule=wsd, tokens=0, resume=False)
    assert_equal(weights("grown"), weights("base"))


def test_evaluations_see_the_adapter_and_keep_the_best_merged() -> None:
    spec = {"every": 256, "tokens": 100, "keep_best": "minimize loss@32"}
    go("run", lora=LORA, eval=spec)
    best = read_run("run")["best"]
    evaluated = [line["eval"]["loss@32"]["value"] for line in miniwin.runs.read_evaluations("run")]
    assert best["value"] == min(evaluated) < evaluated[0]
    assert set(weights("run", BEST)) == set(weights("base"))
    if best["step"] == 10:
        assert_equal(weights("run", BEST), weights("run"))
    assert miniwin.load(f"run/{BEST}")(IDS).isfinite().all()


def in_two_processes(engine: str) -> None:
    lora = {**LORA, "lora_dropout": 0.0}
    if engine == "ddp":
        go("dense", lora=lora, stop_after_tokens=500)
        go("dense", lora=lora)
        go("experts", of_experts(), "experts base", lora=lora)
    for changes in ({"lora": LORA}, {"lora": lora, "distributed": "fsdp"}):
        with pytest.raises(UserError, match=r"with 2 processes, and each of them would|fsdp does not share out adapt"):
            go("refused", **changes)


def of_experts() -> ModelSpec:
    blocks = tiny_model().model_dump(mode="json")["blocks"]
    expert = {"type": "swiglu", "intermediate_size": 8}
    moe = {"type": "moe", "num_experts": 4, "experts_per_token": 1, "expert": expert}
    return tiny_model(blocks={**blocks, "G": {**blocks["G"], "mlp": {**moe, "router": {"type": "softmax-topk"}}}})


def test_several_processes() -> None:
    go("experts base", of_experts(), None, tokens=640)
    together(in_two_processes, "ddp")
    lora = {**LORA, "lora_dropout": 0.0}
    go("alone", lora=lora)
    for name, alone in weights("alone").items():  # rounding, that AdamW may make larger, beside what training did
        off, done = (weights("dense")[name] - alone).norm(), (alone - weights("base")[name]).norm()
        assert off <= 0.01 * done, name
    go("dense", lora=lora)
    moved = {n for n, t in weights("experts").items() if not torch.equal(t, weights("experts base")[n])}
    assert any(".experts." in name for name in moved) and "layers.1.mlp.router.weight" not in moved
    assert not Path("refused").exists()


def test_other_devices_and_types_of_products() -> None:
    go("narrow", lora=LORA, dtype="bfloat16")
    assert {tensor.dtype for tensor in weights("narrow").values()} == {torch.float32}


def test_the_command_says_what_is_trained() -> None:
    Path("model.yaml").write_text(dump_yaml(tiny_model()))
    Path("train.yaml").write_text(dump_yaml(tiny_train(tokens=256, lora=DORA)))
    line = ["train", "model.yaml", "--train", "train.yaml", "--from", "base", "--out", "run", "--tracking", "off"]
    for extra in (["--dry-run"], ["--device", "cpu", "--quiet"]):
        code, out, err = run_cli(*line, *extra)
        assert code == 0, err
        said = out if "--dry-run" in extra else err
        assert "  dora     layers.*.attention.q_proj  2 x (32, 32), rank 2\n" in said
        assert "parameters of adapters are trained; the model's 20,642 stay as they are" in said


@pytest.mark.parametrize(
    ("changes", "extra", "message"),
    [
        ({}, [], "lora: adapters are trained around weights that stay as they are, and these are random"),
        ({"freeze": ["norm.*"]}, ["base"], "freeze: lora keeps all weights as they are; expected lora or freeze"),
        ({"lora": {"r": 0}}, ["base"], "lora.r: "),
        ({"lora": {"rank": 8}}, ["base"], "lora.rank: "),
        ({"lora": {"target_modules": []}}, ["base"], "lora.target_modules: got []; expected one pattern or more"),
        ({"lora": {"target_modules": ["q_prj"]}}, ["base"], "which no linear map is called; did you mean 'q_proj'?"),
        ({"lora": {"lora_dropout": 1}}, ["base"], "lora.lora_dropout: "),
        ({"lora": {"r": 64}}, ["base"], "lora.r: got 64; layers.*.attention.q_proj is 32 x 32, and has a rank"),
        ({}, ["base", "--map", "layers.1.mlp.*=fresh"], "would be drawn anew, and stay so: adapters alone are trained"),
    ],
)
def test_what_cannot_be_honoured_is_refused(changes: dict[str, Any], extra: list[str], message: str) -> None:
    Path("model.yaml").write_text(dump_yaml(tiny_model()))
    fields = {**tiny_train(tokens=256).model_dump(mode="json"), "lora": {}, **changes}
    Path("train.yaml").write_text(miniwin.specs.loading.yaml.safe_dump(fields))
    begin = ["--from", *extra] if extra else []
    options = ["--out", "run", "--tracking", "off", "--device", "cpu", "--quiet"]
    code, out, err = run_cli("train", "model.yaml", "--train", "train.yaml", *begin, *options)
    assert (code, out) == (2, "") and message in err, err
    assert not Path("run").exists() and "Traceback" not in err


def test_dora_refuses_rows_without_a_direction() -> None:
    from safetensors.torch import save_file

    tensors = weights("base")
    tensors["layers.0.attention.o_proj.weight"][3:5] = 0
    save_file(tensors, "base/model.safetensors")
    message = r"lora.use_dora: layers.0.attention.o_proj of base has 2 rows of zeros, and DoRA divides"
    with pytest.raises(UserError, match=message):
        go("run", lora={"use_dora": True})
    assert not Path("run/run.json").exists()
    go("run", lora=LORA)
    with pytest.raises(UserError, match=message):
        go("run", lora={"use_dora": True}, resume=False)
    assert Path("run/model.safetensors").exists(), "what was there is still there"
    go("others", lora=DORA)


def test_a_spec_without_lora_is_written_as_before() -> None:
    assert "lora" not in tiny_train().model_dump(mode="json")
    spec = parse_spec({**tiny_train().model_dump(mode="json"), "lora": {"r": 2}}, "train")
    Path("spec.yaml").write_text(dump_yaml(spec))
    assert load_train_spec("spec.yaml") == spec and spec.lora is not None and spec.lora.lora_alpha == 16

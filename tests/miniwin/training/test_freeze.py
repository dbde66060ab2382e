"""`freeze`: parameters that stay as they are, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from forked import together
from safetensors.torch import load_file
from tiny import run_cli
from tiny_runs import tiny_model, tiny_train, write_text

from miniwin.checkpoint import load_checkpoint
from miniwin.runs import RunResult
from miniwin.specs import ModelSpec, UserError, dump_yaml, parse_spec
from miniwin.training.launch import train
from miniwin.training.ready import freeze, make_ready

MOE = {
    "type": "moe",
    "num_experts": 4,
    "experts_per_token": 1,
    "expert": {"type": "swiglu", "intermediate_size": 8},
    "router": {"type": "softmax-topk"},
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)


def go(out: str, model: ModelSpec | None = None, distributed: Any = "ddp", **changes: Any) -> RunResult:
    spec = tiny_train(**{"tokens": 640, **changes})
    options: dict[str, Any] = {"progress": False, "tracking": "off", "device": "cpu", "distributed": distributed}
    return train(model or tiny_model(), spec, out=out, **options)


def moved(out: str, model: ModelSpec | None = None) -> dict[str, bool]:
    """Whether each tensor differs from what a run of this seed begins with."""
    torch.manual_seed(0)
    first = (model or tiny_model()).build().state_dict()
    last = load_file(Path(out, "model.safetensors"))
    return {name: not torch.equal(first[name], last[name]) for name in first}


def of_experts() -> ModelSpec:
    blocks = tiny_model().model_dump(mode="json")["blocks"]
    return tiny_model(blocks={**blocks, "G": {**blocks["G"], "mlp": MOE}}, tie_word_embeddings=False)


CASES: dict[str, tuple[ModelSpec, list[str]]] = {
    "the first layers": (tiny_model(), ["embed_tokens.*", "layers.0.*"]),
    "one layer within": (tiny_model(), ["layers.1.mlp.*", "layers.1.attention.[qk]_proj.weight"]),
    "the tied head": (tiny_model(), ["embed_tokens.weight"]),
    "gains": (tiny_model(), ["*norm.weight"]),
    "all but the head": (tiny_model(tie_word_embeddings=False), ["layers.*", "norm.weight", "embed_tokens.weight"]),
    "a router": (of_experts(), ["layers.1.mlp.router.*", "lm_head.weight"]),
    "all but experts": (of_experts(), ["embed*", "lm_head*", "norm*", "layers.0.*", "layers.1.a*", "*.mlp_norm.*"]),
}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("case", CASES)
def test_a_frozen_tensor_does_not_move_by_a_bit(case: str, optimizer: str) -> None:
    from fnmatch import fnmatchcase

    model, patterns = CASES[case]
    go("run", model, freeze=patterns, optimizer={"type": optimizer, "lr": 1e-2, "weight_decay": 0.5})
    found = moved("run", model)
    still = {name for name in found if any(fnmatchcase(name, pattern) for pattern in patterns)}
    assert 0 < len(still) < len(found)
    assert {name for name, differs in found.items() if not differs} == still, "and all others move"
    held = load_checkpoint(Path("run/checkpoint.pt"))["optimizer"]
    parts = [held] if "state" in held else list(held.values())
    assert sum(len(part["state"]) for part in parts) == len(found) - len(still), "no state for what is frozen"


def in_two_processes(engine: str) -> None:
    go("dense", distributed=engine, freeze=["layers.0.*"])
    go("experts", of_experts(), engine, freeze=["layers.1.mlp.experts.[01].*", "embed_tokens.weight"], tokens=384)
    go("continued", distributed=engine, freeze=["layers.0.*"])


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_frozen_in_several_processes(engine: str) -> None:
    together(in_two_processes, engine)
    go("alone", freeze=["layers.0.*"])
    assert {name for name, differs in moved("dense").items() if not differs} == {
        name for name in moved("alone") if name.startswith("layers.0.")
    }
    one, other = (load_file(f"{folder}/model.safetensors") for folder in ("dense", "alone"))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    found = moved("experts", of_experts())
    assert not found["embed_tokens.weight"] and found["lm_head.weight"]
    assert not any(found[name] for name in found if ".experts.0." in name or ".experts.1." in name)
    go("continued", freeze=["layers.0.*"])


def test_a_run_goes_on_with_what_it_froze() -> None:
    go("whole", freeze=["layers.0.*"])
    spec = tiny_train(tokens=640, freeze=["layers.0.*"])
    options: dict[str, Any] = {"progress": False, "tracking": "off", "device": "cpu"}
    train(tiny_model(), spec, out="pieces", stop_after_tokens=300, **options)
    with pytest.raises(UserError, match=r"with other settings \(train.freeze: \['layers.0.\*'\] there, None now\)"):
        go("pieces")
    train(tiny_model(), spec, out="pieces", **options)
    assert Path("pieces/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


def test_a_tensor_of_two_names_is_frozen_by_either() -> None:
    decoder: Any = tiny_model().build()
    decoder.layers[1].attention.q_proj.weight = decoder.layers[0].attention.q_proj.weight
    freeze(decoder, ["layers.1.attention.q_proj.weight"])
    assert not decoder.layers[0].attention.q_proj.weight.requires_grad


def test_a_spec_without_freeze_is_written_as_before() -> None:
    assert "freeze" not in tiny_train().model_dump(mode="json")
    assert tiny_train(freeze=["norm.*"]).model_dump(mode="json")["freeze"] == ["norm.*"]
    decoder = make_ready(tiny_model(), tiny_train())
    assert all(parameter.requires_grad for parameter in decoder.parameters())


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["layers.7.*"], "freeze.0: got 'layers.7.*', which no parameter is called; "),
        (["norm.*", "layer.0.*"], "freeze.1: got 'layer.0.*', which no parameter is called; "),
        (["norm.wieght"], "freeze.0: got 'norm.wieght', which no parameter is called; did you mean 'norm.weight'?"),
        (["lm_head.weight"], "the head is the embedding here (tie_word_embeddings): freeze embed_tokens.weight"),
        (["*"], "freeze: all parameters are frozen, and nothing is left to train; freeze fewer"),
    ],
)
def test_patterns_that_do_nothing_are_refused(patterns: list[str], message: str) -> None:
    Path("model.yaml").write_text(dump_yaml(tiny_model()))
    text = dump_yaml(tiny_train(freeze=patterns))
    Path("train.yaml").write_text(text)
    code, out, err = run_cli("train", "model.yaml", "--train", "train.yaml", "--out", "run", "--quiet")
    assert (code, out) == (2, "") and message in err and not Path("run").exists()
    line = text.splitlines().index("freeze:") + 1
    assert (
        (err.startswith("error: train.yaml:") and f"{line}:" in err)
        or f"train.yaml:{line + 1}" in err
        or f":{line + 2}:" in err
    )
    with pytest.raises(UserError, match=r"got \['norm.\*', 'norm.\*'\]; expected each pattern once"):
        parse_spec({**tiny_train().model_dump(mode="json"), "freeze": ["norm.*", "norm.*"]}, "train")

"""The rules for tensors when a run begins with another model's weights: kept, copied, fresh, dropped, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import run_cli
from tiny_runs import tiny_model, tiny_train, write_text

from miniwin.runs import read_run
from miniwin.specs import ModelSpec, UserError
from miniwin.specs.loading import overridden
from miniwin.training.launch import train
from miniwin.training.weight_rules import Move, moves, put


def changed(*overrides: str) -> ModelSpec:
    return overridden(tiny_model(), overrides)


def every(new: ModelSpec, *maps: str, base: ModelSpec | None = None) -> list[Move]:
    with torch.device("meta"):
        return moves((base or tiny_model()).build(), new.build(), maps, ("base", "model"))


def rules(new: ModelSpec, *maps: str, base: ModelSpec | None = None) -> dict[str, Move]:
    """By name. No tensor that is dropped has the name of one that stays."""
    found = every(new, *maps, base=base)
    named = {move.name: move for move in found}
    assert len(named) == len(found)
    return named


def filled(spec: ModelSpec, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {name: torch.randn_like(tensor) for name, tensor in spec.build().state_dict().items()}


def begun(new: ModelSpec, *maps: str, base: ModelSpec | None = None) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """(the new model's tensors, the base's, those that would be drawn without a base)."""
    base = base or tiny_model()
    theirs = filled(base, 1)
    torch.manual_seed(2)
    fresh = {name: tensor.clone() for name, tensor in new.build().state_dict().items()}
    torch.manual_seed(2)
    decoder = new.build()
    put(decoder, every(new, *maps, base=base), theirs)
    return dict(decoder.state_dict()), theirs, fresh


def test_the_same_architecture_is_kept() -> None:
    own, theirs, _ = begun(tiny_model(name="other"))
    assert own.keys() == theirs.keys() and all(torch.equal(own[name], theirs[name]) for name in own)
    assert {move.rule for move in rules(tiny_model()).values()} == {"kept"}


def test_what_has_no_tensors_changes_nothing() -> None:
    """A longer window, another rotation, YaRN: the same tensors."""
    new = changed(
        "blocks.S.attention.window=16",
        "blocks.S.attention.position={type: rope, scaling: " + YARN + "}",
    )
    assert {move.rule for move in rules(new).values()} == {"kept"}


def test_new_rows_of_the_embedding_are_fresh() -> None:
    for tied in (True, False):
        base = tiny_model(tie_word_embeddings=tied)
        own, theirs, fresh = begun(tiny_model(tie_word_embeddings=tied, vocab_size=300), base=base)
        for name in ["embed_tokens.weight"] + ["lm_head.weight"] * (not tied):
            assert torch.equal(own[name][:256], theirs[name]) and torch.equal(own[name][256:], fresh[name][256:])
    found = rules(tiny_model(vocab_size=300))["embed_tokens.weight"]
    assert found == Move("copied", "embed_tokens.weight", (300, 32), "embed_tokens.weight", rows=256)


def test_learned_positions_begin_with_those_of_the_base() -> None:
    position = "blocks.S.attention.position={type: learned, num_positions: %d, then: {type: nope}}"
    base, longer, shorter = (changed(position % n, f"embed_positions={2 * n}") for n in (8, 12, 4))
    for new, rows in (longer, 8), (shorter, 4):
        own, theirs, fresh = begun(new, base=base)
        for name, size in ("layers.0.attention.position.keys", rows), ("embed_positions.weight", 2 * rows):
            assert torch.equal(own[name][:size], theirs[name][:size]) and torch.equal(
                own[name][size:], fresh[name][size:]
            )
    found = every(shorter, base=base)
    assert [move.rows for move in found if move.rows] == [8, 4, 4] and {move.rule for move in found} == {
        "kept",
        "copied",
    }


def test_a_head_that_is_no_longer_tied_is_the_embedding() -> None:
    own, theirs, _ = begun(tiny_model(tie_word_embeddings=False))
    assert torch.equal(own["lm_head.weight"], theirs["embed_tokens.weight"])


def test_small_tensors_go_by_the_spec() -> None:
    """Positions, logit scales, biases, gains, sinks: fresh where they are new, dropped where they are gone."""
    new = changed(
        "blocks.G.attention.position={type: t5}",
        "blocks.S.attention.qk_norm={type: rmsnorm}",
        "blocks.S.attention.sinks=true",
        "blocks.S.attention.qkv_bias=true",
        "blocks.G.residual=sandwich",
    )
    own, theirs, fresh = begun(new)
    found = rules(new)
    named = {rule: {name for name in found if found[name].rule == rule} for rule in ("fresh", "dropped", "kept")}
    assert named["dropped"] == {"layers.1.attention.position.logit_scale.scale"}
    assert named["fresh"] == {
        "layers.0.attention.q_norm.weight",
        "layers.0.attention.k_norm.weight",
        "layers.0.attention.sinks",
        *(f"layers.0.attention.{name}_proj.bias" for name in "qkv"),
        "layers.1.attention.position.bias",
        "layers.1.attention_post_norm.weight",
        "layers.1.mlp_post_norm.weight",
    }
    assert all(torch.equal(own[name], fresh[name]) for name in named["fresh"])
    assert all(torch.equal(own[name], theirs[name]) for name in named["kept"])
    with_linear = changed("blocks.G.attention.position={type: forgetting}")
    assert rules(with_linear)["layers.1.attention.position.gate.weight"].rule == "fresh", "a matrix of a position"


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("layers=stretched", [0, 0, 0, 1, 1]),
        ("layers=stacked", [0, 1, 0, 1, 0]),
        ("layers=0-1, 0, fresh,1", [0, 1, 0, None, 1]),
    ],
)
def test_layers_come_from_those_that_are_named(text: str, layers: list[int | None]) -> None:
    base, new = (changed("pattern=S", "blocks={S: " + LAYER + "}", f"num_layers={n}") for n in (2, 5))
    own, theirs, fresh = begun(new, text, base=base)
    name = "layers.{}.mlp.up_proj.weight"
    for layer, source in enumerate(layers):
        wanted = fresh[name.format(layer)] if source is None else theirs[name.format(source)]
        assert torch.equal(own[name.format(layer)], wanted)
    assert rules(new, text, base=base)[name.format(0)].rule == "kept"
    assert rules(new, text, base=base)[name.format(2)].rule == "copied"


YARN = "{type: yarn, factor: 8, original_max_position_embeddings: 64}"
LAYER = "{attention: {num_heads: 2, window: 8, position: {type: nope}}, mlp: {type: swiglu, intermediate_size: 32}}"


def test_layers_that_are_left_out_are_dropped() -> None:
    base, new = (changed("pattern=S", "blocks={S: " + LAYER + "}", f"num_layers={n}") for n in (3, 2))
    own, theirs, _ = begun(new, "layers=0,2", base=base)
    assert torch.equal(own["layers.1.mlp.up_proj.weight"], theirs["layers.2.mlp.up_proj.weight"])
    dropped = [move.name for move in every(new, "layers=0,2", base=base) if move.rule == "dropped"]
    assert dropped and all(name.startswith("layers.1.") for name in dropped)


def test_matrices_are_drawn_or_dropped_where_the_user_says_so() -> None:
    new = changed("blocks.S.mlp={type: relu2, intermediate_size: 48}")
    maps = ["layers.0.mlp.up_proj.weight=fresh", "layers.0.mlp.down*=fresh", "layers.*.mlp.gate_proj.weight=dropped"]
    new = changed(
        "blocks.S.mlp={type: relu2, intermediate_size: 48}", "blocks.G.mlp={type: relu2, intermediate_size: 32}"
    )
    own, theirs, fresh = begun(new, *maps)
    assert torch.equal(own["layers.0.mlp.up_proj.weight"], fresh["layers.0.mlp.up_proj.weight"])
    assert torch.equal(own["layers.1.mlp.up_proj.weight"], theirs["layers.1.mlp.up_proj.weight"])
    assert not any("gate_proj" in name for name in own)


@pytest.mark.parametrize(
    ("overrides", "maps", "message"),
    [
        (
            ["hidden_size=64"],
            [],
            r"the weights of base do not fit: embed_tokens.weight: is \(256, 32\) there, expected \(256, 64\); to draw "
            r"it anew: --map 'embed_tokens.weight=fresh'; layers.0.attention.q_proj.weight: is .* and 5 more",
        ),
        (["vocab_size=200"], [], r"embed_tokens.weight: is \(256, 32\) there, expected \(200, 32\)"),
        (
            ["blocks.S.mlp={type: relu2, intermediate_size: 32}"],
            [],
            r"layers.0.mlp.gate_proj.weight: base has it, \(32, 32\), and model has no such tensor; to leave it out: "
            r"--map 'layers.\*.mlp.gate_proj.weight=dropped'",
        ),
        (
            ["num_layers=4"],
            [],
            r"base has 2 layers, and model has 4; say which .* a list of 4, such as layers=0-1,0-1$",
        ),
        (["num_layers=4"], ["layers=0-1"], "--map layers=0-1: it names 2 layers, and the model has 4"),
        (["num_layers=4"], ["layers=0-3"], "--map layers=0-3: got '0-3'; expected layers from 0 to 1, in order"),
        (["num_layers=4"], ["layers=all"], "got 'all'; expected a layer of the base, a span such as 0-1, or fresh"),
        ([], ["layers=stacked", "layers=0-1"], "--map layers=0-1: layers are said twice"),
        ([], ["norm.weight"], "--map norm.weight: expected layers=0-23,8-31, layers=stretched"),
        ([], ["norm.weight=new"], "--map norm.weight=new: got 'new'; expected layers=0-23"),
        (
            [],
            ["norm.wight=fresh"],
            "--map norm.wight=fresh: no tensor of model has a name like this; did you mean norm.w",
        ),
        (
            ["blocks.S.attention.num_heads=4", "blocks.S.attention.num_kv_heads=2"],
            [],
            r"layers.0.attention.q_proj.weight: base has 2 heads \(1 for keys and values\) of 16 there, and model "
            r"has 4 heads \(2 for keys and values\) of 8; give it the heads of base",
        ),
        ([], ["embed_tokens.*=dropped"], r"embed_tokens.weight: is dropped by a map, expected \(256, 32\); to draw it"),
        ([], ["*.sinks=dropped"], r"--map \*.sinks=dropped: no tensor of base has a name like this; it has "),
    ],
)
def test_what_does_not_fit_is_refused(overrides: list[str], maps: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rules(changed(*overrides), *maps)


def test_a_changed_model_is_trained_and_says_what_became_of_its_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)
    train(tiny_model(), tiny_train(tokens=256), out="base", progress=False, tracking="off", device="cpu")
    line = ["train", "base", "--from", "base", "--out", "on", "--tracking", "off", "--device", "cpu", "--quiet"]
    line += ["--set", "num_layers=4", "--map", "layers=stretched", "--set", "vocab_size=300"]
    code, out, err = run_cli(*line, "--set", "blocks.S.attention.sinks=true", "--set-train", "tokens=0")
    assert code == 0, err
    shown = [" ".join(row.split()) for row in err.splitlines()]
    assert "copied embed_tokens.weight (300, 32), the first 256 rows; the others are fresh" in shown
    assert "copied layers.*.mlp.up_proj.weight 3 x (32, 32), from another layer" in shown
    assert "fresh layers.*.attention.sinks 2 x (2)" in shown
    assert read_run("on")["from"]["map"] == ["layers=stretched"]
    assert read_run("on")["from"]["tensors"] == {"copied": 29, "kept": 10, "fresh": 3}
    base, on = (load_file(f"{folder}/model.safetensors") for folder in ("base", "on"))
    assert torch.equal(on["layers.2.mlp.up_proj.weight"], base["layers.1.mlp.up_proj.weight"])
    code, out, err = run_cli(*line, "--set", "hidden_size=64", "--out", "other")
    assert (code, out) == (2, "") and err.startswith("error: --from: the weights of base do not fit: ")
    assert not Path("other").exists()

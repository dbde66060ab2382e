"""MiniWin's authors' mixtures of experts, and those of MiniMind before its QK-norms, against plain loops in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import largest
from safetensors.torch import save_file
from tiny import run_cli
from torch import Tensor
from torch.nn import functional as F

import miniwin
from miniwin.specs import UserError
from miniwin.zoo.exporting import export_model
from miniwin.zoo.importing import import_model

HIDDEN, HEADS, KV, SIZE, VOCAB, LAYERS = 16, 4, 2, 12, 40, 3
HEAD = HIDDEN // HEADS
ALL = f"num_attention_heads={HEADS}"


def tensors_of(kind: str, experts: int, shared: int, qk_norm: bool = False) -> dict[str, Tensor]:
    """A checkpoint's tensors under its own names; of MiniWin the first layers slide."""
    generator = torch.Generator().manual_seed(experts + 10 * shared)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64) * 1.5 * shape[-1] ** -0.5

    found = {"model.embed_tokens.weight": drawn(VOCAB, HIDDEN) * 2, "model.norm.weight": 1 + 0.2 * drawn(HIDDEN)}
    found["lm_head.weight"] = found["model.embed_tokens.weight"].clone()
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        attention = f"{layer}.{'shared_attn' if kind == 'miniwin' and i < LAYERS - 1 else 'self_attn'}"
        for name, rows in (("q_proj", HIDDEN), ("k_proj", KV * HEAD), ("v_proj", KV * HEAD), ("o_proj", HIDDEN)):
            found[f"{attention}.{name}.weight"] = drawn(rows, HIDDEN)
        if qk_norm:
            found |= {f"{attention}.{name}.weight": 1 + 0.2 * drawn(HEAD) for name in ("q_norm", "k_norm")}
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{layer}.{name}.weight"] = 1 + 0.2 * drawn(HIDDEN)
        found[f"{layer}.mlp.gate.weight"] = 2 * drawn(experts, HIDDEN)
        for place in [f"experts.{e}" for e in range(experts)] + [f"shared_experts.{j}" for j in range(shared)]:
            for name, shape in (
                ("gate_proj", (SIZE, HIDDEN)),
                ("up_proj", (SIZE, HIDDEN)),
                ("down_proj", (HIDDEN, SIZE)),
            ):
                found[f"{layer}.mlp.{place}.{name}.weight"] = drawn(*shape)
    return found


def naive_mlp(tensors: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    gate, up, down = (tensors[f"{name}.{part}_proj.weight"] for part in ("gate", "up", "down"))
    hidden = gate @ x
    return down @ (hidden / (1 + torch.exp(-hidden)) * (up @ x))


def naive_mixture(
    tensors: dict[str, Tensor], name: str, tokens: Tensor, chosen: int, sum_to_one: bool, shared: int
) -> Tensor:
    """(T, C), token by token. One expert for each token counts as much as the gate gives it, whatever is asked."""
    rows = []
    for x in tokens:
        logits = tensors[f"{name}.gate.weight"] @ x
        shares = torch.exp(logits - logits.max())
        shares = shares / shares.sum()
        best = sorted(range(len(shares)), key=lambda e: -float(shares[e]))[:chosen]
        whole = sum(shares[e] for e in best) if sum_to_one and chosen > 1 else 1.0
        y = torch.zeros_like(x)
        for e in best:
            y = y + shares[e] / whole * naive_mlp(tensors, f"{name}.experts.{e}", x)
        for j in range(shared):
            y = y + naive_mlp(tensors, f"{name}.shared_experts.{j}", x)
        rows.append(y)
    return torch.stack(rows)


def write(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any] | None) -> Path:
    """A checkpoint file, or a Hugging Face folder of this config."""
    if config is None:
        torch.save(tensors, folder.with_suffix(".pth"))
        return folder.with_suffix(".pth")
    folder.mkdir()
    plain = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "intermediate_size": SIZE}
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": KV, "tie_word_embeddings": True, "hidden_act": "silu"}
    (folder / "config.json").write_text(json.dumps({**plain, **heads, "rms_norm_eps": 1e-5, **config}))
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


CASES = [(1, 0, True), (1, 1, True), (2, 0, True), (2, 2, False), (3, 1, True)]


def said(chosen: int, shared: int, sum_to_one: bool) -> dict[str, Any]:
    flags = {"num_experts_per_tok": chosen, "norm_topk_prob": sum_to_one}
    return {"use_moe": True, "n_routed_experts": 4, "n_shared_experts": shared, "scoring_func": "softmax", **flags}


@pytest.mark.parametrize("as_file", [True, False])
@pytest.mark.parametrize(("chosen", "shared", "sum_to_one"), CASES)
def test_the_authors_mixtures(tmp_path: Path, chosen: int, shared: int, sum_to_one: bool, as_file: bool) -> None:
    """Each layer's mixture, on what it gets in the model; the rest is that of models without one."""
    tensors = tensors_of("miniwin", 4, shared)
    mixture = said(chosen, shared, sum_to_one)
    settings = {"sliding_window_size": 5, "attention_pattern": "SSSL"}
    config = {"model_type": "miniwin", "aux_loss_alpha": 0.02, "seq_aux": True, "num_experts": 4, **settings, **mixture}
    source = write(tmp_path / "theirs", dict(tensors), None if as_file else config)
    flags = {name: mixture[name] for name in ("num_experts_per_tok", "norm_topk_prob")}
    asked = {"num_attention_heads": HEADS, **settings, **flags} if as_file else None
    made = import_model(source, tmp_path / "in", family="miniwin" if as_file else None, settings=asked)
    assert made.spec.layout == "SSG"
    assert {layer.mlp.balance_loss for layer in made.spec.layer_specs} == {0.01 if as_file else 0.02}  # type: ignore[attr-defined]
    model = miniwin.load(tmp_path / "in").double()
    seen: list[tuple[Tensor, Tensor]] = []
    for layer in model.decoder.layers:
        layer.mlp.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    with torch.no_grad():
        model(torch.arange(24)[None] % VOCAB)
    assert len(seen) == LAYERS
    for i, (x, y) in enumerate(seen):
        expected = naive_mixture(tensors, f"model.layers.{i}.mlp", x[0], chosen, sum_to_one, shared)
        assert largest(y[0], expected) < 1e-12


def naive_minimind(tensors: dict[str, Tensor], ids: Tensor, chosen: int, sum_to_one: bool, shared: int) -> Tensor:
    """(N,) -> logits (N, V)."""

    def norm(x: Tensor, name: str) -> Tensor:
        return tensors[name] * x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()

    def turned(x: Tensor) -> Tensor:  # (N, D), halves paired
        n, half = len(x), HEAD // 2
        angle = torch.arange(n, dtype=torch.float64)[:, None] * 1e6 ** -(torch.arange(half, dtype=torch.float64) / half)
        a, b = x[:, :half], x[:, half:]
        return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), dim=1)

    x = tensors["model.embed_tokens.weight"][ids]
    hidden = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        h = norm(x, f"{at}.input_layernorm.weight")
        q, k, v = (h @ tensors[f"{at}.self_attn.{part}_proj.weight"].T for part in "qkv")
        heads = []
        for head in range(HEADS):
            mine = slice(head * HEAD, (head + 1) * HEAD)
            theirs = slice(head // (HEADS // KV) * HEAD, (head // (HEADS // KV) + 1) * HEAD)
            scores = turned(q[:, mine]) @ turned(k[:, theirs]).T / HEAD**0.5
            heads.append(scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v[:, theirs])
        x = x + torch.cat(heads, dim=1) @ tensors[f"{at}.self_attn.o_proj.weight"].T
        h = norm(x, f"{at}.post_attention_layernorm.weight")
        x = x + naive_mixture(tensors, f"{at}.mlp", h, chosen, sum_to_one, shared)
    return F.linear(norm(x, "model.norm.weight"), tensors["model.embed_tokens.weight"])


@pytest.mark.parametrize("as_file", [True, False])
@pytest.mark.parametrize(("chosen", "shared", "sum_to_one"), CASES)
def test_minimind_before_its_qk_norms(
    tmp_path: Path, chosen: int, shared: int, sum_to_one: bool, as_file: bool
) -> None:
    tensors = tensors_of("minimind", 4, shared)
    mixture = said(chosen, shared, sum_to_one)
    config = {"model_type": "minimind", "rope_theta": 1e6, **mixture}
    source = write(tmp_path / "theirs", dict(tensors), None if as_file else config)
    flags = {name: mixture[name] for name in ("num_experts_per_tok", "norm_topk_prob")}
    asked = {"num_attention_heads": HEADS, **flags} if as_file else None
    import_model(source, tmp_path / "in", family="minimind" if as_file else None, settings=asked)
    model = miniwin.load(tmp_path / "in").double()
    ids = torch.arange(20) * 7 % VOCAB
    with torch.no_grad():
        found = model(ids[None])[0]
    expected = naive_minimind(tensors, ids, chosen, sum_to_one, shared)
    # logits come out in float32
    assert largest(found, expected) < 1e-6 * float(expected.abs().max())


@pytest.mark.parametrize(
    ("family", "chosen", "shared", "sum_to_one", "architecture"),
    [("minimind", 2, 0, True, "mixtral"), ("minimind", 2, 1, True, "custom"), ("miniwin", 1, 2, False, "custom")],
)
def test_they_go_out_again(
    tmp_path: Path, family: str, chosen: int, shared: int, sum_to_one: bool, architecture: str
) -> None:
    """As a stock architecture where one has such a mixture, else with our code."""
    from transformers import AutoModelForCausalLM

    source = write(tmp_path / "theirs", tensors_of(family, 4, shared), None)
    asked = {"num_attention_heads": HEADS, "num_experts_per_tok": chosen, "norm_topk_prob": sum_to_one}
    asked |= {"sliding_window_size": 5, "attention_pattern": "SSSL"} if family == "miniwin" else {}
    import_model(source, tmp_path / "in", family=family, settings=asked)
    model = miniwin.load(tmp_path / "in")
    assert export_model(model, tmp_path / "out").architecture == architecture
    how: dict[str, Any] = (
        {"trust_remote_code": True} if architecture == "custom" else {"experts_implementation": "eager"}
    )
    out = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float64, **how).eval()
    ids = torch.arange(20)[None] * 7 % VOCAB
    with torch.no_grad():
        found, expected = out(ids).logits, model.double()(ids)
    assert largest(found, expected) < 1e-5 * float(expected.abs().max())


def test_the_command_asks_for_what_shapes_cannot_say(tmp_path: Path) -> None:
    source = write(tmp_path / "moe", tensors_of("minimind", 3, 1), None)
    code, _, err = run_cli("import", str(source), "--as", "minimind", "--set", ALL, "--to", str(tmp_path / "in"))
    assert code == 2 and "--set num_experts_per_tok=VALUE (how many experts a token goes through" in err
    more = ("--set", "num_experts_per_tok=2", "--to", str(tmp_path / "in"))
    code, out, _ = run_cli("import", str(source), "--as", "minimind", "--set", ALL, *more)
    assert code == 0 and "n_routed_experts 3, n_shared_experts 1" in out


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        (
            "miniwin",
            {"scoring_func": "sigmoid"},
            "scoring_func: got 'sigmoid'; the code of this family knows softmax only",
        ),
        ("miniwin", {"num_experts_per_tok": 5}, "num_experts_per_tok: got 5; expected at most n_routed_experts 4"),
        ("miniwin", {"n_routed_experts": 5}, "n_routed_experts: got 5; expected 4, since layer 0 has 4 experts"),
        ("miniwin", {"num_experts": 5}, "num_experts: got 5; n_routed_experts says 4"),
        ("miniwin", {"n_shared_experts": 2}, "n_shared_experts: got 2; expected 1, since layer 0 has 1 shared experts"),
        ("miniwin", {"use_moe": False}, "use_moe: got false; expected true, since layer 0 has 4 experts"),
        ("minimind", {"aux_loss_alpha": -1}, "aux_loss_alpha: got -1; expected at least 0"),
        ("minimind", {"moe_intermediate_size": 9}, "earlier versions have experts of intermediate_size"),
    ],
)
def test_what_contradicts_a_mixture(tmp_path: Path, family: str, changes: dict[str, Any], message: str) -> None:
    config = {"model_type": family, "sliding_window_size": 5, "attention_pattern": "SSSL", "rope_theta": 1e6}
    if family == "minimind":
        config = {"model_type": family, "rope_theta": 1e6}
    source = write(tmp_path / "hf", tensors_of(family, 4, 1), {**config, **said(2, 1, True), **changes})
    with pytest.raises(UserError, match=message):
        import_model(source, tmp_path / "in")


def test_shared_experts_with_qk_norms_are_of_no_known_version(tmp_path: Path) -> None:
    source = write(tmp_path / "hf", tensors_of("minimind", 4, 1, qk_norm=True), None)
    with pytest.raises(UserError, match=r"shared_experts.* not of the model that the settings describes"):
        import_model(source, tmp_path / "in", family="minimind", settings={"num_experts_per_tok": 2})

"""Optimizers: which parameters go where, Muon against its formula, and specs that cannot be meant."""

from __future__ import annotations

import pytest
import torch
from tiny_runs import tiny_model, tiny_train
from torch import Tensor, nn

from miniwin.specs import UserError, dump_yaml, parse_spec
from miniwin.specs.train import OptimizerSpec
from miniwin.training.optimizer import Together, layer_matrices, make_optimizer

MOE = {
    "type": "moe",
    "num_experts": 3,
    "experts_per_token": 1,
    "expert": {"type": "swiglu", "intermediate_size": 16},
    "router": {"type": "softmax-topk", "normalise": True},
}


COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan's


def formula(matrix: Tensor) -> Tensor:
    """Newton-Schulz on the singular values alone: s <- a s + b s^3 + c s^5, in float64."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(5):
        s = COEFFICIENTS[0] * s + COEFFICIENTS[1] * s**3 + COEFFICIENTS[2] * s**5
    return u @ torch.diag(s) @ v


def test_muon_steps_by_its_formula() -> None:
    """Up to the rounding of its steps to bfloat16; momentum 0.9, Nesterov's, and decay as AdamW's."""
    model = tiny_model().build()
    spec = OptimizerSpec(type="muon", lr=0.02, weight_decay=0.1, momentum=0.9)
    optimizer = make_optimizer(model, spec)
    weights = layer_matrices(model)
    start = [w.detach().double() for w in weights]
    expected, averages = [w.clone() for w in start], [torch.zeros_like(w) for w in start]
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        for i, weight in enumerate(weights):
            weight.grad = torch.randn(weight.shape, generator=generator)
            averages[i] = 0.9 * averages[i] + 0.1 * weight.grad.double()
            update = formula(0.9 * averages[i] + 0.1 * weight.grad.double())
            expected[i] = expected[i] * (1 - 0.02 * 0.1) - 0.02 * 0.2 * max(weight.shape) ** 0.5 * update
        optimizer.step()
    for weight, target, before in zip(weights, expected, start, strict=True):
        assert (weight.detach() - target).norm() < 0.02 * (target - before).norm()


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_has_one_optimizer(tied: bool) -> None:
    blocks = tiny_model().model_dump(mode="json")["blocks"]
    blocks["G"] = {**blocks["G"], "mlp": MOE}
    model = tiny_model(tie_word_embeddings=tied, blocks=blocks).build()
    optimizer = make_optimizer(model, OptimizerSpec(type="muon", weight_decay=0.2))
    assert isinstance(optimizer, Together)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    inside = [names[id(p)] for group in optimizer.parts["muon"].param_groups for p in group["params"]]
    everywhere = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    assert sorted(everywhere) == sorted(names.values())
    assert sorted(inside) == sorted(n for n, p in model.named_parameters() if n.startswith("layers.") and p.ndim == 2)
    assert any("experts" in name for name in inside)
    decayed = {names[id(p)] for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {*inside, *([] if tied else ["lm_head.weight"])}


def test_tables_of_positions_are_not_layer_matrices() -> None:
    block = tiny_model().model_dump(mode="json")["blocks"]["G"]
    block["attention"]["position"] = {"type": "t5", "num_buckets": 8, "max_distance": 16}
    model = tiny_model(pattern="G", last=None, blocks={"G": block}).build()
    tables = {id(p) for name, p in model.named_parameters() if ".position." in name}
    assert tables and tables.isdisjoint(id(p) for p in layer_matrices(model))


def test_state_goes_round() -> None:
    def fresh() -> tuple[nn.Module, torch.optim.Optimizer | Together]:
        torch.manual_seed(0)
        model = tiny_model().build()
        return model, make_optimizer(model, OptimizerSpec(type="muon", lr=0.01))

    def steps(model: nn.Module, optimizer: torch.optim.Optimizer | Together, seeds: range) -> None:
        for seed in seeds:
            torch.manual_seed(seed)
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
            optimizer.zero_grad()

    whole, optimizer = fresh()
    steps(whole, optimizer, range(4))
    half, first = fresh()
    steps(half, first, range(2))
    rest, second = fresh()
    rest.load_state_dict(half.state_dict())
    second.load_state_dict(first.state_dict())
    steps(rest, second, range(2, 4))
    for one, other in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(one, other)


# The spec


def test_older_specs_are_written_as_before() -> None:
    written = tiny_train().model_dump(mode="json")
    assert not {"compile", "packing"} & set(written)
    assert set(written["optimizer"]) == {"lr", "beta1", "beta2", "eps", "weight_decay"}
    spec = tiny_train(optimizer={"type": "muon", "momentum": 0.8}, compile=True)
    assert spec.model_dump(mode="json")["optimizer"]["momentum"] == 0.8 and "compile: true" in dump_yaml(spec)
    assert parse_spec(spec.model_dump(mode="json"), "train") == spec


def test_momentum_without_muon_is_refused() -> None:
    with pytest.raises(UserError, match=r"got momentum \(0.9\) with type: adamw; expected it with type: muon only"):
        tiny_train(optimizer={"momentum": 0.9})

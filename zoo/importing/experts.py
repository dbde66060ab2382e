"""Mixtures of experts as configs and checkpoints have them: every expert by itself, or all of them stacked.

    separate   experts.{e}.gate_proj.weight (I, C), ...                     Qwen3-MoE
    stacked    experts.gate_up_proj (E, 2I, C), experts.down_proj (E, C, I)   or transposed: (E, C, 2I) and (E, I, C)

E experts, C channels, I channels inside an expert. In a stack the 2I rows are those of the gate and then those of up,
or the two alternate (gpt-oss).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from miniwin.zoo.importing.basic_config import one_of
from miniwin.zoo.importing.family import Fields, Rule
from miniwin.zoo.importing.words import Words

PARTS = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Stack:
    """How experts are stacked. transposed: (E, in, out) instead of (E, out, in). alternating: gate, up, gate, up."""

    transposed: bool = False
    alternating: bool = False
    bias: bool = False

    def rule(self, ours: str, theirs: str, num_experts: int) -> Rule:
        """The rule between stacked and separate experts. ours, theirs: prefixes of the experts' names."""
        kinds = ("", "_bias") if self.bias else ("",)
        names = tuple(f"{theirs}.{part}{kind}" for part in ("gate_up_proj", "down_proj") for kind in kinds)
        return Rule(expert_names(ours, num_experts, self.bias), names, self.read, self.write)

    def read(self, stacked: list[Tensor]) -> list[Tensor]:
        gate_up, down = stacked[:: 1 + self.bias]
        if self.transposed:
            gate_up, down = gate_up.transpose(1, 2), down.transpose(1, 2)
        parts = [*self._split(gate_up), down]  # gate (E, I, C), up (E, I, C), down (E, C, I)
        if self.bias:
            biases = [*self._split(stacked[1]), stacked[3]]  # (E, I), (E, I), (E, C)
            parts = [tensor for pair in zip(parts, biases, strict=True) for tensor in pair]
        return [part[e].contiguous() for e in range(len(down)) for part in parts]

    def write(self, tensors: list[Tensor]) -> list[Tensor]:
        size = 3 * (1 + self.bias)
        parts = [torch.stack(tensors[i::size]) for i in range(size)]
        gate, up, down = parts[:: 1 + self.bias]
        gate_up = self._joined(gate, up)
        if self.transposed:
            gate_up, down = gate_up.transpose(1, 2), down.transpose(1, 2)
        found = [gate_up, self._joined(parts[1], parts[3]), down, parts[5]] if self.bias else [gate_up, down]
        return [tensor.contiguous() for tensor in found]

    def _split(self, gate_up: Tensor) -> tuple[Tensor, ...]:
        return (gate_up[:, ::2], gate_up[:, 1::2]) if self.alternating else gate_up.chunk(2, dim=1)

    def _joined(self, gate: Tensor, up: Tensor) -> Tensor:
        return torch.stack((gate, up), dim=2).flatten(1, 2) if self.alternating else torch.cat((gate, up), dim=1)


def expert_names(prefix: str, num_experts: int, bias: bool = False) -> tuple[str, ...]:
    """The names of all experts' parameters, expert by expert."""
    kinds = ("weight", "bias") if bias else ("weight",)
    return tuple(f"{prefix}.{e}.{part}.{kind}" for e in range(num_experts) for part in PARTS for kind in kinds)


def expert_counts(fields: Fields, number: str = "num_local_experts") -> dict[str, Any]:
    """num_experts, experts_per_token and balance_loss of a `moe`.

    transformers divides the assignments by the tokens alone, so its loss is experts_per_token times ours. The weight is
    rounded to 15 digits, so that an export and an import give it back: in float64, 0.9 / 3 * 3 is not 0.9.
    """
    experts, chosen = fields.count(number), fields.count("num_experts_per_tok")
    if chosen > experts:
        raise fields.refuse("num_experts_per_tok", f"expected at most {number} {experts}")
    weight = fields.real("router_aux_loss_coef")
    if weight < 0:
        raise fields.refuse("router_aux_loss_coef", "expected at least 0")
    return {"num_experts": experts, "experts_per_token": chosen, "balance_loss": float(f"{weight * chosen:.15g}")}


def said_counts(words: Words, mixtures: list[Any], number: str = "num_local_experts") -> dict[str, Any]:
    """The inverse of `expert_counts`: the config's fields of these mixtures. Raises CannotSay where they differ."""
    if not mixtures:
        return {}
    chosen = one_of(words, "mlp.experts_per_token", (mlp.experts_per_token for mlp in mixtures))
    return {
        number: one_of(words, "mlp.num_experts", (mlp.num_experts for mlp in mixtures)),
        "num_experts_per_tok": chosen,
        "router_aux_loss_coef": one_of(words, "mlp.balance_loss", (mlp.balance_loss for mlp in mixtures)) / chosen,
    }

"""The mixture of experts of MiniWin's authors, and of MiniMind before its models had QK-norms. A softmax gate chooses
experts for each token, and every token goes through the shared experts. All experts have the same size.

    y = sum over the K chosen experts e of w_e * expert_e(x) + sum over j of shared_j(x)

With `norm_topk_prob` the weights w are made to sum to 1, except for K = 1, where the weight is the gate's share.
Several shared experts are one expert here, as wide as all of them: their sum is a product with their matrices side by
side. The balance loss is that of a batch here; theirs, with `seq_aux`, is the mean over the sequences of a batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.dense import gated_mlp, mlp_rules
from miniwin.zoo.importing.experts import PARTS
from miniwin.zoo.importing.family import Fields, Rule

FIRST = "model.layers.0.mlp"
# The fields of such a mixture. MiniWin's class also sets num_experts, equal to n_routed_experts.
FIELDS = (
    "num_experts_per_tok",
    "n_routed_experts",
    "num_experts",
    "n_shared_experts",
    "scoring_func",
    "aux_loss_alpha",
    "seq_aux",
    "norm_topk_prob",
)


def gated_mixture(fields: Fields) -> dict[str, Any]:
    """The MLP of a layer as data. Raises UserError for fields that do not fit together."""
    fields.only("scoring_func", "softmax", why="the code of this family knows softmax only")
    fields.raw("seq_aux")
    experts, chosen = fields.count("n_routed_experts"), fields.count("num_experts_per_tok")
    fields.only("num_experts", experts, why=f"n_routed_experts says {experts}")
    if chosen > experts:
        raise fields.refuse("num_experts_per_tok", f"expected at most n_routed_experts {experts}")
    shared = fields.raw("n_shared_experts")
    if type(shared) is not int or not 0 <= shared <= 1024:
        raise fields.refuse("n_shared_experts", "expected a whole number of at least 0")
    weight = fields.real("aux_loss_alpha")
    if weight < 0:
        raise fields.refuse("aux_loss_alpha", "expected at least 0")
    expert = gated_mlp(fields)
    return {
        "type": "moe",
        "num_experts": experts,
        "experts_per_token": chosen,
        "expert": expert,
        "shared": {**expert, "intermediate_size": shared * expert["intermediate_size"]} if shared else None,
        "router": {"type": "softmax-topk", "normalise": fields.flag("norm_topk_prob") and chosen > 1},
        "balance_loss": weight,
    }


def gated_rules(mlp: Any, ours: str, theirs: str) -> list[Rule]:
    """The rules of a mixture whose shared expert is as wide as a whole number of experts."""
    rules = [Rule((f"{ours}.router.weight",), (f"{theirs}.gate.weight",))]
    for e in range(mlp.num_experts):
        rules += mlp_rules(mlp.expert, f"{ours}.experts.{e}", f"{theirs}.experts.{e}")
    if mlp.shared is not None:
        count = mlp.shared.intermediate_size // mlp.expert.intermediate_size
        for part in PARTS:
            names = tuple(f"{theirs}.shared_experts.{j}.{part}.weight" for j in range(count))
            rules.append(_beside(f"{ours}.shared.{part}.weight", names, dim=1 if part == "down_proj" else 0))
    return rules


def _beside(ours: str, theirs: tuple[str, ...], dim: int) -> Rule:
    """A rule for several of their matrices that are one of ours, side by side in dimension `dim`."""

    def read(tensors: list[Tensor]) -> list[Tensor]:
        return [torch.cat(tensors, dim)]

    def write(tensors: list[Tensor]) -> list[Tensor]:
        return [part.contiguous() for part in tensors[0].chunk(len(theirs), dim)]

    return Rule((ours,), theirs, read, write)


def has_experts(asked: Asked) -> bool:
    return any(name.startswith(f"{FIRST}.experts.") for name in asked.shapes)


def inferred_mixture(asked: Asked) -> dict[str, Any]:
    """The fields that the shapes show. How many experts a token goes through they do not show: the user is asked."""
    values: dict[str, Any] = {}
    for key, kind in (("n_routed_experts", "experts"), ("n_shared_experts", "shared_experts")):
        start = f"{FIRST}.{kind}."
        count = len({name.removeprefix(start).split(".")[0] for name in asked.shapes if name.startswith(start)})
        values[key] = asked.infer(key, count, f"layer 0 has {count} {kind.replace('_', ' ')}")
    values["use_moe"] = asked.infer("use_moe", True, f"layer 0 has {values['n_routed_experts']} experts")
    first = f"{FIRST}.experts.0.gate_proj.weight"
    if len(asked.shapes.get(first, ())) == 2:
        size = asked.shapes[first][0]
        values["intermediate_size"] = asked.infer("intermediate_size", size, f"{first} has {size} rows")
    if not asked.config:
        asked.require(num_experts_per_tok="how many experts a token goes through, such as 2")
    return values

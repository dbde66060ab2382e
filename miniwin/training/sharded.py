"""Training with torch's fully_shard (FSDP2): every process has a share of each parameter, gradient and moment.

A layer's parameters are gathered when it runs, forward and backward, and let go after it. So a process needs memory for
its share of the model, for one layer or two, and for its rows' activations. (Zhao et al., arXiv 2304.11277.) Embedding,
final norm and head are gathered for the whole pass.

- The first weights are drawn or read by the first process, on its CPU, and shared out tensor by tensor.
- Evaluations and model.safetensors take all weights: the first process gathers them, and the others wait.
- Autocast's copies of the weights in bfloat16 are kept from forward to backward, whole: 2 bytes for each parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from miniwin import runs
from miniwin.blocks import Decoder
from miniwin.blocks.matmul_library import Product, choose
from miniwin.checkpoint import SHARDS, load_checkpoint, save_checkpoint
from miniwin.language_model import LanguageModel
from miniwin.shards import put_together, taken_apart, write_shards
from miniwin.specs import ModelSpec, TrainSpec, UserError
from miniwin.training.distributed import Group
from miniwin.training.engine import Engine
from miniwin.training.experts import Experts
from miniwin.training.muon import ShardedMuon, part_of
from miniwin.training.optimizer import Together
from miniwin.training.ready import make_ready
from miniwin.training.start import Start


class Sharded(Engine):
    """fully_shard of each layer, and of all that is outside the layers."""

    muon = ShardedMuon

    def __init__(
        self,
        model: ModelSpec,
        spec: TrainSpec,
        group: Group,
        device: torch.device,
        product: Product | None,
        start: Start | None = None,
    ) -> None:
        super().__init__(model, spec, group, device, product, start)
        self.slots: dict[str, str | None] = {}  # the folder of each checkpoint's shards, by the name of its file
        refuse_unshardable(self.decoder)
        mesh = init_device_mesh(device.type, (group.size,))
        for layer in self.decoder.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(self.one_pass, mesh=mesh)
        self.decoder.to_empty(device=device)
        first = make_ready(model, spec, start).state_dict() if group.leads else {}
        parameter: Any
        for name, parameter in self.decoder.named_parameters():
            whole = first.pop(name).to(device) if group.leads else torch.empty(parameter.shape, device=device)
            with torch.no_grad():
                parameter.copy_(distribute_tensor(whole, parameter.device_mesh, parameter.placements))
        torch.set_rng_state(group.share(torch.get_rng_state()))
        self.experts = Experts(self.decoder, group)

    def build(self) -> Decoder:
        with torch.device("meta"):  # no process has room for all of it
            return make_ready(self.spec, self.train_spec)

    def clip(self, parameters: Sequence[nn.Parameter], limit: float | None) -> float:
        self.experts.drop_unused()
        norm: Any = nn.utils.clip_grad_norm_(parameters, float("inf") if limit is None else limit)
        return float(norm.full_tensor())

    def weights(self) -> dict[str, Tensor] | None:
        found = {}
        for name, tensor in self.decoder.state_dict().items():
            whole = tensor.full_tensor()
            if self.group.leads:
                found[name] = whole
        return found if self.group.leads else None

    def whole(self, model: LanguageModel) -> LanguageModel | None:
        weights = self.weights()
        if weights is None:
            return None
        decoder = self.build()
        decoder.load_state_dict(weights, assign=True)
        if self.product is not None:
            choose(decoder, self.product)
        return LanguageModel(decoder, model.spec, model.tokenizer, model.ref, model.folder)

    def save(self, path: Path, state: dict[str, Any]) -> None:
        """Every process writes its shards to the folder of `path`, which all have to see."""
        skeleton, tensors = taken_apart(state, lambda tensor: isinstance(tensor, DTensor))
        before = self.slots.get(path.name)
        slot = next(name for name in runs.shard_folders(path.name) if name != before)
        if self.group.leads:
            runs.remove_shards(path.parent, but=before, of=path.name)
        self.group.share(None)  # the others wait until the folder is free
        write_shards(path.with_name(slot), tensors)
        if self.group.leads:
            save_checkpoint(path, skeleton, slot)
            runs.remove_shards(path.parent, but=slot, of=path.name)
        self.slots[path.name] = slot

    def load(self, path: Path, optimizer: Any) -> dict[str, Any]:
        """Each process reads its own part of each tensor, whoever wrote the checkpoint."""
        likes = self._likes(optimizer)

        def like(key: str) -> Any:
            return likes.get(key, likes.get(key.rpartition("/")[0]))

        state = load_checkpoint(path, room=lambda key, shape, dtype: torch.empty_like(like(key), dtype=dtype))
        self.slots[path.name] = state.get(SHARDS)
        skeleton, tensors = taken_apart(state)
        for key, tensor in tensors.items():
            model = like(key)
            if model is not None and not isinstance(tensor, DTensor) and tensor.shape == model.shape:
                # A copy, so that the whole one is let go.
                tensors[key] = part_of(tensor.to(self.device), model).clone()
        found: dict[str, Any] = put_together(skeleton, tensors)
        return found

    def _likes(self, optimizer: Any) -> dict[str, Any]:
        """The parameter that a tensor of a checkpoint is sharded like, by the key of the tensor or of its folder."""
        found = {f"model/{name}": parameter for name, parameter in self.decoder.named_parameters()}
        parts = optimizer.parts if isinstance(optimizer, Together) else {"": optimizer}
        for name, part in parts.items():
            parameters = [parameter for group in part.param_groups for parameter in group["params"]]
            place = f"optimizer/{name}/state" if name else "optimizer/state"
            found |= {f"{place}/{number}": parameter for number, parameter in enumerate(parameters)}
        return found


def refuse_unshardable(decoder: Decoder) -> None:
    """Raise UserError if fully_shard cannot share out a parameter, as a block of the user's own may have it."""
    layers: dict[int, set[str]] = {}
    for name, parameter in decoder.named_parameters(remove_duplicate=False):
        if parameter.ndim == 0:
            raise UserError(
                f"distributed: fsdp shards rows, and {name} has none: it is a single number; make it a vector of one, "
                "or use ddp"
            )
        layer = ".".join(name.split(".")[:2]) if name.startswith("layers.") else ""
        layers.setdefault(id(parameter), set()).add(layer)
        if len(layers[id(parameter)]) > 1:
            raise UserError(
                f"distributed: fsdp shards each layer by itself, and {name} belongs to another one too; use ddp"
            )

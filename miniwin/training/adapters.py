"""Adapters around the linear maps of a decoder, by peft: LoRA (Hu et al., arXiv 2106.09685) and DoRA (Liu et al.,
arXiv 2402.09353). The decoder's own weights W get no gradient.

    LoRA   y = W x + (lora_alpha / r) B A dropout(x)            A (r, in) random, B (out, r) zero at first
    DoRA   y = m * V x / |V|,  V = W + (lora_alpha / r) B A     m (out) is |W| at first; |V| of each row, not derived

Both are a linear map again: `plain_weights` has its matrix in place of W, under the decoder's own names. So a run's
files of weights, and the model in its checkpoints, are those of a model without adapters. A checkpoint has the adapter
beside that, since W cannot be had back to the bit; a run that goes on reads W where it was read first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from miniwin.blocks import Decoder
from miniwin.specs.train_lora import LoraSpec
from miniwin.training.adapter_targets import targets

NAME = "default"  # what peft calls the adapter


def adapt(decoder: Decoder, lora: LoraSpec) -> None:
    """Put adapters, drawn from torch's generator, around the linear maps that `lora` names. All else is frozen.

    Raises:
        UserError: a pattern matches no linear map, or the rank is too large.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=lora.lora_dropout,
        target_modules=list(targets(decoder, lora)),
        use_dora=lora.use_dora,
    )
    inject_adapter_in_model(config, decoder, NAME)


def adapted(decoder: nn.Module) -> dict[str, Any]:
    """The adapted linear maps of a decoder, by name: peft's modules. Empty for a decoder without adapters."""
    if not hasattr(decoder, "peft_config"):
        return {}
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in decoder.named_modules() if isinstance(module, LoraLayer)}


def plain_weights(decoder: nn.Module) -> dict[str, Tensor]:
    """The weights under the names that they have without adapters. Of adapted maps these are new tensors, merged."""
    return _weights(decoder, merged=True)


def base_weights(decoder: nn.Module) -> dict[str, Tensor]:
    """The weights under the names that they have without adapters, as if there were none."""
    return _weights(decoder, merged=False)


def _weights(decoder: nn.Module, merged: bool) -> dict[str, Tensor]:
    found, state = adapted(decoder), decoder.state_dict()
    weights: dict[str, Tensor] = {}
    for name, tensor in state.items():
        owner, base, last = name.rpartition(".base_layer.")
        if base:
            weights[f"{owner}.{last}"] = _merged(found[owner]) if merged and last == "weight" else tensor
        elif not any(name.startswith(f"{owner}.lora_") for owner in _owners(name)):
            weights[name] = tensor
    return weights


def _owners(name: str) -> list[str]:
    """The modules that a tensor is in: layers.0.mlp.down_proj, layers.0.mlp, layers.0, layers."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]


@torch.no_grad()
def _merged(module: Any) -> Tensor:
    """The matrix of an adapted map. peft puts it in the place of W, which is put back."""
    base = module.get_base_layer().weight
    kept = base.data
    module.merge(safe_merge=True)
    out, base.data = base.data, kept
    module.merged_adapters.clear()
    return out  # type: ignore[no-any-return]


def adapter_weights(decoder: nn.Module) -> dict[str, Tensor]:
    """The trained tensors, under peft's names for files: layers.0.attention.q_proj.lora_A.weight."""
    if not adapted(decoder):
        return {}
    from peft import get_peft_model_state_dict

    found: dict[str, Tensor] = get_peft_model_state_dict(decoder, adapter_name=NAME, save_embedding_layers=False)
    return found


def put_adapter(decoder: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give a decoder the adapter's tensors that `adapter_weights` had. They fit: the caller has compared names."""
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(decoder, tensors, adapter_name=NAME)


def counts(decoder: nn.Module) -> tuple[int, int]:
    """(parameters of the model without adapters, parameters that are trained)."""
    of_adapters = sum(tensor.numel() for tensor in adapter_weights(decoder).values())
    parameters = list(decoder.parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return sum(parameter.numel() for parameter in parameters) - of_adapters, trained

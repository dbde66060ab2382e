"""Small builders that several test files share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from miniwin.blocks import Decoder
from miniwin.specs import ModelSpec, parse_spec

LOCAL: dict[str, Any] = {"type": "p-rope", "period": 14}
GLOBAL: dict[str, Any] = {"type": "nope"}
SMALL = 1_000_000  # parameters: a shipped model of fewer is put to the contract of every block


def attention(window: int | None, position: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"num_heads": 4, "num_kv_heads": 2, "window": window, "position": position, **fields}


def tiny_spec(blocks: dict[str, dict[str, Any]] | None = None, **fields: Any) -> ModelSpec:
    """A model spec of a few thousand weights; blocks: letter -> its attention (or its whole layer)."""
    blocks = blocks or {"S": attention(7, LOCAL), "G": attention(None, GLOBAL)}
    layers = {
        letter: block if "attention" in block else {"attention": block, "mlp": {"intermediate_size": 24}}
        for letter, block in blocks.items()
    }
    pattern = "".join(layers)
    plain = {"name": "tiny", "vocab_size": 61, "hidden_size": 32, "num_layers": 2 * len(pattern), "pattern": pattern}
    return parse_spec({"kind": "model", "format": 1, **plain, "blocks": layers, **fields}, "model")


# Layers with a cache of every kind, local and global.
BLOCKS = {
    "nope": {"S": attention(7, LOCAL), "G": attention(None, GLOBAL)},
    "rope": {"S": attention(7, {"type": "rope"}), "G": attention(None, {"type": "rope"})},
    "alibi": {"S": attention(7, {"type": "alibi"}), "G": attention(None, {"type": "alibi"})},
    "gates": {"S": attention(7, LOCAL, keep_first=2), "G": attention(None, {"type": "forgetting"})},
    "chunk": {"S": attention(None, LOCAL, chunk=7), "G": attention(None, GLOBAL, sinks=True, softcap=5.0)},
    "heads": {
        "S": attention(
            7, {"type": "per-head", "of": [{"share": 0.5, **LOCAL}, {"share": 0.5, **GLOBAL}]}, keep_first=2
        ),
        "G": attention(
            None,
            {
                "type": "per-head",
                "of": [{"share": 0.5, "type": "forgetting"}, {"share": 0.5, "type": "stick-breaking"}],
            },
        ),
    },
    "split": {
        "S": attention(None, {"type": "rope"}, windows=[7, 9], keep_first=2),
        "G": attention(None, GLOBAL, windows=[None, 7]),
    },
    "hope": {"S": attention(7, {"type": "hope"}), "G": attention(None, {"type": "stick-breaking"})},
}


@torch.no_grad()
def enliven(decoder: Decoder, seed: int = 0) -> Decoder:
    """Draw weights so large that logits are of order one and show every mechanism, as after training.

    With the small weights of a fresh model, attention is nearly uniform and a comparison of logits proves nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    matrices = {id(m.weight): m.weight.shape[1] for m in decoder.modules() if isinstance(m, nn.Linear)}
    for name, parameter in decoder.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if id(parameter) in matrices:
            gain = 1.5 if "q_proj" in name or "k_proj" in name else 1.0
            if "o_proj" in name or "down_proj" in name:  # else deep models amplify rounding itself beyond 1e-4
                gain = (2 * len(decoder.layers)) ** -0.5
            parameter.copy_(noise * gain * matrices[id(parameter)] ** -0.5)
        elif parameter.dim() >= 2:
            parameter.copy_(noise * 3 * parameter.shape[-1] ** -0.5)
        elif parameter.any():  # norm gains, logit scales: around what they are
            parameter.mul_(1 + 0.2 * noise)
        else:  # biases, gains that are one more than they say, sinks
            parameter.add_(0.3 * noise)
    return decoder


def random_ids(spec: ModelSpec, batch: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(spec.vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


def largest(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference; NaN if either has a NaN."""
    assert a.shape == b.shape, f"{tuple(a.shape)} against {tuple(b.shape)}"
    return float((a.detach().double() - b.detach().double()).abs().max()) if a.numel() else 0.0


class RealTensors(TorchDispatchMode):
    """Counts the elements of tensors made anywhere but on the meta device."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.elements += sum(t.numel() for t in tree_leaves(out) if isinstance(t, Tensor) and not t.is_meta)
        return out

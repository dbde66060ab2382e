"""Weight-only int8 for a whole model: its matrices become `Int8Weight`. Norms, biases and routers stay as they are.

int8 is a property of the weights alone. So no module changes, and a head that is tied to the embedding stays tied.
`miniwin eval`, with and without `--quantize int8`, measures what is lost.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from miniwin.blocks.int8.weight import Int8Weight
from miniwin.language_model import LanguageModel
from miniwin.specs import UserError

KINDS = ("int8",)


def quantize(model: LanguageModel, kind: str = "int8") -> LanguageModel:
    """Store the model's matrices in int8, in place. This is for inference on a CPU, and cannot be undone.

    Raises:
        UserError: the kind is unknown, or the model is not on a CPU.
    """
    if kind not in KINDS:
        raise UserError(f"quantize: got {kind!r}; expected {', '.join(KINDS)}")
    if model.device.type != "cpu":
        raise UserError(f"quantize: got a model on {model.device}; int8 weights are for a CPU")
    done: dict[int, nn.Parameter] = {}  # by the id of the weight that it replaces: a tied weight stays one parameter
    for _, module in matrices(model.decoder):
        weight = module.weight
        if isinstance(weight, Int8Weight):
            continue
        if id(weight) not in done:
            done[id(weight)] = nn.Parameter(Int8Weight.of(weight), requires_grad=False)
        module.weight = done[id(weight)]
    model.requires_grad_(False)
    return model.eval()


def matrices(decoder: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Embedding]]:
    """The modules whose weights are stored in eight bits, with their names."""
    for name, module in decoder.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding) and not name.endswith("router"):
            yield name, module

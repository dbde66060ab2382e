"""The decoder that a run trains: its modules, its first weights, its adapters, and what of it is trained.

This is the one place where a model is made ready for training. Whatever changes a model for a run belongs here, so that
every engine (engines.py) and every evaluation gets the same modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from miniwin.blocks import Decoder
from miniwin.blocks.messages.listing import some
from miniwin.blocks.messages.nearest import nearest
from miniwin.specs import ModelSpec, TrainSpec, UserError
from miniwin.training.adapters import adapt
from miniwin.training.start import Start
from miniwin.training.weight_rules import pattern_of


def make_ready(model: ModelSpec, train: TrainSpec, start: Start | None = None) -> Decoder:
    """The decoder of a run, on torch's default device. On the meta device it has no weights, but is the same otherwise.

    start: the weights that it begins with. By default they are random, from torch's generator.

    Raises:
        UserError: `freeze` names no parameter, or leaves none to train; `lora` cannot be honoured.
    """
    decoder = model.build()
    if start is not None:
        start.put(decoder)
    freeze(decoder, train.freeze)
    if train.lora is not None:
        adapt(decoder, train.lora)
    return decoder


def freeze(decoder: nn.Module, patterns: Sequence[str]) -> None:
    """Keep parameters as they are: they get no gradient, the optimizer does not know them, nothing decays them.

    patterns: globs over the names of parameters, such as layers.*.mlp.*. A parameter of several names is frozen by any.

    Raises:
        UserError: a pattern matches no name, or nothing is left to train.
    """
    named = dict(decoder.named_parameters(remove_duplicate=False))
    for place, pattern in enumerate(patterns):
        found = [name for name in named if fnmatchcase(name, pattern)]
        if not found:
            raise UserError(f"freeze.{place}: got '{pattern}', which no parameter is called; {_hint(pattern, named)}")
        for name in found:
            named[name].requires_grad_(False)
    if patterns and not any(parameter.requires_grad for parameter in named.values()):
        raise UserError("freeze: all parameters are frozen, and nothing is left to train; freeze fewer")


def check_freeze(model: ModelSpec, train: TrainSpec) -> None:
    """Raise the errors of `freeze` for a model that is not built yet."""
    if train.freeze:
        with torch.device("meta"):
            make_ready(model, train)


def _hint(pattern: str, named: dict[str, nn.Parameter]) -> str:
    known = sorted({pattern_of(name) for name in named})
    if pattern.startswith("lm_head") and "lm_head.weight" not in named:
        return "the head is the embedding here (tie_word_embeddings): freeze embed_tokens.weight"
    near = nearest(pattern, known)
    return f"did you mean '{near}'?" if near else f"expected a glob over names such as {some(known, 5)}"

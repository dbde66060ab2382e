"""A tiny model that is sure of what it says, and likelihoods straight from its logits."""

from __future__ import annotations

import tiny
import torch

from miniwin import build
from miniwin.evaluation.continuations import Likelihood, Pair
from miniwin.language_model import LanguageModel


def confident(seed: int = 0) -> LanguageModel:
    """Sometimes right, and clearly so: an untrained model is neither."""
    torch.manual_seed(seed)
    model = build(tiny.spec())
    with torch.no_grad():
        model.decoder.head.weight.mul_(60)
    return model


@torch.no_grad()
def naive(model: LanguageModel, pair: Pair) -> Likelihood:
    context, continuation = pair
    logits = model(torch.tensor([[*context, *continuation]]))[0, len(context) - 1 : -1].double()  # (Q, V)
    ids = torch.tensor(continuation)
    cost = -logits.log_softmax(-1)[range(len(ids)), ids].sum()
    return Likelihood(float(cost), bool((logits.argmax(-1) == ids).all()))

"""A model that generates given ids."""

from __future__ import annotations

import torch
from tiny import spec

from miniwin.language_model import LanguageModel


class Script(torch.nn.Module):
    """Stands in for a decoder: generates the ids of a script, whatever the input."""

    def __init__(self, ids: list[int], start: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.ids, self.start = ids, start

    def new_cache(self, batch_size: int) -> dict[str, int]:
        return {"length": 0}

    def forward(self, input_ids, cache, attention_mask, logits_to_keep):  # type: ignore[no-untyped-def]
        cache["length"] += input_ids.shape[1]
        at = cache["length"] - self.start
        logits = torch.full((1, 1, 256), -50.0)
        logits[..., self.ids[at] if at < len(self.ids) else 0] = 50.0
        return logits


def scripted(text: str | bytes, prompt: str = "p") -> LanguageModel:
    from miniwin.tokenizer import load_tokenizer

    ids = list(text.encode() if isinstance(text, str) else text)
    return LanguageModel(Script(ids, len(prompt.encode())), spec(), load_tokenizer("byte"), "scripted")  # type: ignore[arg-type]

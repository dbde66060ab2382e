"""A decoding step for several contexts at once. Each keeps a cache of its own.

rows      on a CPU, for the models that blocks/decode/rows_step.py knows: nothing is padded or copied
joined    any other model: the caches are copied side by side when contexts join or leave (blocks/cache/batching.py)

Contexts of very different lengths are not joined, because the shorter ones are padded. A scale by the total length
would see the padding, or the longest of them, so a model that has one is stepped one context after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from miniwin.blocks import Cache
from miniwin.blocks.cache.batching import joined
from miniwin.blocks.cache.batching import row as row_of
from miniwin.blocks.decode import rows_step
from miniwin.generation.decode_step import own_forward
from miniwin.inference import InferenceModel

CLOSE = 256  # tokens: contexts are joined whose lengths differ by a factor of two, or less than this


class Batch:
    """`step(members)` advances the caches of all members by one token. A member has a `cache` and is any object."""

    def __init__(self, model: InferenceModel) -> None:
        self.model = model
        like = model.new_cache(1)
        native = model.device.type == "cpu" and not own_forward(model)
        self._rows = None
        if native and rows_step.declines(model.decoder, like) is None:
            self._rows = rows_step.RowsStep(model.decoder, like)
        self._alone = any(getattr(module, "total_length", False) for module in model.modules())
        self._members: list[Any] = []  # of the joined cache
        self._joined: Cache | None = None

    def step(self, members: Sequence[Any], ids: Sequence[int]) -> Tensor:
        """ids: the new token of each member -> logits (members, V)."""
        if self._rows is not None and len(members) <= rows_step.MOST:
            return self._rows.step(ids, [member.cache for member in members])
        pairs = list(zip(members, ids, strict=True))
        out: list[Tensor | None] = [None] * len(pairs)
        for group in self._groups(members):
            some = [pairs[i][0] for i in group]
            logits = self._step(some, [pairs[i][1] for i in group])
            for place, i in enumerate(group):
                out[i] = logits[place]
        return torch.stack([one for one in out if one is not None])

    def read(self, cache: Cache, ids: Sequence[int]) -> None:
        """Add tokens to the cache of a member that takes no steps yet."""
        if self._rows is not None and len(ids) <= self._rows.few:
            self._rows.read(ids, cache)
        else:
            self.model(torch.tensor([list(ids)], device=self.model.device), cache=cache, logits_to_keep=1)

    def leave(self, members: Sequence[Any]) -> None:
        """Give each member its own cache back. These members do not come again."""
        self._settle()
        if self._rows is not None:
            self._rows.drop([member.cache for member in members if member.cache is not None])

    def _settle(self) -> None:
        """Give each member of the joined cache its own cache back."""
        if self._joined is not None:
            for place, member in enumerate(self._members):
                member.cache = row_of(self._joined, place)
        self._members, self._joined = [], None

    def _step(self, members: list[Any], ids: list[int]) -> Tensor:
        if self._rows is not None:
            return self._rows.step(ids, [member.cache for member in members])
        new = torch.tensor(ids, device=self.model.device).unsqueeze(1)
        if len(members) == 1:
            self._settle()
            return self.model(new, cache=members[0].cache, logits_to_keep=1)[:, 0]  # type: ignore[no-any-return]
        if self._members != members:
            self._settle()
            self._members, self._joined = list(members), joined([member.cache for member in members])
        return self.model(new, cache=self._joined, logits_to_keep=1)[:, 0]  # type: ignore[no-any-return]

    def _groups(self, members: Sequence[Any]) -> list[list[int]]:
        """Which members go together."""
        places = list(range(len(members)))
        if self._rows is not None:
            return [places[at : at + rows_step.MOST] for at in range(0, len(places), rows_step.MOST)]
        if self._alone:
            return [[place] for place in places]
        tokens = [member.length for member in members]
        groups: list[list[int]] = []
        for place in sorted(places, key=tokens.__getitem__):
            least = tokens[groups[-1][0]] if groups else 0
            if groups and tokens[place] <= max(2 * least, least + CLOSE):
                groups[-1].append(place)
            else:
                groups.append([place])
        return groups

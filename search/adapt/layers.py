"""The layers of all placements, over the weights of one model, and a row of tokens through them.

A layer that gets a window keeps all its tensors: it is built on the meta device and given those of the original. So
candidates cost no memory. Two placements whose first k layers are equal have equal states after layer k. The states of
one placement, the incumbent, are kept as far as memory is allowed for them, and a candidate begins where it first
differs: one that differs from layer 20 of 30 on costs a third.

Shapes: N tokens of a row, C hidden_size, V vocabulary.
"""

from __future__ import annotations

from threading import Lock

import torch
from torch import Tensor, nn

from miniwin.blocks import Decoder
from miniwin.blocks.decoder_inputs import check_input, placed
from miniwin.blocks.matmul_library import choose
from miniwin.language_model import LanguageModel
from miniwin.search.adapt.plan import Placement, Plan, Setting

MEMORY = 2 << 30  # bytes of kept states


class SharedLayers:
    """model: the original, on the CPU or elsewhere. memory: bytes of states to keep at most."""

    def __init__(self, model: LanguageModel, plan: Plan, memory: int = MEMORY) -> None:
        self.decoder: Decoder = model.decoder
        self.plan, self.memory = plan, memory
        self._changed: dict[tuple[int, Setting], nn.Module] = {}
        self._kept: dict[tuple[int, int], Tensor] = {}  # (row, layers done) -> (1, N, C)
        self._lock = Lock()  # rows may go through at the same time
        self._incumbent: tuple[Setting, ...] | None = None
        self.layers_run = 0

    def keep(self, placement: Placement) -> None:
        """Make a placement the incumbent. States that it does not share with the one before are dropped."""
        settings = self.plan.settings(placement)
        if self._incumbent is not None:
            same = _shared(settings, self._incumbent)
            self._kept = {(row, done): h for (row, done), h in self._kept.items() if done <= same}
        self._incumbent = settings

    def hidden(self, placement: Placement, ids: Tensor, row: int | None = None) -> Tensor:
        """ids (1, N) -> final hidden states (1, N, C), normed. row: the number under which states of it are kept."""
        decoder, settings = self.decoder, self.plan.settings(placement)
        same = 0 if row is None or self._incumbent is None else _shared(settings, self._incumbent)
        start, h = 0, None
        if row is not None:
            with self._lock:
                start = max((done for (one, done) in self._kept if one == row and done <= same), default=0)
                h = self._kept.get((row, start))
        x = check_input(ids, None, decoder.vocab_size, decoder.embed_tokens.embedding_dim)
        where = placed(x, None, None, None, None, [])
        if h is None:
            h = decoder.embed(x)  # (1, N, C)
            if decoder.embed_positions is not None:
                h = h + decoder.embed_positions(where, x.shape[1])
        for number in range(start, len(settings)):
            h = self.layer(number, settings[number])(h, where, None, None)
            with self._lock:
                self.layers_run += 1
                if row is not None and number + 1 <= same and self._has_room(h):
                    self._kept[row, number + 1] = h
        out: Tensor = decoder.norm(h)
        return out

    def layer(self, number: int, setting: Setting) -> nn.Module:
        """The layer as it is in the original, or with the windows of a setting."""
        own = self.decoder.layers[number]
        if self.plan.as_in_original(number, setting):
            return own
        with self._lock:
            if (number, setting) not in self._changed:
                with torch.device("meta"):
                    made = self.plan.layer(number, setting).build(self.plan.spec.hidden_size)
                made.load_state_dict(own.state_dict(), assign=True)
                choose(made, self.decoder.product)
                self._changed[number, setting] = made.train(own.training)
            return self._changed[number, setting]

    def _has_room(self, h: Tensor) -> bool:
        held = sum(t.numel() * t.element_size() for t in self._kept.values())
        return held + h.numel() * h.element_size() <= self.memory


def _shared(one: tuple[Setting, ...], other: tuple[Setting, ...]) -> int:
    """How many of the first layers are equal."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))

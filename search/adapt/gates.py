"""A gate for each unit: how much of it sees the whole context, between local (0) and global (1).

    heads_out = gate * global_out + (1 - gate) * local_out                             before the output projection

The weights stay as they are; only gates are learnt. All of them are learnt together, so units that retrieve together
are found together. (Gates on heads: Xiao et al., DuoAttention, arXiv 2410.10819, section 2.2.)

Shapes: N tokens of a row, C hidden_size, H heads, D head_dim.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from miniwin.blocks.decoder_inputs import check_input, placed
from miniwin.search.adapt.layers import SharedLayers
from miniwin.search.adapt.plan import WHOLE


class _Reached(Exception):
    """The input of the output projection is known; the rest of the layer is not needed."""


class GatedLayers:
    """The layers of a model, with every unit anywhere between local and global. One call at a time."""

    def __init__(self, shared: SharedLayers) -> None:
        self.shared = shared

    def hidden(self, gates: Tensor, ids: Tensor) -> Tensor:
        """gates, one for each of `plan.units` in order; ids (1, N) -> final hidden states (1, N, C), normed."""
        decoder, plan = self.shared.decoder, self.shared.plan
        x = check_input(ids, None, decoder.vocab_size, decoder.embed_tokens.embedding_dim)
        where = placed(x, None, None, None, None, [])
        h = decoder.embed(x)
        if decoder.embed_positions is not None:
            h = h + decoder.embed_positions(where, x.shape[1])
        at = {unit: i for i, unit in enumerate(plan.units)}
        for number in range(len(decoder.layers)):
            if number not in plan.whole_layers:
                h = self.shared.layer(number, WHOLE)(h, where, None, None)
                continue
            units = plan.units_of(number)
            mine = gates[[at[unit] for unit in units]]
            whole, local = (self.shared.layer(number, (stays,) * len(units)) for stays in (True, False))
            h = self._mixed(whole, local, mine, h, where)
        out: Tensor = decoder.norm(h)
        return out

    def _mixed(self, whole: Any, local: Any, gates: Tensor, h: Tensor, where: Any) -> Tensor:
        attention = whole.attention
        each = gates.repeat_interleave(attention.num_heads // len(gates) * attention.head_dim)  # (H * D)
        seen: list[Tensor] = []

        def catch(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            seen.append(given[0])
            raise _Reached

        def mix(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
            return (seen[0] + each * (given[0] - seen[0]),)

        # The rest of the layer is the layer's own, whatever its norms and residuals are.
        hook = local.attention.o_proj.register_forward_pre_hook(catch)
        try:
            local(h, where, None, None)
        except _Reached:
            pass
        finally:
            hook.remove()
        hook = attention.o_proj.register_forward_pre_hook(mix)
        try:
            out: Tensor = whole(h, where, None, None)
        finally:
            hook.remove()
        return out

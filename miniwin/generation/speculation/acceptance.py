"""Which guesses are kept, so that the text has the distribution p of the model alone.

    A guess drawn from q is kept with probability min(1, p(guess) / q(guess)). Otherwise the token is drawn from
    max(0, p - q), renormalised.                       Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318

Where the guess is certain (q is 1 there), the rule says: draw from p, and keep the guess if it was drawn. So one draw
does for both, the same draw as without guesses: a seed gives the same text with them. p and q are what is drawn from,
after temperature, top-k, top-p and min-p.
"""

from __future__ import annotations

import torch
from torch import Tensor

from miniwin.generation.sampling import Sampling, distribution, draw, sample


def next_token(
    logits: Tensor,  # (V,)
    guess: int | None,
    guessed_from: Tensor | None,  # (V,) float64: q; None: the guess is certain
    sampling: Sampling,
    generator: torch.Generator,
) -> int:
    """The next token. The guess was right if it is the guess.

    Raises:
        UserError: the logits are not finite.
    """
    if guess is None or guessed_from is None:
        return sample(logits, sampling, generator)
    wanted = distribution(logits, sampling)  # (V,) float64: p
    ratio = wanted[guess] / guessed_from[guess]
    if float(torch.rand((), dtype=torch.float64, generator=generator)) < float(ratio):
        return guess
    rest = (wanted - guessed_from).clamp(min=0)
    return draw(rest if float(rest.sum()) > 0 else wanted, generator)  # no rest: p is q but for rounding

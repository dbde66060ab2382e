"""Speculative decoding: guess several tokens, check them in one pass of the model, keep what is right.

Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318. The text has the distribution that it has without.

settings.py     what a caller may ask for, and what cannot be honoured
lookup.py       guesses from what was read and generated so far
draft.py        guesses of a smaller model
acceptance.py   which guesses are kept
pace.py         how many tokens to guess
decoding.py     the loop
"""

from miniwin.generation.speculation.settings import Speculation

__all__ = ["Speculation"]

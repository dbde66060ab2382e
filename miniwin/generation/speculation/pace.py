"""How many tokens to guess, so that guessing pays, and costs next to nothing where it does not.

If each guess is right with probability a, then k guesses give (1 - a^(k+1)) / (1 - a) tokens on average (Leviathan et
al., arXiv 2211.17192, equation 1). They cost more than a pass for one token. The number is taken that gives most tokens
for the cost. a is counted, apart for each kind of guess, and older counts fade. It depends on tokens alone and not on
clocks, so a seed gives the same text on a busy machine.
"""

from __future__ import annotations

from collections import defaultdict

# The cost of a pass beyond that of one token, as a share of it: for any guess, and for each token. Set for a CPU with
# the native step. Wrong ones cost time; `python -m benchmarks.speculation` shows what guessing gains.
BEGIN, EACH = 0.25, 0.15
HOPE, TRIALS = 0.6, 2.0  # what is taken for a before anything is known, and how many guesses this counts as
FADING = 0.97  # per guess
AGAIN = 32  # tokens after which guesses are tried again, where they cannot be judged without a pass


class Pace:
    def __init__(self, most: int, each: float = EACH) -> None:
        """most: tokens at once. each: the cost of a guessed token, checking included, as a share of a pass."""
        self._most, self._each = most, each
        self._right: defaultdict[int, float] = defaultdict(lambda: HOPE * TRIALS)
        self._tried: defaultdict[int, float] = defaultdict(lambda: TRIALS)

    def tokens(self, kind: int, room: int) -> int:
        """How many tokens to guess; 0 where guessing does not pay. room: at most so many."""
        chance = self._right[kind] / self._tried[kind]
        best, best_gain, expected, power = 0, 1.0, 1.0, 1.0
        for count in range(1, min(self._most, room) + 1):
            power *= chance
            expected += power
            gain = expected / (1 + BEGIN + self._each * count)
            if gain > best_gain:
                best, best_gain = count, gain
        return best

    def learn(self, kind: int, right: int, wrong: bool) -> None:
        """Of a guess, the first `right` tokens were right, and whether another one was wrong."""
        for one in (*[1.0] * right, *[0.0] * wrong):
            self._right[kind] = self._right[kind] * FADING + one
            self._tried[kind] = self._tried[kind] * FADING + 1.0

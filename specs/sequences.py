"""All sequences of letters that keep some rules: how many there are, and the one of a given rank. None is listed.

The sequences stand in reflected order, that of a Gray code: after every other letter the sequences of the rest run
backwards. So a sequence differs little from the one before it. Of sequences that have one of two letters a fixed number
of times, each makes the next by a swap of two letters (the revolving door; Knuth, The Art of Computer Programming,
volume 4A, section 7.2.1.3).

A sequence is read from left to right by a small automaton. Its state is the last letter, where that matters, and how
often each limited letter has come. The number of ways to go on from a state, counted once, gives ranks; the least
number of changes from a state gives the nearest sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random

Word = tuple[int, ...]  # indices into the letters
State = tuple[int, ...]  # the last letter (-1 where it does not matter), then a count for each limited letter

MOST_STATES = 500_000  # of one automaton, over all positions: about a second to count


class Sequences:
    """The sequences over `letters` letters, 0, 1, ..., that keep the rules.

    at_least, at_most: how often a letter comes. not_twice: letters that never stand beside themselves.
    """

    def __init__(
        self,
        letters: int,
        at_least: Mapping[int, int] | None = None,
        at_most: Mapping[int, int] | None = None,
        not_twice: Sequence[int] = (),
    ) -> None:
        self.letters = letters
        self._least = {letter: n for letter, n in (at_least or {}).items() if n > 0}
        self._most = dict(at_most or {})
        self._apart = frozenset(not_twice)
        self._limited = sorted({*self._least, *self._most})
        self._place = {letter: index + 1 for index, letter in enumerate(self._limited)}
        self._start: State = (-1, *(0 for _ in self._limited))
        self._ways: dict[tuple[State, int], int] = {}

    def states(self, length: int) -> int:
        """At most how many states the automaton of sequences of this length passes through."""
        found = (len(self._apart) + 1) * length
        for letter in self._limited:
            found *= min(self._most.get(letter, self._least.get(letter, 0)), length) + 1
        return found

    def count(self, length: int) -> int:
        """How many sequences of this length there are."""
        return self._count(self._start, length)

    def allows(self, word: Word) -> bool:
        """Whether a sequence keeps the rules."""
        state: State | None = self._start
        for letter in word:
            state = self._next(state, letter) if 0 <= letter < self.letters else None
            if state is None:
                return False
        return self._count(state, 0) == 1  # type: ignore[arg-type]

    def rank(self, word: Word) -> int:
        """The place of a sequence among those of its length, from 0."""
        assert self.allows(word)
        state, rank, forwards = self._start, 0, True
        for index, letter in enumerate(word):
            rest = len(word) - index - 1
            for other in self._order(forwards):
                if other == letter:
                    break
                rank += self._after(state, other, rest)
            state, forwards = self._moved(state, letter), forwards ^ bool(letter % 2)
        return rank

    def unrank(self, length: int, rank: int) -> Word:
        """The sequence of this rank."""
        assert 0 <= rank < self.count(length)
        word: list[int] = []
        state, forwards = self._start, True
        while len(word) < length:
            rest = length - len(word) - 1
            for letter in self._order(forwards):
                ways = self._after(state, letter, rest)
                if rank < ways:
                    break
                rank -= ways
            word.append(letter)
            state, forwards = self._moved(state, letter), forwards ^ bool(letter % 2)
        return tuple(word)

    def all(self, length: int) -> Iterator[Word]:
        """All sequences of this length, in order."""
        return self._all(self._start, length, True)

    def nearest(self, wanted: Sequence[int | None], random: Random) -> Word:
        """A sequence that keeps the rules and differs from `wanted` in the fewest places.

        wanted: a letter for each place; None: any letter will do. random: draws one of the nearest, each alike.
        """
        assert self.count(len(wanted))
        best: dict[tuple[State, int], tuple[int, int]] = {}

        def cost(state: State, index: int) -> tuple[int, int]:
            """(the fewest changes from here on, how many sequences need so few); no sequence: (more than any, 0)."""
            if index == len(wanted):
                return (0, 1) if self._count(state, 0) else (len(wanted) + 1, 0)
            known = best.get((state, index))
            if known is None:
                options = [option for _, option in steps(state, index)]
                least = min((changes for changes, _ in options), default=len(wanted) + 1)
                known = best[state, index] = least, sum(ways for changes, ways in options if changes == least)
            return known

        def steps(state: State, index: int) -> Iterator[tuple[int, tuple[int, int]]]:
            for letter in range(self.letters):
                after = self._next(state, letter)
                if after is not None:
                    changes, ways = cost(after, index + 1)
                    yield letter, (changes + (wanted[index] not in (None, letter)), ways)

        word: list[int] = []
        state = self._start
        for index in range(len(wanted)):
            least, ways = cost(state, index)
            drawn = random.randrange(ways)
            for letter, (changes, of) in steps(state, index):
                if changes == least:
                    drawn -= of
                    if drawn < 0:
                        word.append(letter)
                        break
            state = self._moved(state, word[-1])
        return tuple(word)

    # -- the automaton

    def _next(self, state: State | None, letter: int) -> State | None:
        """The state after a letter; None: the rules forbid it."""
        if state is None or state[0] == letter:
            return None
        last = letter if letter in self._apart else -1
        place = self._place.get(letter)
        if place is None:
            return state if state[0] == last else (last, *state[1:])
        most = self._most.get(letter)
        count = state[place] + 1
        if most is None:
            count = min(count, self._least[letter])  # enough is enough
        elif count > most:
            return None
        return (last, *state[1:place], count, *state[place + 1 :])

    def _moved(self, state: State, letter: int) -> State:
        after = self._next(state, letter)
        assert after is not None
        return after

    def _count(self, state: State, rest: int) -> int:
        """How many ways there are to go on for `rest` letters."""
        if not rest:
            return int(all(state[self._place[letter]] >= least for letter, least in self._least.items()))
        known = self._ways.get((state, rest))
        if known is None:
            known = self._ways[state, rest] = sum(
                self._after(state, letter, rest - 1) for letter in range(self.letters)
            )
        return known

    def _after(self, state: State, letter: int, rest: int) -> int:
        after = self._next(state, letter)
        return 0 if after is None else self._count(after, rest)

    def _order(self, forwards: bool) -> range:
        return range(self.letters) if forwards else range(self.letters - 1, -1, -1)

    def _all(self, state: State, rest: int, forwards: bool) -> Iterator[Word]:
        if not rest:
            yield ()
            return
        for letter in self._order(forwards):
            if self._after(state, letter, rest - 1):
                for word in self._all(self._moved(state, letter), rest - 1, forwards ^ bool(letter % 2)):
                    yield (letter, *word)

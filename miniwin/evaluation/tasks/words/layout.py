"""Facts at places in filler: a text with as much filler as there is room for.

Facts keep their order. Their places are drawn evenly over the room. Where a depth is asked for, the fact that the
question is about stands there, and the places of the facts before and after it are drawn on either side.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from random import Random

from miniwin.evaluation.tasks.words.passage import Filler, Passage

Sizes = Callable[[Sequence[str]], list[int]]  # of texts, in tokens or bytes
TOGETHER = 32  # pieces of filler that are measured at once
MORE = 1.25  # so much more filler is at hand than fits by the sizes of its pieces: some tokenizers count a space twice


@dataclass(frozen=True)
class Layout:
    """context: facts and filler. depth: where that fact lies which the question is about, from 0 to 1, if it is one."""

    context: str
    depth: float | None


def lay(
    passage: Passage,
    random: Random,
    filler: Filler,
    room: int,
    sizes: Sizes,
    whole: Callable[[str], str],
) -> Layout:
    """The facts of a passage in filler, so that the whole text has `room` tokens, or a little fewer.

    sizes: how large each of several texts is; a text may be larger or smaller than its parts together. whole: the
    whole text for a context. Without filler it has to fit. What is left of the room is less than a piece of filler.
    """
    drawn = [random.random() for _ in passage.facts]
    facts = sizes([passage.joiner + fact for fact in passage.facts])
    (least,) = sizes([whole(passage.bare)])
    assert least <= room, "the caller makes sure that the facts fit"
    pieces: list[str] = []
    cost = [0]  # of the first k pieces, each with its joiner
    source = (passage.filler or filler).pieces(random)
    while cost[-1] < MORE * (room - least):
        new = list(islice(source, TOGETHER))
        pieces += new
        measured = sizes([passage.joiner + piece for piece in new])
        cost += list(accumulate(measured, initial=cost[-1]))[1:]

    def laid(count: int) -> tuple[Layout, int]:
        layout = _joined(passage, pieces[:count], cost[: count + 1], facts, drawn)
        return layout, sizes([whole(layout.context)])[0]

    count = bisect_right(cost, room - least) - 1
    layout, size = laid(count)
    if count and size != least + cost[count]:  # the pieces together are smaller or larger than one by one
        each = (size - least) / cost[count]
        count = min(bisect_right(cost, (room - least) / each) - 1, len(pieces))
        layout, size = laid(count)
    while size > room and count:
        count -= 1
        layout, size = laid(count)
    return layout


def _joined(
    passage: Passage, pieces: Sequence[str], cost: Sequence[int], facts: Sequence[int], drawn: Sequence[float]
) -> Layout:
    """facts: how large each is. drawn: a number from 0 to 1 for each."""
    filled, about = cost[-1], passage.about
    before = sum(facts[:about])  # facts before the one that the question is about
    around = filled + sum(facts) - (0 if about is None else facts[about])
    shares = sorted(drawn)
    if about is not None and passage.depth is not None:
        share = min(max((passage.depth * around - before) / max(filled, 1), 0.0), 1.0)
        ahead, behind = drawn[:about], drawn[about + 1 :]
        shares = [*sorted(share * one for one in ahead), share, *sorted(share + (1 - share) * one for one in behind)]
    parts: list[str] = []
    done, depth = 0, None
    for number, (fact, share) in enumerate(zip(passage.facts, shares, strict=True)):
        place = _nearest(cost, share * filled)
        parts += pieces[done:place]
        parts.append(fact)
        done = place
        if number == about:
            depth = (before + cost[place]) / around if around else 0.0
    return Layout(passage.joiner.join([*parts, *pieces[done:]]), depth)


def _nearest(cost: Sequence[int], wanted: float) -> int:
    """How many pieces have together nearly the wanted cost."""
    place = min(bisect_left(cost, wanted), len(cost) - 1)
    return place - 1 if place > 0 and wanted - cost[place - 1] < cost[place] - wanted else place

"""Points of several objectives, best first: by non-dominated rank, and within a rank by hypervolume. Less is better.

The hypervolume of some points is the volume of all that at least one of them dominates, up to a reference point. What a
point contributes is the volume that would be lost without it. Within a rank, the point that contributes least comes
last; without it the next one is found, and so on: so of two points that are nearly equal only one comes late.

    each objective is scaled by its range within the rank: bytes do not outweigh nats
    reference = 1 + 1 / (m^(1 / (d - 1)) - 1)              of m points and d objectives

In units of the range, the worst value is 1. The reference lies a step beyond the worst, as long as the steps between m
points that are spread evenly: so the ends of a front count as much as its middle.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence

Point = tuple[float, ...]


def among_best(points: Sequence[Point], most: int, wanted: Collection[int]) -> int | None:
    """The best of the points with these indices, if it is among the best `most` of all; else None. A point with a value
    that is not finite comes last. Of points that are equal, the first given is the better."""
    sound = [index for index, point in enumerate(points) if all(map(math.isfinite, point))]
    for layer in layers([points[index] for index in sound]):
        rank = [sound[place] for place in layer]
        among = [index for index in rank if index in wanted]
        if len(among) == 1 and len(rank) <= most:  # whatever the order within the rank
            return among[0]
        if among:
            ordered = [rank[place] for place in by_contribution([points[index] for index in rank])]
            if found := [index for index in ordered[:most] if index in wanted]:
                return found[0]
        most -= len(rank)
        if most <= 0:
            return None
    broken = sorted(set(range(len(points))) - set(sound))
    return next((index for index in broken[:most] if index in wanted), None)


def layers(points: Sequence[Point]) -> list[list[int]]:
    """The indices of the points by rank: those that no point dominates, those that only these dominate, and so on.

    In the order of their values, a point can be dominated only by points before it. Where a layer dominates it, so does
    every layer above. So the first layer that does not is found by bisection. Of two objectives the second falls from
    point to point of a layer, so its last value stands for the layer.
    """
    found: list[list[int]] = []
    lowest: list[float] = []  # of one or two objectives
    for index in sorted(range(len(points)), key=lambda one: (points[one], one)):
        point = points[index]
        if len(point) <= 2:
            last = point[1] if len(point) == 2 else 0.0
            low = bisect_right(lowest, last)
            lowest[low : low + 1] = [last]
        else:
            low = bisect_left(found, True, key=lambda layer: not any(_covers(points[one], point) for one in layer))
        if low == len(found):
            found.append([])
        found[low].append(index)
    return [sorted(layer) for layer in found]


def by_contribution(points: Sequence[Point]) -> list[int]:
    """The indices of points of one rank, the one that contributes most to the hypervolume first."""
    if len(points) < 2 or len(points[0]) < 2:
        return list(range(len(points)))
    scaled = _scaled(points)
    side = len(points) ** (1 / (len(points[0]) - 1))
    reference = (1 + 1 / (side - 1),) * len(points[0])
    left = sorted(range(len(points)), key=lambda index: scaled[index])

    def least(index: int) -> tuple[float, int]:
        place = bisect_left(left, scaled[index], key=lambda other: scaled[other])
        # Of two objectives a point has one neighbour on each side, and nobody else takes a part of its share.
        near = slice(max(place - 1, 0), place + 2) if len(reference) == 2 else slice(None)
        return contribution(scaled[index], [scaled[other] for other in left[near] if other != index], reference), -index

    # Without a point the others contribute more, never less. So what is known of a point is at least a lower bound.
    bounds = [least(index) for index in left]
    heapq.heapify(bounds)
    last: list[int] = []
    while bounds:
        index = -heapq.heappop(bounds)[1]
        known = least(index)
        if bounds and bounds[0] < known:
            heapq.heappush(bounds, known)
            continue
        left.remove(index)
        last.append(index)
    return last[::-1]


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The volume that the points dominate, up to the reference. Exact; meant for at most four objectives.

    The sum over the points of what each adds to those after it (While, Bradstreet and Barone, 2012).
    """
    inside = sorted({point for point in points if all(a < b for a, b in zip(point, reference, strict=True))})
    if not inside:
        return 0.0
    if len(reference) == 1:
        return reference[0] - inside[0][0]
    if len(reference) == 2:
        volume, lowest = 0.0, reference[1]
        for x, y in inside:  # from left to right, each point adds a rectangle below those before it
            if y < lowest:
                volume += (reference[0] - x) * (lowest - y)
                lowest = y
        return volume
    return sum(contribution(point, inside[place + 1 :], reference) for place, point in enumerate(inside))


def contribution(point: Point, others: Sequence[Point], reference: Point) -> float:
    """The volume that the point dominates, and none of the others does."""
    own = math.prod(b - a for a, b in zip(point, reference, strict=True))
    within = {tuple(map(max, point, other)) for other in others}  # what the others dominate of the point's own volume
    return own - hypervolume(_undominated(within), reference)


def _undominated(points: set[Point]) -> list[Point]:
    kept: list[Point] = []
    for point in sorted(points):
        if not any(_covers(other, point) for other in kept):
            kept.append(point)
    return kept


def _scaled(points: Sequence[Point]) -> list[Point]:
    lows, highs = (list(map(of, zip(*points, strict=True))) for of in (min, max))
    spans = [high - low or 1.0 for low, high in zip(lows, highs, strict=True)]
    return [tuple((v - low) / span for v, low, span in zip(point, lows, spans, strict=True)) for point in points]


def _covers(one: Point, other: Point) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))

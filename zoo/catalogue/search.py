"""`zoo search`: the entries that fit what is asked for, by what the index and the cards say.

An index says name, size, licence and description. Scores, the training length and what a model was made for stand in
its card and its provenance, which are read where something asks for them, or where they are on this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from miniwin.blocks.messages.listing import some
from miniwin.blocks.messages.nearest import nearest
from miniwin.display.formats import length_text
from miniwin.specs import UserError
from miniwin.zoo.catalogue.conditions import Condition, Range
from miniwin.zoo.catalogue.described import Described, Kind
from miniwin.zoo.catalogue.scores import Score, scores_of
from miniwin.zoo.errors import UnreachableError, ZooError


@dataclass(frozen=True)
class Wanted:
    """words: each has to stand in the name, the description, the layout or the licence. size: of parameters. context:
    a length that the entry was measured at, or beyond. licences: one of these. conditions: all of them."""

    words: Sequence[str] = ()
    size: Range | None = None
    context: int | None = None
    kind: Kind | None = None
    licences: Sequence[str] = ()
    conditions: Sequence[Condition] = ()

    @property
    def asks_cards(self) -> bool:
        return bool(self.conditions) or self.context is not None or self.kind is not None


@dataclass(frozen=True)
class Hit:
    """scores: all of the card's, met: those of the conditions, in their order. kind, scores and trained_at are None
    where the files that say it were not read."""

    entry: Described
    kind: Kind | None = None
    trained_at: int | None = None
    scores: list[Score] | None = None
    met: list[Score] = field(default_factory=list)

    @property
    def measured_to(self) -> int | None:
        """The longest length at which the card says how well it does."""
        return max((one.length for one in self.scores or () if one.length and not one.is_cost), default=None)


@dataclass(frozen=True)
class Found:
    """problems: why entries were passed over."""

    hits: list[Hit]
    problems: list[str]


def search(entries: Sequence[Described], wanted: Wanted) -> Found:
    """The entries that fit. By the first condition the best comes first, else they come by name.

    Raises:
        UserError: a condition is about a task that no entry and nobody else knows.
    """
    hits: list[Hit] = []
    problems: list[str] = []
    known: set[tuple[str, int | None]] = set()
    silent: set[str] = set()  # zoos that gave no answer: each further question would take as long
    for entry in entries:
        if not _fits_index(entry, wanted):
            continue
        if entry.zoo in silent and not entry.here:
            problems.append(f"{entry.to_load} was passed over: its zoo gave no answer")
            continue
        try:
            hit = _read(entry, wanted)
        except UnreachableError as error:
            silent.add(entry.zoo)
            problems.append(f"{entry.to_load} was passed over: {error}")
            continue
        except ZooError as error:
            problems.append(f"{entry.to_load} was passed over: {error}")
            continue
        known.update((score.task, score.length) for score in hit.scores or ())
        met = [_score_for(one, hit, wanted.context) for one in wanted.conditions]
        right_kind = wanted.kind in (None, hit.kind)
        long_enough = wanted.context is None or (hit.measured_to or 0) >= wanted.context
        kept = [score for score, one in zip(met, wanted.conditions, strict=True) if score and one.holds(score.value)]
        if right_kind and long_enough and len(kept) == len(met):
            hits.append(Hit(entry, hit.kind, hit.trained_at, hit.scores, kept))
    if not problems:
        _check_tasks(wanted.conditions, known, entries)
    if wanted.conditions:
        first = wanted.conditions[0]
        hits.sort(key=lambda hit: -hit.met[0].value if first.more_is_better else hit.met[0].value)
    return Found(hits, problems)


def _fits_index(entry: Described, wanted: Wanted) -> bool:
    text = f"{entry.to_load} {entry.description} {entry.layout} {entry.licence}".casefold()
    return (
        all(word.casefold() in text for word in wanted.words)
        and (wanted.size is None or entry.parameters in wanted.size)
        and (not wanted.licences or entry.licence.casefold() in {one.casefold() for one in wanted.licences})
    )


def _read(entry: Described, wanted: Wanted) -> Hit:
    if not (entry.here or wanted.asks_cards):
        return Hit(entry)
    return Hit(entry, entry.kind, entry.trained_at, scores_of(entry.card, entry.ref))


def _score_for(condition: Condition, hit: Hit, context: int | None) -> Score | None:
    """The score that a condition is about: at its own length; else at the shortest from the context on; else at the
    longest."""
    scores = [one for one in hit.scores or () if one.task == condition.task]
    if condition.length is not None:
        return next((one for one in scores if one.length == condition.length), None)
    if context is not None:
        return min(
            (one for one in scores if (one.length or 0) >= context), key=lambda one: one.length or 0, default=None
        )
    return max(scores, key=lambda one: one.length or 0, default=None)


def _check_tasks(
    conditions: Sequence[Condition], known: set[tuple[str, int | None]], entries: Sequence[Described]
) -> None:
    """Raise UserError for a task, or a task at a length, that no card has: no entry could ever fit."""
    if all(_is_known(one, known) for one in conditions):
        return
    for entry in entries:  # those that fit nothing else, too
        try:
            known = known | {(score.task, score.length) for score in scores_of(entry.card, entry.ref)}
        except ZooError:
            continue
    tasks = sorted({task for task, _ in known})
    for one in conditions:
        if one.task not in tasks:
            close = nearest(one.task, tasks)
            hint = f"did you mean {close}? " if close else ""
            listed = some(tasks, 40) if tasks else "none: no entry here or in an index was measured"
            raise UserError(f"--task: no entry was measured by {one.task!r}; {hint}measured are: {listed}")
        if not _is_known(one, known):
            lengths = sorted(length for task, length in known if task == one.task and length is not None)
            raise UserError(
                f"--task: no entry was measured by {one.task} at {one.length:,} tokens; measured are: "
                f"{some([length_text(length) for length in lengths], 40)}"
            )


def _is_known(one: Condition, known: set[tuple[str, int | None]]) -> bool:
    return any(task == one.task and one.length in (None, length) for task, length in known)

"""The search and the report of one `adapt`: placements are scored, each once, and kept in the journal."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from miniwin.inference import evaluating
from miniwin.language_model import LanguageModel
from miniwin.search.adapt.journal import Journal
from miniwin.search.adapt.layers import SharedLayers
from miniwin.search.adapt.plan import Placement, evenly
from miniwin.search.adapt.prepared import Prepared
from miniwin.search.adapt.scoring import Damage, Score, damage, score_rows
from miniwin.search.adapt.searching import Found, Search
from miniwin.specs import UserError

SEARCH, REPORT = "search", "report"


class Told(Protocol):
    """Hears what happens. `stage` begins a part of the work, and each `step` is so much of it."""

    def stage(self, name: str, steps: float) -> None: ...

    def step(self, amount: float = 1.0, said: str = "") -> None: ...


class Silent:
    def stage(self, name: str, steps: float) -> None: ...

    def step(self, amount: float = 1.0, said: str = "") -> None: ...


@dataclass(frozen=True)
class Searched:
    """What the search found. size: of the chosen placement."""

    found: Found
    original: Score
    chosen: Placement
    seconds: float


@dataclass(frozen=True)
class Measured:
    """Scores on the rows of the report, by what a placement is called, in order."""

    placements: dict[str, Placement]
    scores: dict[str, Score]
    seconds: float


class Adapting:
    """One `adapt`, from the model's weights on. journal: where scores are kept."""

    def __init__(self, prepared: Prepared, model: LanguageModel, journal: Path, told: Told | None = None) -> None:
        self.prepared, self.model, self.told = prepared, model, told or Silent()
        self.journal = Journal(journal, prepared.journal_settings())
        self._shared: dict[str, SharedLayers] = {}

    def search(self) -> Searched:
        """
        Raises:
            UserError: the budget ended before one candidate.
        """
        prepared = self.prepared
        settings, rows, units = prepared.settings, prepared.search_rows, prepared.plan.units
        shared = self._layers(SEARCH)
        self.told.stage("search", settings.evaluations)
        original = self._score(SEARCH, prepared.plan.all)
        self.told.step()

        def evaluate(placement: Placement) -> Damage:
            score = self._score(SEARCH, placement)
            found = damage(score, original, rows, settings.text_every, settings.text_weight)
            self.told.step(said=f"{search.stage}: {found.total:+.3f}")
            return found

        search = Search(units, prepared.size, evaluate, shared.keep, budget=prepared.budget, seed=settings.seed)
        chosen = search.run()
        if chosen is None:
            raise UserError("--evaluations: the search ended before one candidate; give more")
        return Searched(search.found, original, chosen, self.journal.seconds(SEARCH))

    def measure(self, searched: Searched) -> Measured:
        """The original, the chosen placement and what it is held against, on the rows of the report."""
        plan, found, size = self.prepared.plan, searched.found, self.prepared.size
        alone = sorted(plan.units, key=lambda unit: found.scored[unit,].total)[:size]
        placements = {
            "original": plan.all,
            "chosen": searched.chosen,
            "evenly spaced": evenly(plan.units, size),
            f"best of {len(found.draws)} random": min(
                (one for one in found.draws if one in found.scored), key=lambda one: found.scored[one].total
            ),
            "best by single repairs": tuple(sorted(alone)),
            "no global layer": (),
        }
        self.told.stage("report", len(placements) * len(self.prepared.rows))
        scores = {name: self._score(REPORT, placement) for name, placement in placements.items()}
        return Measured(placements, scores, self.journal.seconds(REPORT))

    def _score(self, which: str, placement: Placement) -> Score:
        known = self.journal.entries.get((which, placement))
        rows = self.prepared.search_rows if which == SEARCH else self.prepared.rows
        advance: Callable[[], object] = self.told.step if which == REPORT else lambda: None
        if known is not None:
            for _ in rows:
                advance()
            return known.score
        every = self.prepared.settings.text_every if which == SEARCH else 1
        began = time.monotonic()
        shared = self._layers(which)
        with evaluating(self.model):
            score = score_rows(shared, placement, rows, every, keep=which == SEARCH, advance=advance)
        self.journal.add(which, placement, score, time.monotonic() - began)
        return score

    def _layers(self, which: str) -> SharedLayers:
        if which not in self._shared:
            plan = self.prepared.search_plan if which == SEARCH else self.prepared.plan
            self._shared[which] = SharedLayers(self.model, plan)
        return self._shared[which]

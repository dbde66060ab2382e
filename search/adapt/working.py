"""The search and the report of one `adapt`: placements are scored, each once, and kept in the journal."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from torch import Tensor

from miniwin.inference import evaluating
from miniwin.language_model import LanguageModel
from miniwin.search.adapt.gate_learning import GateStep, learn
from miniwin.search.adapt.gates import GatedLayers
from miniwin.search.adapt.journal import Journal
from miniwin.search.adapt.layers import SharedLayers
from miniwin.search.adapt.plan import Placement, Plan, evenly
from miniwin.search.adapt.prepared import Prepared
from miniwin.search.adapt.scoring import Damage, Score, damage, original_says, score_rows
from miniwin.search.adapt.searching import Found, Search, opened
from miniwin.specs import UserError, user_path

SEARCH, REPORT = "search", "report"
EVEN = "evenly spaced"
EVALUATIONS = "evaluations.jsonl"  # the journal in the folder of the result


def scores_of(folder: str) -> Path:
    """The journal that a folder of `adapt` keeps, or one that is not finished.

    Raises:
        UserError: there is none.
    """
    path = user_path(folder)
    for journal in (path / EVALUATIONS, path):
        if journal.is_file():
            return journal
    raise UserError(f"--known: {folder}: no {EVALUATIONS} there; give a folder that `miniwin adapt` made")


class Told(Protocol):
    """Hears what happens. `stage` begins a part of the work, and each `step` is so much of it."""

    def stage(self, name: str, steps: float) -> None: ...

    def step(self, amount: float = 1.0, said: str = "") -> None: ...


class Silent:
    def stage(self, name: str, steps: float) -> None: ...

    def step(self, amount: float = 1.0, said: str = "") -> None: ...


@dataclass(frozen=True)
class Searched:
    """What the search found. chosen: units that stay global."""

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
        known = prepared.settings.known
        self.journal = Journal(journal, prepared.journal_settings(), None if known is None else scores_of(known))
        self._shared: dict[str, SharedLayers] = {}
        self._said: list[Tensor] | None = None  # by the original, of the rows of the search

    def search(self) -> Searched:
        """
        Raises:
            UserError: the budget ended before one candidate.
        """
        prepared, told = self.prepared, self.told
        settings, rows, plan = prepared.settings, prepared.search_rows, prepared.plan
        told.stage("search", settings.evaluations)
        original = self._score(SEARCH, plan.original)
        told.step()

        def evaluate(placement: Placement) -> Damage:
            found = damage(self._score(SEARCH, placement), original, rows, settings.text_every, settings.text_weight)
            told.step(said=f"{search.stage}: {found.total:+.3f}")
            return found

        search = Search(
            plan.units,
            [plan.units_of(layer) for layer in plan.whole_layers],
            prepared.size,
            evaluate,
            self._layers(SEARCH).keep,
            budget=settings.evaluations - 1,
            seed=settings.seed,
            learn=(lambda: self._learn(len(search.found.scored) + 1)) if settings.gates else None,
        )
        if settings.widen:  # the original's own layout is a candidate
            search.found.scored[plan.original] = damage(
                original, original, rows, settings.text_every, settings.text_weight
            )
        chosen = search.run()
        if chosen is None:
            raise UserError(f"--evaluations: got {settings.evaluations}, and the search ended before one candidate")
        return Searched(search.found, original, chosen, self.journal.seconds(SEARCH))

    def _learn(self, scored: int) -> list[GateStep]:
        """The gates, from where an earlier session stopped. scored: placements, so far."""
        prepared, settings = self.prepared, self.prepared.settings
        size = opened(len(prepared.plan.units), prepared.size)
        key = settings.of_gates() | {"size": size}
        done = self.journal.gates(key)
        self.told.stage("gates", settings.gates)
        self.told.step(len(done))

        def keep(number: int, step: GateStep) -> None:
            self.journal.add_gates(key, number, step)
            self.told.step(said=f"KL {step.text:.3f} on text, {step.answers:.3f} on answers")

        with evaluating(self.model):
            gated = GatedLayers(self._layers(SEARCH))
            steps = learn(gated, prepared.gate_rows, size, settings.text_weight, settings.text_every, done, keep)
        self.told.stage("search", settings.evaluations)
        self.told.step(scored)
        return steps

    def measure(self, searched: Searched) -> Measured:
        """The original, the chosen placement and what it is held against, on the rows of the report."""
        plan, found, size = self.prepared.plan, searched.found, self.prepared.size
        layers = {layer: plan.units_of(layer) for layer in plan.whole_layers}
        most = size // plan.stride  # whole layers in the same cache
        alone = sorted(plan.whole_layers, key=lambda layer: found.scored[layers[layer]].total)[:most]
        drawn = [one for one in found.draws if one in found.scored]
        placements = {
            "original": plan.original,
            "chosen": searched.chosen,
            EVEN: plan.units_of_layers(evenly(plan.whole_layers, most) if most else ()),
            f"best of {len(drawn)} random": min(drawn, key=lambda one: found.scored[one].total),
            "best by single repairs": plan.units_of_layers(sorted(alone)),
            "no global layer": (),
        }
        self.told.stage("report", len(placements) * len(self.prepared.rows))
        scores = {name: self._score(REPORT, placement) for name, placement in placements.items()}
        return Measured(placements, scores, self.journal.seconds(REPORT))

    def measure_healed(self, measured: Measured, searched: Searched, healed: LanguageModel, weights: str) -> Measured:
        """The report with the healed model. weights: their sha256."""
        plan, rows = Plan(healed.spec, self.prepared.settings.window, 0, self.prepared.plan.length), self.prepared.rows
        named = (f"healed {weights[:16]}",)
        self.told.stage("report on the healed model", len(rows))
        entry = self.journal.entries.get((REPORT, named))
        if entry is None:
            began = time.monotonic()
            with evaluating(healed):
                shared = SharedLayers(healed, plan)
                score = score_rows(shared, plan.original, rows, 1, keep=False, advance=self.told.step)
            entry = self.journal.add(REPORT, named, score, time.monotonic() - began)
        return replace(
            measured,
            placements={**measured.placements, "healed": searched.chosen},
            scores={**measured.scores, "healed": entry.score},
            seconds=self.journal.seconds(REPORT),
        )

    def _score(self, which: str, placement: Placement) -> Score:
        prepared = self.prepared
        named = tuple(prepared.plan.named(placement))
        known = self.journal.entries.get((which, named))
        rows = prepared.search_rows if which == SEARCH else prepared.rows
        advance: Callable[[], object] = self.told.step if which == REPORT else lambda: None
        if known is not None:
            for _ in rows:
                advance()
            return known.score
        every = prepared.settings.text_every if which == SEARCH else 1
        began = time.monotonic()
        shared = self._layers(which)
        with evaluating(self.model):
            originals = self._originals() if which == SEARCH and prepared.settings.by_original else None
            score = score_rows(
                shared, placement, rows, every, keep=which == SEARCH, advance=advance, originals=originals
            )
        self.journal.add(which, named, score, time.monotonic() - began)
        return score

    def _originals(self) -> list[Tensor]:
        if self._said is None:
            self._said = [original_says(self._layers(SEARCH), row) for row in self.prepared.search_rows]
        return self._said

    def _layers(self, which: str) -> SharedLayers:
        if which not in self._shared:
            plan = self.prepared.search_plan if which == SEARCH else self.prepared.plan
            self._shared[which] = SharedLayers(self.model, plan)
        return self._shared[which]

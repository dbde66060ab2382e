"""`adapt`: the whole of it. Check, say what will be done, search, measure, write.

Every scored placement is on disk at once, in a journal beside the folder of the result. The same command reads it and
goes on. The folder appears when all is done, with the journal in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from miniwin.inference import evaluating
from miniwin.language_model import LanguageModel
from miniwin.loading import load
from miniwin.search.adapt.journal import Journal
from miniwin.search.adapt.layers import SharedLayers
from miniwin.search.adapt.plan import Placement, Plan, evenly
from miniwin.search.adapt.rows import Row, Wanted, make_rows
from miniwin.search.adapt.scoring import Damage, Score, damage, score_rows
from miniwin.search.adapt.searching import Found, Search
from miniwin.search.adapt.settings import Settings
from miniwin.search.adapt.texts import Text, read_texts
from miniwin.specs import UserError, user_path
from miniwin.tokenizer import Tokenizer
from miniwin.training.origin import Origin, find_origin

SEARCH, REPORT = "search", "report"
JOURNAL = ".adapt.jsonl"  # behind the name of the folder


class Told(Protocol):
    """Hears what happens. `stage` begins a part of the work, and each `step` is so much of it."""

    def stage(self, name: str, steps: float) -> None: ...

    def step(self, amount: float = 1.0, said: str = "") -> None: ...


class Silent:
    def stage(self, name: str, steps: float) -> None: ...

    def step(self, amount: float = 1.0, said: str = "") -> None: ...


@dataclass(frozen=True)
class Prepared:
    """Everything that is known before the first placement is scored."""

    origin: Origin
    settings: Settings
    plan: Plan
    search_plan: Plan
    size: int
    texts: tuple[Text, Text]
    search_rows: list[Row]
    rows: list[Row]

    def journal_settings(self) -> dict[str, Any]:
        return {
            **self.settings.record(),
            "weights": self.origin.sha256,
            "spec": self.origin.spec.hash,
            "texts": [text.sha256 for text in self.texts],
        }

    @property
    def budget(self) -> int:
        """The placements that the search scores: those of --evaluations but the original."""
        return self.settings.evaluations - 1


def prepare(ref: str, settings: Settings) -> Prepared:
    """
    Raises:
        UserError: the reference, the settings or the texts cannot be used. Nothing was written.
    """
    origin = find_origin(ref)
    settings.check(origin.chat_format, ref)
    if origin.tokenizer is None:
        raise UserError(f"{ref} has no tokenizer, and questions are asked in words; use a model with a tokenizer")
    plan = Plan(origin.spec, settings.window, settings.sinks, settings.length)
    size = plan.count(settings.cache)
    least = len(plan.units) + 3  # the original, none, each unit alone, one candidate
    if settings.evaluations < least:
        raise UserError(
            f"--evaluations: got {settings.evaluations}, and the search would end before one candidate: the original, "
            f"the model without global layers and each of {len(plan.units)} layers alone come first; expected "
            f"{least} or more"
        )
    shorter = Plan(origin.spec, settings.search_window, settings.sinks, settings.length)
    texts = read_texts(settings.text, settings.test_text)
    asked = Wanted(settings.search_rows, settings.search_len, settings.questions)
    told = Wanted(settings.rows, settings.seq_len, settings.questions, settings.harder)
    search_rows = make_rows(texts[0], origin.tokenizer, asked, search=True, seed=settings.seed)
    rows = make_rows(texts[1], origin.tokenizer, told, search=False, seed=settings.seed)
    _check_ids(origin.spec.vocab_size, origin.tokenizer, [*search_rows, *rows], ref)
    return Prepared(origin, settings, plan, shorter, size, texts, search_rows, rows)


def _check_ids(vocab_size: int, tokenizer: Tokenizer, rows: Sequence[Row], ref: str) -> None:
    largest = max(max(row.ids) for row in rows)
    if largest >= vocab_size:
        raise UserError(
            f"the tokenizer {tokenizer.name} gives the id {largest}, and {ref} knows the ids 0 to {vocab_size - 1} "
            "only: they have other vocabularies"
        )


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


def expected_seconds(model: LanguageModel, prepared: Prepared) -> dict[str, float]:
    """About how long each part takes on this machine: one short pass is timed."""
    ids = torch.tensor([prepared.rows[0].ids[:512]], device=model.device)
    with evaluating(model):
        times = []
        for _ in range(2):
            began = time.monotonic()
            model.decoder.hidden(ids)
            times.append(time.monotonic() - began)
    spec, settings = prepared.origin.spec, prepared.settings
    rate = (spec.forward_flops(512) - 2 * spec.vocab_size * spec.hidden_size) * ids.shape[1] / min(times)

    def seconds(plan: Plan, tokens: int, rows: int) -> float:
        return plan.spec_of(plan.units[: prepared.size]).forward_flops(tokens) * tokens * rows / rate

    return {
        "search": settings.evaluations * seconds(prepared.search_plan, settings.search_len, settings.search_rows) * 0.8,
        "report": 6 * seconds(prepared.plan, settings.seq_len, settings.rows),
    }


def adapt(
    ref: str,
    settings: Settings,
    out: str | Path,
    *,
    told: Told | None = None,
    device: str = "cpu",
    dry_run: bool = False,
    say: Callable[[str], object] = lambda text: None,
) -> Path | None:
    """Find a placement for the model `ref`, and write it into the new folder `out`, with its report.

    say: is told what will be done, before it is done. dry_run: nothing more is done; the result is None. The same call
    continues one that was stopped.

    Raises:
        UserError: something that was asked for cannot be done. The folder is then not there.
    """
    from miniwin.search.adapt.result import result_of
    from miniwin.search.adapt.words import intention
    from miniwin.search.adapt.writing import refuse_existing, write_result

    folder = user_path(out).absolute()
    refuse_existing(folder)
    prepared = prepare(ref, settings)
    model = load(ref, device=device, dtype=torch.float32)
    if dry_run:
        say(intention(prepared, expected_seconds(model, prepared), 0))
        return None
    adapting = Adapting(prepared, model, folder.with_name(folder.name + JOURNAL), told)
    say(intention(prepared, expected_seconds(model, prepared), len(adapting.journal.entries)))
    searched = adapting.search()
    measured = adapting.measure(searched)
    result = result_of(prepared, searched, measured)
    write_result(folder, prepared, searched, result, adapting.journal.path)
    return folder

"""Everything that is known before the first placement is scored: model, plan, texts, rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from miniwin.search.adapt.plan import Plan
from miniwin.search.adapt.rows import Row, Wanted, make_rows
from miniwin.search.adapt.searching import WIDE, needed
from miniwin.search.adapt.settings import Settings
from miniwin.search.adapt.texts import Text, read_texts
from miniwin.specs import UserError
from miniwin.tokenizer import Tokenizer
from miniwin.training.origin import Origin, find_origin

FEWEST = 5  # layers before heads: with fewer a search over layers finds no group that retrieves


@dataclass(frozen=True)
class Prepared:
    """plan, rows: of the report. search_plan: with the shorter windows of search_rows. size: how many
    units stay."""

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
            **self.settings.of_scores(),
            "weights": self.origin.sha256,
            "spec": self.origin.spec.hash,
            "texts": [text.sha256 for text in self.texts],
        }

    @property
    def budget(self) -> int:
        """The placements of layers that the search scores: those of --evaluations but the original."""
        left = self.settings.evaluations - 1
        return left * 2 // 3 if self.settings.heads else left

    @property
    def layers(self) -> int:
        """How many layers stay in the search over layers. Where heads follow, more than they would fill."""
        if not self.settings.heads:
            return self.size
        return layers_before_heads(self.plan, self.size)


def prepare(ref: str, settings: Settings) -> Prepared:
    """
    Raises:
        UserError: the reference, the settings or the texts cannot be used. Nothing was written.
    """
    origin = find_origin(ref)
    settings.check(origin.chat_format, ref)
    if origin.tokenizer is None:
        raise UserError(f"{ref} has no tokenizer, and questions are asked in words; use a model with a tokenizer")
    plan = Plan(origin.spec, settings.window, settings.sinks, settings.length, settings.heads)
    size = plan.count(settings.cache)
    _check_budget(plan, size, settings)
    shorter = Plan(origin.spec, settings.search_window, settings.sinks, settings.length, settings.heads)
    texts = read_texts(settings.text, settings.test_text)
    asked = Wanted(settings.search_rows, settings.search_len, settings.questions)
    told = Wanted(settings.rows, settings.seq_len, settings.questions, settings.harder)
    search_rows = make_rows(texts[0], origin.tokenizer, asked, search=True, seed=settings.seed)
    rows = make_rows(texts[1], origin.tokenizer, told, search=False, seed=settings.seed)
    _check_ids(origin.spec.vocab_size, origin.tokenizer, [*search_rows, *rows], ref)
    return Prepared(origin, settings, plan, shorter, size, texts, search_rows, rows)


def _check_budget(plan: Plan, size: int, settings: Settings) -> None:
    """Raise UserError if the search would end before one candidate."""
    layers = len(plan.whole_layers)
    least, first = layers + 3, f"the original, the model without global layers and each of {layers} layers alone"
    if settings.heads:  # which get a third
        fewer = needed(layers_before_heads(plan, size) * plan.stride, size)
        least = fewer + 2 if settings.known else max(3 * (fewer + 1), (least - 1) * 3 // 2 + 2)
        first += f", and {fewer} placements of single heads,"
    if settings.evaluations < least:
        raise UserError(
            f"--evaluations: got {settings.evaluations}, and the search would end before one candidate: {first} come "
            f"first; expected {least} or more"
        )


def layers_before_heads(plan: Plan, size: int) -> int:
    """How many layers the search over layers keeps where heads follow: more than they would fill."""
    return min(max(ceil(WIDE * size / plan.stride), FEWEST), len(plan.whole_layers) - 1)


def _check_ids(vocab_size: int, tokenizer: Tokenizer, rows: Sequence[Row], ref: str) -> None:
    largest = max(max(row.ids) for row in rows)
    if largest >= vocab_size:
        raise UserError(
            f"the tokenizer {tokenizer.name} gives the id {largest}, and {ref} knows the ids 0 to {vocab_size - 1} "
            "only: they have other vocabularies"
        )

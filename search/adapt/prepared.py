"""Everything that is known before the first placement is scored: model, plan, texts, rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from miniwin.search.adapt.plan import Plan
from miniwin.search.adapt.rows import Row, Wanted, make_rows
from miniwin.search.adapt.settings import Settings
from miniwin.search.adapt.texts import Text, read_texts
from miniwin.specs import UserError
from miniwin.tokenizer import Tokenizer
from miniwin.training.origin import Origin, find_origin


@dataclass(frozen=True)
class Prepared:
    """plan, rows: of the report. search_plan: with the shorter windows of search_rows. size: how many layers stay."""

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

"""Everything that is known before the first placement is scored: model, plan, texts, rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from miniwin.display.formats import plural
from miniwin.search.adapt.plan import Plan
from miniwin.search.adapt.rows import Row, Wanted, make_rows, many_rows
from miniwin.search.adapt.searching import needed
from miniwin.search.adapt.settings import Settings
from miniwin.search.adapt.texts import Text, read_texts
from miniwin.specs import UserError
from miniwin.tokenizer import Tokenizer
from miniwin.training.origin import Origin, find_origin

GATES = 2_000_003  # added to the seed: other facts, other places


@dataclass(frozen=True)
class Prepared:
    """plan, rows: of the report. search_plan: with the shorter windows of search_rows, and of gate_rows, on which gates
    are learnt. size: how many units stay."""

    origin: Origin
    settings: Settings
    plan: Plan
    search_plan: Plan
    size: int
    texts: tuple[Text, Text]
    search_rows: list[Row]
    gate_rows: list[Row]
    rows: list[Row]

    def journal_settings(self) -> dict[str, Any]:
        return {
            **self.settings.of_scores(),
            "weights": self.origin.sha256,
            "spec": self.origin.spec.hash,
            "texts": [text.sha256 for text in self.texts],
        }


def prepare(ref: str, settings: Settings) -> Prepared:
    """
    Raises:
        UserError: the reference, the settings or the texts cannot be used. Nothing was written.
    """
    origin = find_origin(ref)
    settings.check(origin.chat_format, ref)
    if origin.tokenizer is None:
        raise UserError(f"{ref} has no tokenizer, and questions are asked in words; use a model with a tokenizer")
    plan = Plan(origin.spec, settings.window, settings.sinks, settings.length, settings.heads, settings.widen)
    if settings.widen:
        _check_windows(plan, settings)
    size = plan.count(settings.cache)
    _check_budget(plan, size, settings)
    shorter = Plan(origin.spec, settings.search_window, settings.sinks, settings.length, settings.heads, settings.widen)
    texts = read_texts(settings.text, settings.test_text)
    asked = Wanted(settings.search_rows, settings.search_len, settings.questions)
    told = Wanted(settings.rows, settings.seq_len, settings.questions, settings.harder)
    search_rows = make_rows(texts[0], origin.tokenizer, asked, search=True, seed=settings.seed)
    learnt = replace(asked, rows=settings.gates)
    gate_rows = list(many_rows(texts[0], origin.tokenizer, learnt, search_rows, settings.seed + GATES))
    rows = make_rows(texts[1], origin.tokenizer, told, search=False, seed=settings.seed)
    _check_ids(origin.spec.vocab_size, origin.tokenizer, [*search_rows, *gate_rows, *rows], ref)
    return Prepared(origin, settings, plan, shorter, size, texts, search_rows, gate_rows, rows)


def _check_windows(plan: Plan, settings: Settings) -> None:
    """Raise UserError if a layer's own window leaves nothing out. --window is checked before."""
    longest = max(plan.windows(), default=0)
    for name in ("search_len", "seq_len", "length"):
        if longest >= (tokens := getattr(settings, name)):
            raise UserError(
                f"--{name.replace('_', '-')}: got {tokens:,}, and with --widen local layers of {plan.spec.name} keep "
                f"their windows of {longest:,}: a window as long as the text leaves nothing out; make it longer"
            )


def _check_budget(plan: Plan, size: int, settings: Settings) -> None:
    """Raise UserError if the search would end before one candidate."""
    layers = len(plan.whole_layers)
    gates = needed(len(plan.units), size) if settings.gates else 0
    least = layers + 3 + gates
    if settings.evaluations < least:
        more = f", {plural(gates, 'placement')} that the gates lead to" if gates else ""
        raise UserError(
            f"--evaluations: got {settings.evaluations}, and the search would end before one candidate: the original, "
            f"the model without global layers, each of {layers} layers alone{more}, and a random set come first; "
            f"expected {least} or more"
        )


def _check_ids(vocab_size: int, tokenizer: Tokenizer, rows: Sequence[Row], ref: str) -> None:
    largest = max(max(row.ids) for row in rows)
    if largest >= vocab_size:
        raise UserError(
            f"the tokenizer {tokenizer.name} gives the id {largest}, and {ref} knows the ids 0 to {vocab_size - 1} "
            "only: they have other vocabularies"
        )

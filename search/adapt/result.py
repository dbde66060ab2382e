"""adapt.json: everything that was asked for, found and measured, as one dictionary."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from miniwin.evaluation.ranks import FEWEST, rank_correlation
from miniwin.provenance import code_version, machine
from miniwin.search.adapt.measuring import answer_difference, compared, text_difference, told
from miniwin.search.adapt.plan import Placement, Plan
from miniwin.search.adapt.prepared import Prepared
from miniwin.search.adapt.scoring import Damage
from miniwin.search.adapt.searching import predicted
from miniwin.search.adapt.working import Measured, Searched
from miniwin.version import __version__

FORMAT = 1
DTYPE = "bfloat16"  # of the cache in tables


def result_of(prepared: Prepared, searched: Searched, measured: Measured) -> dict[str, Any]:
    plan, rows, found = prepared.plan, prepared.rows, _Scored(prepared, searched)
    original, chosen = measured.scores["original"], measured.scores["chosen"]
    placements = {}
    for name, placement in measured.placements.items():
        score = measured.scores[name]
        placements[name] = {
            "layers": plan.named(placement),
            **cost(plan, placement),
            **compared(score, original, rows),
            "chosen_minus_this": None
            if name == "chosen"
            else {
                "bits_per_byte": told(text_difference(chosen, score, rows)),
                "answers": _told(answer_difference(chosen, score, rows)),
            },
        }
    return {
        "format": FORMAT,
        "base": prepared.origin.record() | {"name": prepared.origin.spec.name},
        "settings": prepared.settings.record() | {"search_window": prepared.settings.search_window},
        "size": prepared.size,
        "units": len(plan.units),
        "whole_layers": list(plan.whole_layers),
        "chosen": plan.named(searched.chosen),
        "texts": {
            name: {"name": text.name, "sha256": text.sha256}
            for name, text in zip(("search", "report"), prepared.texts, strict=True)
        },
        "placements": placements,
        "search": {
            "scored": [{"layers": plan.named(placement), **_damage(one)} for placement, one in found.all.items()],
            "stages": searched.layers.stages | ({} if searched.heads is None else searched.heads.stages),
            "worth": found.worth(searched.chosen),
            "prediction": _prediction(searched.layers.draws, searched.layers.scored),
        },
        "front": [{"layers": plan.named(one), **cost(plan, one), **_damage(found.all[one])} for one in found.front()],
        "seconds": {"search": round(searched.seconds, 1), "report": round(measured.seconds, 1)},
        "miniwin": __version__,
        "code": code_version(),
        "machine": machine(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


class _Scored:
    """Everything that the search scored, by units."""

    def __init__(self, prepared: Prepared, searched: Searched) -> None:
        self._plan = prepared.plan
        self.all = {self._units(layers): one for layers, one in searched.layers.scored.items()}
        self.all |= {} if searched.heads is None else searched.heads.scored

    def _units(self, layers: Placement) -> Placement:
        return tuple(unit for layer in layers for unit in self._plan.units_of(layer))

    def front(self) -> list[Placement]:
        """The best of each size."""
        sizes = sorted({len(placement) for placement in self.all})
        return [min((p for p in self.all if len(p) == n), key=lambda p: self.all[p].total) for n in sizes]

    def worth(self, chosen: Placement) -> list[dict[str, Any]]:
        """For each chosen unit the damage without it and with it alone, where they were scored."""
        rows = []
        for unit in chosen:
            without = self.all.get(tuple(one for one in chosen if one != unit))
            alone = self.all.get((unit,))
            name = self._plan.named((unit,))[0]
            rows.append({"unit": name, "without": without and _damage(without), "alone": alone and _damage(alone)})
        return rows


def cost(plan: Plan, placement: Placement) -> dict[str, Any]:
    """Cache bytes at the length that was asked for, from the spec."""
    spec = plan.spec_of(placement)
    return {
        "cache_bytes": spec.cache_bytes(plan.length, DTYPE),
        "cache_share": plan.share(placement),
        "layout": spec.layout,
    }


def _prediction(draws: list[Placement], scored: dict[Placement, Damage]) -> dict[str, Any]:
    """What single repairs foretell of the random sets, and what was measured."""
    pairs = [
        (foretold, scored[one].total)
        for one in draws
        if one in scored and (foretold := predicted(one, scored)) is not None
    ]
    found = rank_correlation(*zip(*pairs, strict=True)) if len(pairs) >= FEWEST else None
    return {"pairs": [list(pair) for pair in pairs], "spearman": found and found.value}


def _damage(one: Damage) -> dict[str, float]:
    return {"text": one.text, "answers": one.answers, "exact": one.exact, "damage": one.total}


def _told(interval: Any) -> dict[str, Any] | None:
    return None if interval is None else told(interval)

"""adapt.json: everything that was asked for, found and measured, as one dictionary."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from miniwin.provenance import code_version, machine
from miniwin.search.adapt.measuring import answer_difference, compared, spearman, text_difference, told
from miniwin.search.adapt.plan import Placement, Plan
from miniwin.search.adapt.prepared import Prepared
from miniwin.search.adapt.scoring import Damage
from miniwin.search.adapt.searching import predicted
from miniwin.search.adapt.working import Measured, Searched
from miniwin.version import __version__

FORMAT = 1
DTYPE = "bfloat16"  # of the cache in tables


def result_of(prepared: Prepared, searched: Searched, measured: Measured) -> dict[str, Any]:
    plan, found, rows = prepared.plan, searched.found, prepared.rows
    original, chosen = measured.scores["original"], measured.scores["chosen"]
    placements = {}
    for name, placement in measured.placements.items():
        score = measured.scores[name]
        placements[name] = {
            "layers": list(placement),
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
        "units": list(plan.units),
        "chosen": list(searched.chosen),
        "texts": {
            name: {"name": text.name, "sha256": text.sha256}
            for name, text in zip(("search", "report"), prepared.texts, strict=True)
        },
        "placements": placements,
        "search": {
            "scored": [{"layers": list(placement), **_damage(one)} for placement, one in found.scored.items()],
            "draws": [list(one) for one in found.draws if one in found.scored],
            "stages": found.stages,
            "prediction": _prediction(found.draws, found.scored),
        },
        "front": [
            {"layers": list(best), **cost(plan, best), **_damage(found.scored[best])}
            for size in range(len(plan.units))
            if (best := found.best(size)) is not None
        ],
        "seconds": {"search": round(searched.seconds, 1), "report": round(measured.seconds, 1)},
        "miniwin": __version__,
        "code": code_version(),
        "machine": machine(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


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
    return {"pairs": [list(pair) for pair in pairs], "spearman": spearman(*zip(*pairs, strict=True)) if pairs else None}


def _damage(one: Damage) -> dict[str, float]:
    return {"text": one.text, "answers": one.answers, "exact": one.exact, "damage": one.total}


def _told(interval: Any) -> dict[str, Any] | None:
    return None if interval is None else told(interval)

"""adapt.json: everything that was asked for, found and measured, as one dictionary."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from miniwin.evaluation.ranks import FEWEST, rank_correlation
from miniwin.provenance import code_version, machine
from miniwin.search.adapt.gate_learning import worth
from miniwin.search.adapt.measuring import answer_difference, compared, text_difference, told
from miniwin.search.adapt.plan import Placement, Plan
from miniwin.search.adapt.prepared import Prepared
from miniwin.search.adapt.scoring import Damage
from miniwin.search.adapt.searching import Found, predicted
from miniwin.search.adapt.working import Measured, Searched
from miniwin.version import __version__

FORMAT = 1
DTYPE = "bfloat16"  # of the cache in tables


def result_of(prepared: Prepared, searched: Searched, measured: Measured) -> dict[str, Any]:
    plan, rows, found = prepared.plan, prepared.rows, searched.found
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
            "scored": [{"layers": plan.named(placement), **_damage(one)} for placement, one in found.scored.items()],
            "stages": found.stages,
            "worth": _worth(plan, found, searched.chosen),
            "prediction": _prediction(found.draws, found.scored),
            "gates": _gates(plan, found),
        },
        "front": [
            {"layers": plan.named(one), **cost(plan, one), **_damage(found.scored[one])} for one in _front(found)
        ],
        "seconds": {
            "search": round(searched.seconds, 1),
            "gates": round(sum(step.seconds for step in found.gates), 1),
            "report": round(measured.seconds, 1),
        },
        "miniwin": __version__,
        "code": code_version(),
        "machine": machine(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _front(found: Found) -> list[Placement]:
    """The best of each size."""
    sizes = sorted({len(placement) for placement in found.scored})
    return [best for size in sizes if (best := found.best(size)) is not None]


def _worth(plan: Plan, found: Found, chosen: Placement) -> list[dict[str, Any]]:
    """For each chosen unit the damage without it and with it alone, where they were scored."""
    rows = []
    for unit in chosen:
        without = found.scored.get(tuple(one for one in chosen if one != unit))
        alone = found.scored.get((unit,))
        name = plan.named((unit,))[0]
        rows.append({"unit": name, "without": without and _damage(without), "alone": alone and _damage(alone)})
    return rows


def _gates(plan: Plan, found: Found) -> dict[str, Any] | None:
    """How far open each gate was, on average and at the end, and what each step saw."""
    if not found.gates:
        return None
    last = found.gates[-1].values
    return {
        "units": [
            {"unit": plan.named((unit,))[0], "open": mean, "end": end}
            for unit, mean, end in zip(plan.units, worth(found.gates), last, strict=True)
        ],
        "steps": [{"open": sum(step.values), "text": step.text, "answers": step.answers} for step in found.gates],
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
    found = rank_correlation(*zip(*pairs, strict=True)) if len(pairs) >= FEWEST else None
    return {"pairs": [list(pair) for pair in pairs], "spearman": found and found.value}


def _damage(one: Damage) -> dict[str, float]:
    apart = {} if one.apart is None else {"apart": one.apart}
    return {"text": one.text, "answers": one.answers, **apart, "exact": one.exact, "damage": one.total}


def _told(interval: Any) -> dict[str, Any] | None:
    return None if interval is None else told(interval)

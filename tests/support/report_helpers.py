"""Studies with made-up results, for the tests of reports."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from miniwin.search.confirm.plan import Confirmation
from miniwin.search.confirm.result import Comparison, Measured, Result, Run, VariantResult, Verdict
from miniwin.search.space import Space
from miniwin.search.study_data import StudyData, TrialRecord
from miniwin.specs import load_model_spec, parse_spec
from miniwin.specs.confirmation import ConfirmSpec

LENGTHS = (512, 1024, 2048, 4096, 8192)


def search_spec(several: bool = True, **changes: Any) -> Any:
    objectives = ["minimize loss@4096", "minimize cache_bytes@131072"][: 2 if several else 1]
    return parse_spec(
        {
            "kind": "search",
            "format": 1,
            "name": "period-window-ratio",
            "base": "miniwin-tiny",
            "train": "tiny",
            "baseline": "minimind-tiny",
            "variables": {
                "ratio": {"int": [1, 7]},
                "window": {"choice": [16, 32, 64]},
                "factor": {"choice": [1, 2, 4]},
            },
            "set": {
                "pattern": "S * ratio + G",
                "blocks.S.attention.window": "window",
                "blocks.S.attention.position.period": "factor * window",
            },
            "objectives": objectives,
            "budget": {"trials": 40, "tokens_per_trial": 4e6},
            **changes,
        },
        "search",
    )


def train_spec() -> Any:
    data = {"source": "python-stdlib"}
    return parse_spec(
        {"kind": "train", "format": 1, "name": "tiny", "data": data, "tokens": 4e6, "dtype": "float32"}, "train"
    )


def make_study(folder: Path, trials: int = 24, several: bool = True, seed: int = 0) -> StudyData:
    """A study as a search leaves it, with made-up results: a longer window is better, nothing else matters much."""
    draw = random.Random(seed)
    spec, train = search_spec(several), train_spec()
    base, other = load_model_spec("miniwin-tiny"), load_model_spec("minimind-tiny")
    space = Space(spec, base, train)
    records, seen = [], {}
    for number in range(trials):
        params = {"ratio": draw.randint(1, 7), "window": draw.choice([16, 32, 64]), "factor": draw.choice([1, 2, 4])}
        candidate = space.assign(params).candidate
        assert candidate is not None
        model, key = candidate.model, (params["ratio"], params["window"], params["factor"])
        if number % 11 == 5:
            reason = "does not hold: parameters <= 1.2e6"
            records.append(TrialRecord(number, "infeasible", params, reason=reason))
            continue
        if key in seen:
            reason = f"the same as trial {seen[key]}"
            records.append(TrialRecord(number, "duplicate", params, reason=reason, duplicate_of=seen[key]))
            continue
        seen[key] = number
        level = 1.5 - 0.1 * math.log2(params["window"] / 16) + draw.gauss(0, 0.004)
        rungs = [{"tokens": 1_000_000 * n, "values": {"loss@4096": level + 0.9 / n}} for n in (1, 2)]
        known: dict[str, Any] = {"spec": model, "train": train, "layout": model.layout, "hash": f"{number:064x}"}
        known["run_folder"] = folder / "trials" / f"{number:012x}" / "run"
        if not several and number % 5 == 4:
            record = TrialRecord(number, "pruned", params, rungs=rungs[:1], seconds=9.0, tokens=1_000_000, **known)
            records.append(replace(record, reason="behind at 1,000,000 tokens"))
            continue
        losses = {n: level + draw.gauss(0, 0.002) for n in LENGTHS}
        values = {"loss@4096": losses[4096]}
        if several:
            values["cache_bytes@131072"] = float(model.cache_bytes(131072))
        record = TrialRecord(number, "complete", params, values, losses, [] if several else rungs, **known)
        records.append(replace(record, seconds=30.0 + number, tokens=4_000_000))
    worse = {512: 1.4, 1024: 1.9, 2048: 2.6, 4096: 3.3, 8192: 3.8}
    values = {"loss@4096": worse[4096]}
    if several:
        values["cache_bytes@131072"] = float(other.cache_bytes(131072))
    baseline = TrialRecord(-1, "complete", {}, values, worse, spec=other, layout=other.layout, tokens=4_000_000)
    trained = sum(t.trained for t in records)
    spec = spec.model_copy(update={"budget": spec.budget.model_copy(update={"trials": trained})})
    return StudyData(folder, spec, base, space.train, records, baseline)


def confirmed(study: StudyData, verdict: Verdict, noise: float = 0.01) -> StudyData:
    """The study with a confirmation that is over: the best trial, another one and the baseline, with three seeds each.
    noise: the difference between the losses of two seeds that follow each other."""
    assert study.best is not None
    others = [trial for trial in study.completed if trial is not study.best][:1]
    variants, trainings = [], []
    for trial in [study.best, *others, None]:
        runs = []
        for seed in (1, 2, 3):
            hash, loss = f"{trial and trial.number}-{seed}", 1.5 + noise * seed
            losses: dict[str, float | None] = {str(length): loss for length in LENGTHS}
            values: dict[str, float | None] = {"loss@4096": loss}
            runs.append(
                Run(
                    seed=seed,
                    hash=hash,
                    state="complete",
                    reason=None,
                    tokens=4_000_000,
                    seconds=20.0,
                    losses=losses,
                    values=values,
                )
            )
            outcome = SimpleNamespace(tokens=4_000_000, seconds=20.0)
            trainings.append(
                SimpleNamespace(
                    state="complete", over=True, alive=False, outcome=outcome, candidate=SimpleNamespace(hash=hash)
                )
            )
        label = "baseline" if trial is None else trial.label
        variants.append(
            VariantResult(
                label=label,
                trial=None if trial is None else trial.number,
                layout="SSSG",
                params={},
                runs=runs,
                losses=runs[1].losses,
                values=runs[1].values,
            )
        )
    names = [variant.label for variant in variants]
    result = Result(
        study=study.name,
        study_id="0",
        trained=len(study.trained),
        chosen_by="loss@4096",
        top=2,
        split="test",
        seeds=[1, 2, 3],
        tokens=65536,
        fingerprint="f",
        variants=variants,
        comparisons=[
            Comparison(first=first, other=other, measures=[_measured(length, verdict) for length in LENGTHS])
            for first, other in [(name, "baseline") for name in names[:-1]] + [(names[0], names[1])]
        ],
    )
    about = Confirmation(ConfirmSpec(top=2, seeds=3), cast(Any, tuple(trainings)), len(study.trained), result)
    return replace(study, confirmation=about)


def _measured(length: int, verdict: Verdict) -> Measured:
    middle = {"better": -0.1, "worse": 0.1}.get(verdict, 0.0)
    return Measured(
        name=f"loss@{length}",
        objective=length == 4096,
        direction="minimize",
        value=middle,
        low=middle - 0.05,
        high=middle + 0.05,
        draws=64,
        of="documents",
        verdict=verdict,
    )

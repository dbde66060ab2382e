"""What documents do to the difference between two architectures: taken from a confirmation that was really trained.

Shapes: V variants, S seeds, D documents.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.writing import write_text
from miniwin.runs import RUN
from miniwin.search.confirm.plan import FOLDER as TRAININGS
from miniwin.search.confirm.result import Result, VariantResult, read_result
from miniwin.search.confirm.scores import draws_of, read_scores
from miniwin.search.confirm.words import sentence
from miniwin.specs import UserError

FILE = Path(__file__).parent / "documents.json"
FORMAT = 1
SEEDS = 3  # at least, or what is peculiar to a seed is not known

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Documents:
    """units: bytes, (D,). nats: of the predicted tokens, (V, S, D). of: the study, length and draws, for the page."""

    units: Array
    nats: Array
    of: dict[str, Any]

    def effects(self) -> list[tuple[Array, Array]]:
        """Of each pair of variants, in nats per byte: what each document does to their difference, (D,), and what is
        left to each seed on each document, (S, D). Means over documents, weighted by bytes, are 0."""
        share = self.units / self.units.sum()
        found = []
        for first, second in combinations(range(len(self.nats)), 2):
            difference = (self.nats[first] - self.nats[second]) / self.units
            centred = difference - (difference @ share)[:, None]
            of_document = centred.mean(0)
            seeds = len(centred)
            rest = (centred - of_document) * (seeds / (seeds - 1)) ** 0.5
            found.append((of_document, rest))
        return found


def take(study: Path, length: int | None, path: Path = FILE) -> Documents:
    """Write documents.json from a study's confirmation. length: None is the longest that was measured.

    Raises:
        UserError: the study has no confirmation, or it has too few seeds or variants that came to the end.
    """
    result = read_result(study)
    if result is None:
        raise UserError(f"{study}: is not confirmed; miniwin search confirm does it")
    variants = [one for one in result.variants if all(run.state == "complete" for run in one.runs)]
    if len(variants) < 2 or len(result.seeds) < SEEDS:
        raise UserError(f"{study}: expected two variants and {SEEDS} seeds whose trainings are complete")
    scores = [[read_scores(study / TRAININGS / run.hash[:12]) for run in one.runs] for one in variants]
    at = str(length or max(map(int, scores[0][0].nats)))
    units, of, draws = draws_of(scores[0][0])
    nats = np.array([[draws(one.nats[at]) for one in row] for row in scores])
    about = {
        "study": result.study,
        "length": int(at),
        "draws": of,
        "variants": [one.label for one in variants],
        "confirmed": confirmed(result, study),
    }
    rounded = [[[round(x, 3) for x in row] for row in variant] for variant in nats.tolist()]
    data = {"format": FORMAT, **about, "units": units.tolist(), "nats": rounded}
    write_text(path, json.dumps(data) + "\n")
    return Documents(units, nats, about)


def confirmed(result: Result, study: Path) -> dict[str, Any]:
    """What the confirmation found, for the page: its size, the code that trained it, each variant, and the verdicts."""
    runs = [read_json(study / TRAININGS / run.hash[:12] / "run" / RUN) for one in result.variants for run in one.runs]
    by = result.chosen_by
    return {
        "trials": result.trained,
        "tokens": result.variants[0].runs[0].tokens,
        "tested": result.tokens,
        "by": by,
        "code": sorted({run["code"] for run in runs}),
        "minutes": round(sum(run["seconds"] for run in runs) / 60),
        "variants": [[one.label, one.layout, _said(one), *_by_seed(one, by)] for one in result.variants],
        "verdicts": [sentence(result, one, runs[0]["train"]["seq_len"]) for one in result.comparisons],
    }


def _said(one: VariantResult) -> str:
    return ", ".join(f"{name} {value}" for name, value in one.params.items())


def _by_seed(one: VariantResult, name: str) -> list[str]:
    return [f"{run.values[name]:.4f}" for run in one.runs]


def load(path: Path = FILE) -> Documents:
    """What `take` wrote.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    try:
        data = read_json(path)
        if data.pop("format") != FORMAT:
            raise ValueError("another format")
        units, nats = np.array(data.pop("units"), np.float64), np.array(data.pop("nats"), np.float64)
        if nats.ndim != 3 or nats.shape[2:] != units.shape or not np.isfinite(nats).all():
            raise ValueError("its numbers do not fit together")
        return Documents(units, nats, data)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; --take STUDY makes it from a confirmed study") from None
    except (OSError, JSONProblem, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: is damaged ({error}); --take STUDY makes it anew") from None

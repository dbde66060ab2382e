"""The length that a model was trained at: what `1x` means for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from miniwin.evaluation.data import PROVENANCE
from miniwin.files.json_files import JSONProblem, read_json
from miniwin.language_model import LanguageModel
from miniwin.runs import RUN, TRAIN, read_run
from miniwin.specs import load_train_spec


def trained_length(model: LanguageModel) -> int | None:
    """The longest seq_len of the run that made the model; None for random weights and imported models."""
    return None if model.folder is None else length_of(model.folder)


def length_of(folder: Path) -> int | None:
    """The same of the model in a folder."""
    if (folder / TRAIN).is_file():
        return int(load_train_spec(folder / TRAIN).longest)
    if (folder / RUN).is_file():
        return _longest(read_run(folder))
    try:
        provenance = read_json(folder / PROVENANCE)
    except (OSError, JSONProblem):
        return None
    return _longest(provenance.get("run") if isinstance(provenance, Mapping) else None)


def _longest(run: Any) -> int | None:
    """From the record of a run."""
    train = run.get("train") if isinstance(run, Mapping) else None
    written = train.get("seq_len") if isinstance(train, Mapping) else None
    lengths = written if isinstance(written, list) else [written]
    return max(lengths) if all(type(length) is int and length > 0 for length in lengths) and lengths else None

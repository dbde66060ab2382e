"""Healing: the chosen placement is trained for a while, with the original as its teacher.

The texts are rows like those of the search, with other facts: real text, facts in it, questions at the end. The loss
compares the distributions of each next token (`distill: {loss: kl, weight: 1}`). So the model learns to answer from
what its global layers still reach. Text and people of the report are not among them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from miniwin.files.writing import write_text
from miniwin.search.adapt.plan import Placement
from miniwin.search.adapt.prepared import Prepared
from miniwin.search.adapt.rows import PASS, Row, Wanted, many_rows
from miniwin.specs import TrainSpec, UserError, parse_spec
from miniwin.tracking import OFF
from miniwin.training.launch import train
from miniwin.training.start import Start

TEXT, VALID_TEXT = "healing.jsonl", "healing-valid.jsonl"
VALID = 2  # rows for validation


def heal(prepared: Prepared, chosen: Placement, name: str, folder: Path, *, device: str, progress: bool) -> Path:
    """Train the chosen placement in `folder`; returns the folder of the run. A run that was stopped goes on.

    Raises:
        UserError: the run cannot begin, or diverges.
        KeyboardInterrupt: it was stopped, and the same command goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = prepared.origin.tokenizer
    assert tokenizer is not None
    lines = [json.dumps({"text": tokenizer.decode(row.ids[len(tokenizer.prefix) :])}) for row in _rows(prepared)]
    write_text(folder / TEXT, "\n".join(lines[VALID:]) + "\n")
    write_text(folder / VALID_TEXT, "\n".join(lines[:VALID]) + "\n")
    result = train(
        prepared.plan.spec_of(chosen, name),
        healing_spec(prepared, name),
        out=folder / "run",
        from_=Start(prepared.origin, prepared.plan.spec_of(chosen, name)),
        base=folder,
        device=device,
        tracking=OFF,
        progress=progress,
    )
    if result.status == "interrupted":
        raise KeyboardInterrupt
    if result.status != "complete":
        raise UserError(f"--heal: the training is {result.status} ({result.reason}); try a smaller --heal-lr")
    return result.folder


def healing_spec(prepared: Prepared, name: str) -> TrainSpec:
    """The training spec of `--heal`.

    Raises:
        UserError: the budget is less than one row.
    """
    settings = prepared.settings
    if settings.heal < settings.seq_len:
        raise UserError(
            f"--heal: got {settings.heal:,} tokens, less than one row of {settings.seq_len:,} (--seq-len); give more"
        )
    data: dict[str, Any] = {
        "kind": "train",
        "format": 1,
        "name": name[:90] + "-healing",
        "data": {"source": "jsonl", "paths": [TEXT], "valid_paths": [VALID_TEXT]},
        "seq_len": settings.seq_len,
        "batch_size": 1,
        "tokens": settings.heal,
        "optimizer": {"lr": settings.heal_lr, "weight_decay": 0.0},
        "dtype": "float32",
        "seed": settings.seed,
        "distill": {"teacher": prepared.origin.ref, "loss": "kl", "weight": 1.0},
    }
    spec = parse_spec(data, "train")
    assert isinstance(spec, TrainSpec)
    return spec


def _rows(prepared: Prepared) -> Iterator[Row]:
    """Rows of as many tokens as healing takes, and a few for validation: the text of the search, again and again."""
    settings, tokenizer = prepared.settings, prepared.origin.tokenizer
    assert tokenizer is not None
    count = settings.heal * 5 // 4 // settings.seq_len + 2 + VALID
    wanted = Wanted(count, settings.seq_len, settings.questions)
    return many_rows(prepared.texts[0], tokenizer, wanted, prepared.search_rows, settings.seed + PASS)

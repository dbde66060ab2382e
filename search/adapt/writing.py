"""The folder of the result: a model like a run's, which began with the original's weights and was not trained.

model.yaml, model.safetensors, tokenizer.json, chat_template.jinja, chat.json    as in a run's folder
run.json          where the weights are from (`from`), and that no token was trained on
adapt.json        everything that was found and measured
adapt.html        the page
evaluations.jsonl every scored placement
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from miniwin.files.hashing import sha256_file
from miniwin.files.tensor_files import save_tensors
from miniwin.files.writing import write_flushed, write_json
from miniwin.machine.matmul_choice import chosen as product
from miniwin.provenance import code_version, machine
from miniwin.runs import CHAT, FORMAT, FROM, METRICS, MODEL, PARAMETERS, RUN, TOKENIZER, TRAIN, WEIGHTS, read_run
from miniwin.search.adapt.healing import TEXT, VALID_TEXT
from miniwin.search.adapt.page import page
from miniwin.search.adapt.prepared import Prepared
from miniwin.search.adapt.working import EVALUATIONS, Searched
from miniwin.specs import ModelSpec, UserError, dump_yaml, load_train_spec
from miniwin.training.start import MAP, TENSORS, Start
from miniwin.zoo.importing.writing import appearing

RESULT, PAGE = "adapt.json", "adapt.html"
ADAPT = "adapt"  # in run.json
OUT = "--out"


def write_result(
    folder: Path,
    prepared: Prepared,
    searched: Searched,
    result: dict[str, Any],
    journal: Path,
    run: Path | None = None,
) -> None:
    """Write the folder, whole or not at all. The journal moves into it. run: of a model that was healed."""
    with appearing(folder, OUT) as part:
        if run is None:
            _write_model(part, prepared, searched)
        else:
            _copy_run(part, run, prepared, searched)
        write_json(part / RESULT, result)
        write_flushed(part / PAGE, page(result))
        shutil.copyfile(journal, part / EVALUATIONS)
    with suppress(OSError):
        journal.unlink()


def _write_model(part: Path, prepared: Prepared, searched: Searched) -> None:
    origin, spec = prepared.origin, prepared.plan.spec_of(searched.chosen, new_name(prepared))
    _write_weights(part / WEIGHTS, prepared, spec)
    write_flushed(part / MODEL, dump_yaml(spec))
    assert origin.tokenizer is not None
    origin.tokenizer.save(part)
    if origin.chat_format is not None:
        origin.chat_format.write(part)
    write_json(part / RUN, _record(prepared, searched, spec))


def _copy_run(part: Path, run: Path, prepared: Prepared, searched: Searched) -> None:
    """What a training run keeps of a model, with the text that it read beside it, and without its checkpoint."""
    spec, record = load_train_spec(run / TRAIN), read_run(run)
    texts = {"paths": (TEXT,), "valid_paths": (VALID_TEXT,)}  # as `miniwin eval` finds them in this folder
    spec = spec.model_copy(update={"data": spec.data.model_copy(update=texts)})
    write_flushed(part / TRAIN, dump_yaml(spec))
    for name in (WEIGHTS, MODEL, TOKENIZER, METRICS, *CHAT):
        if (run / name).is_file():
            shutil.copyfile(run / name, part / name)
    for name in (TEXT, VALID_TEXT):
        shutil.copyfile(run.parent / name, part / name)
    write_json(part / RUN, {**record, "train": spec.model_dump(mode="json"), ADAPT: _adapted(prepared, searched)})


def _adapted(prepared: Prepared, searched: Searched) -> dict[str, Any]:
    return {**prepared.settings.record(), "global": prepared.plan.named(searched.chosen)}


def new_name(prepared: Prepared) -> str:
    return prepared.settings.name or f"{prepared.origin.spec.name[:94]}-local"


def _write_weights(path: Path, prepared: Prepared, spec: ModelSpec) -> None:
    """The original's weights: the same file, if it is one of weights alone."""
    origin = prepared.origin
    Start(origin, spec)  # raises where they do not fit
    if origin.file.name == WEIGHTS:
        shutil.copyfile(origin.file, path)
        if sha256_file(path) != origin.sha256:
            raise UserError(f"{origin.file} changed while it was read; try again once nothing writes to it")
    else:
        save_tensors(origin.tensors(), path, {"format": "pt"})


def _record(prepared: Prepared, searched: Searched, spec: ModelSpec) -> dict[str, Any]:
    """run.json of a run that trained on nothing."""
    origin = prepared.origin
    count = sum(1 for _ in origin.shapes().state_dict())
    return {
        "format": FORMAT,
        "status": "complete",
        "reason": None,
        "model": spec.name,
        "spec_hash": spec.hash,
        FROM: {**origin.record(), MAP: [], TENSORS: {"kept": count}},
        PARAMETERS: spec.parameters(),
        # The data is what `miniwin eval` takes where nothing else is said: nobody knows what the original learned.
        "train": {"data": {"source": "python-stdlib"}, "dtype": "float32"},
        ADAPT: _adapted(prepared, searched),
        "seed": prepared.settings.seed,
        "data": {"source": f"none: the weights of {origin.ref} as they were", "fingerprint": origin.sha256},
        "code": code_version(),
        "machine": machine(),
        "device": "cpu",
        "products": product(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "tracking": {"uri": None, "run_id": None},
        "steps": 0,
        "tokens": 0,
        "seconds": 0.0,
        "tokens_per_second": 0.0,
        "final_loss": None,
    }

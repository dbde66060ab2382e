"""A model merged with an adapter that was trained from it, as a folder of its own: spec, weights, tokenizer, record."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from miniwin.files.hashing import sha256_file
from miniwin.files.tensor_files import save_tensors
from miniwin.files.writing import write_flushed
from miniwin.loading import load
from miniwin.provenance import code_version
from miniwin.runs import IMPORT, MODEL, WEIGHTS
from miniwin.specs import dump_yaml, user_path
from miniwin.tokenizer.special_ids import KEY
from miniwin.training.adapter_folder import TENSORS
from miniwin.training.origin import find_origin
from miniwin.version import __version__
from miniwin.zoo.importing.writing import appearing, refuse_existing
from miniwin.zoo.json_objects import to_json

FORMAT = 1


def merge_adapter(ref: str | os.PathLike[str], adapter: str | os.PathLike[str], to: str | os.PathLike[str]) -> Path:
    """Make the folder `to`, as an import makes one: float32 weights that need to know nothing of the adapter.

    Raises:
        UserError: `ref` has no weights, `adapter` is none or is another model's, or `to` exists. Nothing is written.
    """
    folder = user_path(to)
    refuse_existing(folder)
    origin = find_origin(ref)
    model = load(ref, adapter=adapter)
    with appearing(folder) as part:
        tensors = {name: tensor.contiguous() for name, tensor in model.decoder.state_dict().items()}
        save_tensors(tensors, part / WEIGHTS, {"format": "pt"})
        write_flushed(part / MODEL, dump_yaml(model.spec))
        if model.tokenizer is not None:
            model.tokenizer.save(part)
        if model.chat_format is not None:
            model.chat_format.write(part)
        record = {
            "format": FORMAT,
            "kind": "merge",
            "source": origin.ref if origin.found.entry is not None else Path(origin.ref).name,
            "base": {"kind": origin.kind, "sha256": origin.sha256},
            "adapter": {"source": user_path(adapter).name, "sha256": sha256_file(user_path(adapter) / TENSORS)},
            "spec_hash": model.spec.hash,
            "parameters": model.spec.parameters(),
            **({} if origin.licence is None else {"licence": origin.licence}),
            **({} if origin.special is None else {KEY: origin.special.record()}),
            "miniwin": __version__,
            "code": code_version(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_flushed(part / IMPORT, to_json(record, IMPORT))
    return folder

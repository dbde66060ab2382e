"""Training always starts from random weights. To leave no doubt, a reference to trained weights is refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from miniwin.references import ENTRY, local_entries
from miniwin.runs import IMPORT, MODEL, RUN, WEIGHTS
from miniwin.specs import ModelSpec, UserError, load_model_spec, resolve_spec_path, user_path


def spec_to_train(ref: str | Path, overrides: Sequence[str] = ()) -> ModelSpec:
    """The model spec that `ref` names. overrides: "field.path=value", applied first.

    Raises:
        UserError: `ref` names no spec, or names trained weights: training would seem to continue from them.
    """
    if not isinstance(ref, str | os.PathLike):
        raise UserError(
            f"model: got a {type(ref).__name__}; expected a model spec, its path or its name: training starts from "
            "random weights, and never from a model's"
        )
    try:
        path = resolve_spec_path(ref, "model")
    except UserError:
        _refuse_entry(os.fspath(ref))
        raise
    folder = path if path.is_dir() else path.parent
    if (path.is_dir() or path.name == MODEL) and not (folder / RUN).is_file():
        kinds = {ENTRY: "a zoo entry", IMPORT: "an imported model", WEIGHTS: "a model with its weights"}
        for file, kind in kinds.items():
            if (folder / file).is_file():
                raise UserError(_not_from(f"{ref} belongs to {kind}", folder))
    if path.is_dir() and (path / MODEL).is_file():
        raise UserError(
            f"{path} is a folder; training starts from random weights, whatever is in it: give its spec, "
            f"{path / MODEL}, to train the same architecture afresh"
        )
    return load_model_spec(path, overrides)


def _refuse_entry(ref: str) -> None:
    """Raise UserError if `ref` names a zoo entry."""
    name, _, version = ref.partition("@")
    found = [entry for entry in local_entries() if entry.name == name]
    for entry in [entry for entry in found if entry.version == version] or found[-1:]:
        raise UserError(_not_from(f"{ref} is a zoo entry", entry.folder))


def _not_from(what: str, folder: Path) -> str:
    return (
        f"{what}, and training cannot start from its weights: it starts from random ones. To train the same "
        f"architecture afresh, copy its spec and give that: cp {folder / MODEL} my-model.yaml"
    )


def random_weights(ref: str | os.PathLike[str], spec: ModelSpec, seed: int) -> str:
    """One line that says what training `ref` starts from, and which trained weights of that name it does not use."""
    unused, folder = "", user_path(ref).parent
    if os.fspath(ref) in {entry.name for entry in local_entries()}:
        unused = f", not from the zoo entry {ref}'s"
    elif user_path(ref).name == MODEL and (folder / RUN).is_file():
        unused = f", not from those in {folder}"
    return f"{spec.name}: training starts from random weights (seed {seed}){unused}"

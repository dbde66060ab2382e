"""What is settled before a run starts: which spec is trained, and whether weights, tokenizer and spec fit together.

Without `--from`, training starts from random weights. To leave no doubt, trained weights are then refused.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from miniwin.references import ENTRY, local_entries
from miniwin.runs import IMPORT, MODEL, RUN, TOKENIZER, TRAIN, WEIGHTS
from miniwin.specs import ModelSpec, TrainSpec, UserError, load_model_spec, resolve_spec_path, user_path
from miniwin.stored_model import opened
from miniwin.tokenizer import Tokenizer, load_tokenizer
from miniwin.training.adapter_targets import adapter_table, check_lora
from miniwin.training.origin import Origin
from miniwin.training.ready import check_freeze, make_ready
from miniwin.training.start import Start


def spec_to_train(ref: str | Path, overrides: Sequence[str] = (), origin: Origin | None = None) -> ModelSpec:
    """The model spec that `ref` names. overrides: "field.path=value", applied first.

    origin: the model whose weights the run begins with. `ref` may then name any model, this one too.

    Raises:
        UserError: `ref` names no spec, or names trained weights without `origin`: training would seem to continue from
            them.
    """
    if not isinstance(ref, str | os.PathLike):
        raise UserError(
            f"model: got a {type(ref).__name__}; expected a model spec, its path or its name; to go on from the "
            "weights of a run, an entry or an imported model, name that with from_"
        )
    if origin is not None:
        return _of_any(os.fspath(ref), overrides, origin)
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
            f"{path} is a folder; without --from, training starts from random weights, whatever is in it: add --from "
            f"{path} to go on from its weights, or give its spec, {path / MODEL}, to train the same architecture afresh"
        )
    return load_model_spec(path, overrides)


def train_spec_of(origin: Origin | None) -> Path:
    """The train spec of a run without one: that of the run whose weights it begins with.

    Raises:
        UserError: there is no such run.
    """
    if origin is None or not (origin.folder / RUN).is_file():
        raise UserError(
            "--train: expected a train spec, as a YAML file or the name of a shipped one; only --from with a run "
            "folder has one of its own"
        )
    return origin.folder / TRAIN


def check_start(
    model: ModelSpec, train: TrainSpec, base: Path, out: Path, start: Start | None
) -> tuple[Tokenizer, TrainSpec]:
    """The tokenizer of a run, and the train spec with its paths joined to `base` and this tokenizer.

    Raises:
        UserError: the tokenizer is not that of the weights, or has more ids than the model; `freeze` names nothing;
            `lora` cannot be honoured; the budget is 0 without weights; `out` holds the weights that the run begins
            with.
    """
    spec = train.resolved(base)
    if start is None:
        if not spec.tokens:
            raise UserError(
                "tokens: got 0; expected at least 1, or the weights of a model to begin with (--from), which then stay "
                "as they are"
            )
        tokenizer = load_tokenizer(spec.tokenizer)
    else:
        if out.resolve() == start.origin.folder.resolve():
            raise UserError(
                f"--out: {out} holds the weights that the run begins with, and training would write over them; choose "
                "another folder"
            )
        tokenizer, spec = _of_weights(start, train, spec, out)
    ids = tokenizer.vocab_size if start is None else max(tokenizer.rows, (tokenizer.separator or 0) + 1)
    if ids > model.vocab_size:
        raise UserError(
            f"the tokenizer '{train.tokenizer if start is None else tokenizer.name}' has {ids} tokens, and the model "
            f"'{model.name}' has a vocab_size of {model.vocab_size}; expected at least as many: "
            f"set the model's vocab_size to {ids}, or take a smaller tokenizer"
        )
    check_freeze(model, spec)
    check_lora(model, spec, start)
    return tokenizer, spec


def _of_weights(start: Start, given: TrainSpec, spec: TrainSpec, out: Path) -> tuple[Tokenizer, TrainSpec]:
    """The tokenizer of the run. Its train.yaml names the copy in the run's own folder."""
    tokenizer = tokenizer_of_weights(start.origin, given, spec)
    if start.origin.tokenizer is None:
        return tokenizer, spec
    named = "byte" if tokenizer.name == "byte" else str(out.resolve() / TOKENIZER)
    return tokenizer, spec.model_copy(update={"tokenizer": named})


def tokenizer_of_weights(origin: Origin, given: TrainSpec, spec: TrainSpec) -> Tokenizer:
    """The tokenizer that the weights were trained with; of a vocabulary that is no text, that of the train spec.

    spec: `given` with its paths joined to the folder that they start from.

    Raises:
        UserError: the train spec names another tokenizer.
    """
    own = origin.tokenizer
    if own is None:
        return load_tokenizer(spec.tokenizer)
    if "tokenizer" in given.model_fields_set:
        said = load_tokenizer(spec.tokenizer)
        if said.identity.partition("+")[0] != own.identity.partition("+")[0]:
            raise UserError(
                f"tokenizer: got {given.tokenizer} ({said.name}), and the weights of {origin.ref} know the ids "
                f"of {own.name}; leave out tokenizer, which then is that of the weights, or set it to "
                f"{origin.folder / TOKENIZER}"
            )
    return own


def _of_any(ref: str, overrides: Sequence[str], origin: Origin) -> ModelSpec:
    """The spec of a file, a shipped spec, or any model with weights."""
    from miniwin.loading import model_spec

    if ref != origin.ref:
        return model_spec(ref, overrides)
    with opened(origin.found) as stored:
        return stored.spec_with(overrides)


def _refuse_entry(ref: str) -> None:
    """Raise UserError if `ref` names a zoo entry."""
    name, _, version = ref.partition("@")
    found = [entry for entry in local_entries() if entry.name == name]
    for entry in [entry for entry in found if entry.version == version] or found[-1:]:
        raise UserError(_not_from(f"{ref} is a zoo entry", entry.folder, ref))


def _not_from(what: str, folder: Path, ref: str | None = None) -> str:
    return (
        f"{what}, and without --from training starts from random weights. To go on from its weights, add --from "
        f"{ref or folder}. To train the same architecture afresh, copy its spec and give that: cp {folder / MODEL} "
        "my-model.yaml"
    )


def begins_with(ref: str | os.PathLike[str], spec: ModelSpec, train: TrainSpec, start: Start | None) -> str:
    """What training `ref` starts from, and which trained weights of that name it does not use."""
    frozen, taught = _frozen(spec, train), _taught(train)
    if start is not None:
        lines = [f"{spec.name}: training starts from the weights of {start.origin.described()}", *start.table()]
        lines += [] if train.lora is None else adapter_table(spec, train.lora)
        return "\n".join([*lines, *(f"  {said}" for said in (frozen, taught) if said)])
    unused, folder = "", user_path(ref).parent
    if os.fspath(ref) in {entry.name for entry in local_entries()}:
        unused = f", not from the zoo entry {ref}'s"
    elif user_path(ref).name == MODEL and (folder / RUN).is_file():
        unused = f", not from those in {folder}"
    rest = "".join(f"; {said}" for said in (frozen, taught) if said)
    return f"{spec.name}: training starts from random weights (seed {train.seed}){unused}{rest}"


def _frozen(model: ModelSpec, train: TrainSpec) -> str:
    """How many parameters stay as they are; nothing where none do."""
    if not train.freeze:
        return ""
    with torch.device("meta"):
        parameters = list(make_ready(model, train).parameters())
    still = sum(parameter.numel() for parameter in parameters if not parameter.requires_grad)
    every = sum(parameter.numel() for parameter in parameters)
    return f"{still:,} of {every:,} parameters are frozen ({', '.join(train.freeze)})"


def _taught(train: TrainSpec) -> str:
    """Who teaches, and what; nothing for a run without a teacher."""
    how = train.distill
    return "" if how is None else f"taught by {how.teacher} (loss {how.loss}, weight {how.weight:g})"

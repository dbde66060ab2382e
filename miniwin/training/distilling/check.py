"""Whether a teacher can teach a model, asked before anything is written."""

from __future__ import annotations

import warnings
from pathlib import Path

from miniwin.evaluation.suite.trained import length_of
from miniwin.runs import TOKENIZER
from miniwin.specs import ModelSpec, TrainSpec, UserError
from miniwin.specs.train_distill import DistillSpec
from miniwin.tokenizer import Tokenizer
from miniwin.training.distributed import Group
from miniwin.training.origin import Origin, find_origin

FIELD = "distill.teacher"


def find_teacher(model: ModelSpec, spec: TrainSpec, tokenizer: Tokenizer, out: Path | None = None) -> Origin | None:
    """The teacher of a run, of which no weights are read yet; None for a run without.

    spec: with its paths joined. out: the folder of the run.

    Raises:
        UserError: it is no model with weights, or it cannot teach this one.
    """
    how = spec.distill
    if how is None:
        return None
    try:
        teacher = find_origin(how.teacher, FIELD)
    except UserError as error:
        said = str(error)
        raise UserError(said if said.startswith(FIELD) else f"{FIELD}: {said}") from None
    if out is not None and out.resolve() == teacher.folder.resolve():
        raise UserError(
            f"{FIELD}: {how.teacher} is the folder that the run is written to (--out); choose another --out"
        )
    _check_words(teacher, model, tokenizer)
    if how.loss != "kl":
        _check_layers(how, teacher, model, spec)
    _check_reach(teacher, spec)
    return teacher


def layer_map(how: DistillSpec, layers: int, of_teacher: int) -> list[int]:
    """The teacher's layer for each of the student's. layers, of_teacher: how many each has.

    Evenly: layer i of n is compared with layer (i + 1) m / n - 1 of m, rounded down. So the last goes with the last.
    """
    return list(how.layers or [(i + 1) * of_teacher // layers - 1 for i in range(layers)])


def check_processes(spec: TrainSpec, group: Group) -> None:
    """Raise UserError if several processes cannot share the losses."""
    how = spec.distill
    if how is not None and how.loss != "kl" and how.weight == 1 and group.size > 1:
        raise UserError(
            f"distill.weight: got 1 with loss: {how.loss} in {group.size} processes; expected less than 1, such as "
            "0.99, or a single process: the head has no gradient then, and the processes would wait for it"
        )


def _check_words(teacher: Origin, model: ModelSpec, tokenizer: Tokenizer) -> None:
    own = teacher.tokenizer
    if own is not None and own.identity.partition("+")[0] != tokenizer.identity.partition("+")[0]:
        raise UserError(
            f"{FIELD}: {teacher.ref} knows the ids of {own.name}, and this run has {tokenizer.name}; expected the same "
            f"tokenizer: set tokenizer to {teacher.folder / TOKENIZER}, or take another teacher"
        )
    if teacher.spec.vocab_size != model.vocab_size:
        raise UserError(
            f"{FIELD}: {teacher.ref} has a vocab_size of {teacher.spec.vocab_size:,}, and the model '{model.name}' of "
            f"{model.vocab_size:,}; expected the same: set the model's vocab_size to {teacher.spec.vocab_size}, or "
            "take another teacher"
        )


def _check_layers(how: DistillSpec, teacher: Origin, model: ModelSpec, spec: TrainSpec) -> None:
    if spec.compile:
        raise UserError(
            f"distill.loss: got {how.loss} with compile: true; expected kl, or compile: false: compiled layers do not "
            "show what is inside"
        )
    if teacher.spec.hidden_size != model.hidden_size:
        raise UserError(
            f"distill.loss: got {how.loss}, and the teacher has a hidden_size of {teacher.spec.hidden_size}, the model "
            f"'{model.name}' of {model.hidden_size}; expected the same, or loss: kl, which fits any two sizes"
        )
    own, theirs = len(model.layout), len(teacher.spec.layout)
    if how.layers is None and own > theirs:
        raise UserError(
            f"distill.loss: got {how.loss}, and the model '{model.name}' has {own} layers, the teacher only {theirs}; "
            "expected a teacher at least as deep, or a list of its layers in distill.layers"
        )
    if how.layers is not None and (len(how.layers) != own or max(how.layers) >= theirs):
        raise UserError(
            f"distill.layers: got {list(how.layers)}; expected {own} numbers, one for each layer of '{model.name}', "
            f"from 0 to {theirs - 1}, the teacher's layers"
        )


def _check_reach(teacher: Origin, spec: TrainSpec) -> None:
    longest = teacher.spec.embed_positions
    if longest is not None and spec.longest > longest:
        raise UserError(
            f"{FIELD}: {teacher.ref} has {longest:,} learned positions (embed_positions), and seq_len is "
            f"{spec.longest:,}; expected a seq_len of at most {longest}"
        )
    known = _context(teacher)
    if known is not None and spec.longest > known:
        warnings.warn(
            f"{FIELD}: {teacher.ref} was trained on {known:,} tokens at a time, and seq_len is {spec.longest:,}: what "
            "it says beyond may be worth little",
            stacklevel=2,
        )


def _context(teacher: Origin) -> int | None:
    """How many tokens the teacher was trained on at a time, where its files say so."""
    said = None if teacher.chat_format is None else teacher.chat_format.context
    return length_of(teacher.folder) if said is None else said

"""Training: a model spec and a train spec become a run folder.

`train` checks its arguments, and whether the folder is free. The work itself is a `TrainingLoop`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import torch

from miniwin import runs
from miniwin.data import Corpus, prepare
from miniwin.data.checking import check_data
from miniwin.display.formats import plural
from miniwin.machine.devices import find_device, settled
from miniwin.machine.matmul_choice import of_run
from miniwin.machine.memory import TRAINED, refuse_too_large
from miniwin.runs import RunResult
from miniwin.specs import (
    ModelSpec,
    TrainSpec,
    UserError,
    load_train_spec,
    resolve_spec_path,
    user_path,
)
from miniwin.tracking import OFF, Tracker
from miniwin.training.adapter_targets import check_lora_group, check_rows
from miniwin.training.before import check_start, spec_to_train
from miniwin.training.distilling.check import check_processes, find_teacher
from miniwin.training.distilling.teacher import Teacher
from miniwin.training.distributed import Group, join
from miniwin.training.engines import Distributed
from miniwin.training.growing import growth
from miniwin.training.loop import OnEval, TrainingLoop
from miniwin.training.origin import find_origin
from miniwin.training.same_run import only_one, recorded
from miniwin.training.start import Start
from miniwin.training.validation import check_validation


def train(
    model: ModelSpec | str | Path,
    train: TrainSpec | str | Path,
    *,
    out: str | Path,
    from_: str | Path | Start | None = None,
    maps: Sequence[str] = (),
    resume: bool = True,
    progress: bool = True,
    tracking: str | None = None,
    parent_run: str | None = None,
    on_eval: OnEval | None = None,
    eval_at: Sequence[int] = (),
    stop_after_tokens: int | None = None,
    workers: int = 0,
    base: str | Path | None = None,
    device: str | torch.device | None = None,
    distributed: Distributed = "ddp",
    experiment: str = "miniwin",
    run_name: str | None = None,
    on_start: Callable[[], None] | None = None,
    on_checkpoint: Callable[[], None] | None = None,
) -> RunResult:
    """Train `model` as `train` says, into the run folder `out`.

    The weights are random at first. With `from_`, a run folder, a zoo entry or an imported folder, they are those of
    that model. Its tokenizer then reads the text, and `model` may be the same reference, or another spec: what becomes
    of each tensor is in weight_rules.py. Without `from_`, a `model` with trained weights is a UserError.

    A second call with the same specs continues the run. A run that is complete or diverged is returned as it is. With a
    larger budget of tokens a run goes on, where its schedule allows it (growing.py).
    `resume=False` discards the run in the folder first. Under torchrun the processes share each batch, and the first
    process keeps the run folder.

    maps: what is said of tensors that do not fit, or of layers, such as "layers=stretched" (weight_rules.py).
    base: the folder that relative paths of a TrainSpec start from; for a YAML file, the file's folder.
    on_eval, eval_at: `on_eval(rung, model)` is called once for each number of tokens in `eval_at`, when that many have
        been seen. The model is in eval mode, and a checkpoint follows. An answer of False ends the run as "pruned".
        "pause" ends this session as "interrupted": the next one begins by asking `on_eval` about the same rung.
        A pruned run is returned as it is by a call with `on_eval`, and trained further by a call without.
    stop_after_tokens: ends this session early, as "interrupted"; the schedule stays that of the whole budget.
    workers: processes that read data ahead. They do not change what is trained.
    device: default CUDA where there is one, else the CPU. `dtype: auto` means what is best there.
    distributed: how several processes share the training: each has the model ("ddp"), or a share of it ("fsdp").
    on_start: called before a new run is written, once nothing more can be refused; of several processes, in the first.
    on_checkpoint: called after each checkpoint, in the process that keeps the run folder.
    tracking, experiment, run_name, parent_run: MLflow's URI ("off": none), experiment, run and parent run.

    Raises:
        UserError: an argument is wrong, the weights do not fit, or the folder holds a run with other specs, other data
            or other first weights.
    """
    if not os.fspath(out):
        raise UserError("--out: got an empty name; expected a folder for the run ('.' is the current one)")
    if not isinstance(train, TrainSpec):
        path = resolve_spec_path(train, "train")
        train = load_train_spec(path)
        assert isinstance(train, TrainSpec)
        if base is None:
            base = path.resolve().parent
            check_data(train, path)
    origin = None if from_ is None or isinstance(from_, Start) else find_origin(from_)
    model_spec = model if isinstance(model, ModelSpec) else spec_to_train(model, origin=origin)
    start = Start(origin, model_spec, maps) if origin is not None else from_ if isinstance(from_, Start) else None
    if maps and start is None:
        raise UserError(f"--map {maps[0]}: got a map without --from; expected the model whose tensors it is about")
    tokenizer, spec = check_start(model_spec, train, user_path(base or ".").resolve(), user_path(out), start)
    taught_by = find_teacher(model_spec, spec, tokenizer, user_path(out))
    _check_packing(model_spec, spec)
    _check_reach(model_spec, spec)
    if workers < 0:
        raise UserError(f"workers: got {workers}; expected how many processes read data ahead, 0 or more")
    if distributed not in get_args(Distributed):
        raise UserError(f"distributed: got {distributed!r}; expected {' or '.join(get_args(Distributed))}")
    folder = user_path(out)
    rungs = _rungs(eval_at, on_eval, spec)
    asked = None if device is None else find_device(device)
    refuse_too_large(model_spec, TRAINED if (asked or find_device(None)).type == "cpu" else 1)
    if taught_by is not None:
        refuse_too_large(taught_by.spec)
    group = join(device)
    for length in spec.lengths:
        group.check(spec.batch_size * spec.longest // length)
    check_processes(spec, group)
    check_lora_group(spec, group.size, distributed)
    own = None if start is None else start.origin.chat_format
    corpus = prepare(spec.data, tokenizer, progress=progress and group.leads, chat_format=own)
    for length in spec.lengths:
        corpus.rows.check(length)  # too little data is an error before there is a folder
    _say_too_long(corpus, spec.lengths)
    check_validation(spec, tokenizer, corpus.texts)
    with _place(folder, group) as place:
        where = group.device if group.size > 1 else asked or find_device(None)
        before = None
        if group.leads:
            runs.remove_leftovers(folder)
            now = model_spec, spec, corpus.fingerprint, None if start is None else start.record()
            taught = None if taught_by is None else taught_by.record()
            before = recorded(folder, *now, taught) if resume else None
        grows = None if before is None else growth(folder, before, spec)
        if before is not None and grows is not None:
            before |= {runs.GROWN: grows.record}
        before = group.share(before)
        if distributed == "fsdp" and any(group.any(not (folder / runs.LOCK).exists())):
            raise UserError(
                f"distributed: fsdp writes checkpoints from all processes, and not all of them see {folder}; expected "
                "an --out that all machines share, or ddp"
            )
        spec = group.share(settled(spec, where, before["train"]["dtype"] if before else None))
        over = before is not None and grows is None and _over(folder, before["status"], asks=on_eval is not None)
        if group.share(over):
            return runs.read_result(folder)
        resumed = before is not None and (folder / runs.CHECKPOINT).exists()
        if group.leads and start is not None and (spec.lora is not None or not resumed):
            start.read()
            check_rows(model_spec, spec, start)
        product = group.share(of_run(before, where, folder, spec.compile))
        left = spec.steps - (before["steps"] if before else 0)
        by = len(model_spec.layout), where, product
        teacher = None if taught_by is None else Teacher(taught_by, spec, *by).begin(left)
        tracker = Tracker.open(
            tracking if group.leads else OFF,
            experiment=experiment,
            run_name=run_name or folder.resolve().name,
            parent_run=parent_run,
            resume=before["tracking"]["run_id"] if before else None,
            tags={"spec_hash": model_spec.hash, "data": corpus.fingerprint},
        )
        if group.leads and before is None:  # only now, so that an error above leaves a finished run as it was
            if on_start is not None:
                on_start()
            runs.clear_run(folder)
        if grows is not None:
            grows.apply(folder)
        with torch.random.fork_rng([where] if where.type == "cuda" else []):
            what = model_spec, spec, corpus, tokenizer, tracker, where, before, group, product
            session = TrainingLoop(place, *what, distributed, folder, on_checkpoint, start, teacher)
            result = session.run(on_eval, rungs, stop_after_tokens, workers, progress and group.leads)
        return replace(result, folder=folder)


def _say_too_long(corpus: Corpus, lengths: Sequence[int]) -> None:
    for length, chats in corpus.too_long(lengths).items():
        warnings.warn(
            f"data: {plural(chats['cut'], 'chat')} cut at seq_len {length}, and {chats['left_out']} left out that have "
            "no answer before it; a longer seq_len keeps them whole",
            stacklevel=2,
        )


def _check_packing(model: ModelSpec, spec: TrainSpec) -> None:
    for letter, block in model.blocks.items():
        if spec.packing == "documents" and getattr(block.attention, "keep_first", 0):
            raise UserError(
                f"packing: documents does not work with keep_first (blocks.{letter}.attention): a row keeps its own "
                "first tokens, not those of each document; use packing: stream"
            )


def _check_reach(model: ModelSpec, spec: TrainSpec) -> None:
    """Refuse lengths beyond the model's learned positions, before there is a folder."""
    longest = model.embed_positions
    lengths = {"seq_len": spec.longest, "eval.lengths": max(spec.eval.at(spec.lengths)) if spec.eval else 0}
    for field, length in lengths.items():
        if longest is not None and length > longest:
            raise UserError(
                f"{field}: got {length:,} tokens; the model '{model.name}' has {longest:,} learned positions "
                f"(embed_positions), and none beyond: set {field} to at most {longest}, or embed_positions to {length}"
            )


@contextmanager
def _place(folder: Path, group: Group) -> Iterator[Path]:
    """The folder that this process writes to: the first one the run folder, locked; the others a temporary folder."""
    if group.leads:
        with only_one(folder):
            yield folder
    else:
        with TemporaryDirectory() as temporary:
            yield Path(temporary)


def _over(folder: Path, status: str, asks: bool) -> bool:
    """Whether nothing is left to do. A diverged run would diverge again.

    asks: there is an `on_eval`. A pruned run is then over; without `on_eval` it is trained further.
    """
    if status == "complete":
        return (folder / runs.WEIGHTS).exists()
    return status == "diverged" or (status == "pruned" and asks)


def _rungs(eval_at: Sequence[int], on_eval: OnEval | None, spec: TrainSpec) -> list[int]:
    rungs = sorted(set(eval_at))
    most = spec.steps * spec.tokens_per_step
    if rungs and on_eval is None:
        raise UserError(f"eval_at is {rungs}, but there is no on_eval to call: give both or neither")
    if rungs and not 0 < rungs[0] <= rungs[-1] <= most:
        raise UserError(f"eval_at is {rungs}; expected numbers of tokens from 1 to {most}, the run's budget")
    return rungs

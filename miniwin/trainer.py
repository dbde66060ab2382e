"""Training: a model spec and a train spec become a run folder.

`train` checks what it is asked, and whether the folder is free; the work itself is a `Session`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from miniwin import runs
from miniwin.data import prepare
from miniwin.runs import RunResult
from miniwin.same_run import only_one, recorded
from miniwin.session import OnEval, Session
from miniwin.specs import ModelSpec, TrainSpec, UserError, load_model_spec, load_train_spec, resolve_spec_path
from miniwin.tokenizer import load_tokenizer
from miniwin.tracking import Tracker


def train(
    model: ModelSpec | str | Path,
    train: TrainSpec | str | Path,
    *,
    out: str | Path,
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
    experiment: str = "miniwin",
    run_name: str | None = None,
) -> RunResult:
    """Train `model` as `train` says, into the run folder `out`.

    Called again with the same specs it continues, and a run that is complete or diverged is returned as it
    is. Other specs or other data in the same folder are a UserError. `resume=False` discards the run in the
    folder.

    base: the folder that relative paths of a TrainSpec start from; for a YAML file, its own.
    on_eval, eval_at: `on_eval(rung, model)` is called once for each number of tokens in `eval_at`, when so
        many have been seen, with the model in eval mode, and a checkpoint follows. False ends the run as
        "pruned"; it is then returned as it is, unless it is called without `on_eval`: that trains on.
    stop_after_tokens: ends this session early, as "interrupted"; the schedule stays that of the whole budget.
    workers: processes that read data ahead. They do not change what is trained.
    device: default CUDA where there is one, else the CPU.
    tracking, experiment, run_name, parent_run: MLflow's URI ("off": none), experiment, run and parent run.
    """
    if not isinstance(train, TrainSpec):
        path = resolve_spec_path(train, "train")
        base = path.resolve().parent if base is None else base
        train = load_train_spec(path)
        assert isinstance(train, TrainSpec)
    spec = train.resolved(Path(base or ".").resolve())
    model_spec = model if isinstance(model, ModelSpec) else load_model_spec(model)
    folder = Path(out)
    where = _device(device)
    rungs = _rungs(eval_at, on_eval, spec)
    tokenizer = load_tokenizer(spec.tokenizer)
    if tokenizer.vocab_size > model_spec.vocab_size:
        raise UserError(
            f"the tokenizer '{train.tokenizer}' has {tokenizer.vocab_size} tokens, and the model "
            f"'{model_spec.name}' has a vocab_size of {model_spec.vocab_size}; expected at least as many: "
            f"set the model's vocab_size to {tokenizer.vocab_size}, or take a smaller tokenizer"
        )
    corpus = prepare(spec.data, tokenizer, progress=progress)
    with only_one(folder), torch.random.fork_rng([where] if where.type == "cuda" else []):
        if not resume:
            runs.clear_run(folder)
        runs.remove_leftovers(folder)
        before = recorded(folder, model_spec, spec, corpus.fingerprint)
        if before is not None and _over(folder, before["status"], asks=on_eval is not None):
            return runs.read_result(folder)
        tracker = Tracker.open(
            tracking,
            experiment=experiment,
            run_name=run_name or folder.resolve().name,
            parent_run=parent_run,
            resume=before["tracking"]["run_id"] if before else None,
            tags={"spec_hash": model_spec.hash, "data": corpus.fingerprint},
        )
        session = Session(folder, model_spec, spec, corpus, tokenizer, tracker, where, before)
        return session.run(on_eval, rungs, stop_after_tokens, workers, progress)


def _over(folder: Path, status: str, asks: bool) -> bool:
    """Whether nothing is left to do. Equal specs diverge equally; a pruned run stays so, if asked again."""
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


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UserError(f"unknown device '{device}'; expected cpu, cuda, or cuda:1 and so on") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device '{chosen}' was asked for, and this machine has no CUDA device; use cpu")
    if chosen.type == "cuda" and chosen.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return chosen

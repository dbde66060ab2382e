"""One run: train an architecture with a seed, measure it at each rung, and say how it went.

A rung is a point of one unfinished schedule, as in a search. What is measured is the same for every run: the same text,
and the same examples of the validation split. Seconds are those of the processor, so that another process beside this
one does not count.
"""

from __future__ import annotations

import math
import shutil
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.search_grid.grid import RUNGS, Run
from miniwin import train
from miniwin.data import Corpus, prepare
from miniwin.evaluation import loss_at
from miniwin.evaluation.task_scores import score_task
from miniwin.evaluation.tasks import Task
from miniwin.language_model import LanguageModel
from miniwin.provenance import code_version, machine
from miniwin.specs import UserError
from miniwin.specs.data import tasks_in
from miniwin.tokenizer import ByteTokenizer

TEXT_LENGTHS = (128, 512, 2048)
TEXT = 32768  # tokens, at each length the same
EXAMPLES = {128: 256, 512: 64, 2048: 32}  # of each task, by length


def rung_tokens(run: Run) -> list[int]:
    return [round(share * run.candidate.train.tokens) for share in RUNGS]


def measured(run: Run, work: Path) -> dict[str, Any]:
    """Train and measure: the result, as it is written. Of a training that diverged or failed it says the reason.

    work: a folder that the run may use and removes.

    Raises:
        UserError: the run was stopped, or the machine is at fault, as a full disk is.
        OSError: likewise.
    """
    import_module("torch._dynamo")  # the optimizer does it otherwise, in seconds that are not those of the training
    corpus = prepare(run.candidate.train.data, ByteTokenizer())
    tasks = tasks_in(run.candidate.train.data)
    rungs: list[dict[str, Any]] = []
    clock = {"began": 0.0, "evaluation": 0.0}

    def begin() -> None:
        clock["began"] = time.process_time()

    def at_rung(tokens: int, model: LanguageModel) -> bool:
        reached = time.process_time()
        found = metrics(model, corpus, tasks)
        took = time.process_time() - reached
        rungs.append(
            {
                "tokens": tokens,
                "train_seconds": round(reached - clock["began"] - clock["evaluation"], 3),
                "evaluation_seconds": round(took, 3),
                "metrics": found,
            }
        )
        clock["evaluation"] += took
        return all(value is not None for value in found.values())

    status, reason = "complete", None
    try:
        done = train(
            run.candidate.model,
            run.candidate.train,
            out=work,
            resume=False,
            progress=False,
            tracking="off",
            on_eval=at_rung,
            eval_at=rung_tokens(run),
            on_start=begin,
        )
        if done.status == "interrupted":
            raise UserError(f"{run.described}: stopped ({done.reason}); the same command begins it anew")
        if done.status == "diverged":
            status, reason = "diverged", done.reason
        elif done.status == "pruned":
            status, reason = "diverged", f"a metric is not finite after {rungs[-1]['tokens']:,} tokens"
    except (UserError, OSError):
        raise
    except Exception as error:
        status, reason = "failed", f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {
        "hash": run.candidate.hash,
        "values": run.values,
        "seed": run.seed,
        "status": status,
        "reason": reason,
        "rungs": rungs,
        "commit": code_version(),
        "text": " ".join(part.fingerprint for _, _, part in corpus.parts if part.has_text),
        "machine": machine()["cpu"],
        "python": machine()["python"],
        "torch": machine()["torch"],
        "threads": torch.get_num_threads(),
    }


def metrics(model: LanguageModel, corpus: Corpus, tasks: list[Task]) -> dict[str, float | None]:
    """By the names that objectives have: nats per byte, shares right, nats of an answer. None: not finite."""
    found: dict[str, float] = {f"loss@{length}": loss_at(model, corpus, length, TEXT) for length in TEXT_LENGTHS}
    for task in tasks:
        for length, examples in EXAMPLES.items():
            score = score_task(model, task, length, examples=examples, split="valid")
            found[f"{task.type}@{length}"] = score.accuracy
            found[f"{task.type}-nats@{length}"] = score.nats_per_answer
    return {name: round(value, 6) if math.isfinite(value) else None for name, value in found.items()}

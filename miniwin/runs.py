"""A run folder: the truth about one training run. Trackers are a view of it.

    run.json           what this run is and how it ended: status, seed, data, code, machine, time, tokens
    model.yaml         the architecture
    train.yaml         the training spec
    tokenizer.json     the tokenizer
    chat_template.jinja, chat.json  how chats are written, where the run began with the weights of a model for chats
    metrics.jsonl      one line per logged step, and one per evaluation: these have a field `eval`
    checkpoint.pt      everything needed to continue; of a sharded run, with its tensors in checkpoint-a or checkpoint-b
    before-decay.pt    the checkpoint from which a `wsd` schedule with a larger budget goes on (training/growing.py)
    before-decay-best.safetensors  best.safetensors as it was then
    model.safetensors  the weights, once the budget is spent
    best.safetensors   the weights of the best evaluation so far, where the training spec says `eval.keep_best`
    adapter            a folder with the adapter that was trained, where the training spec says `lora`

Every file is replaced as a whole (written aside, flushed, renamed), so that a crash leaves either the old
file or the new one. Only `metrics.jsonl` is appended to; a run that continues cuts it back to the step of its
checkpoint.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from miniwin.files.json_files import JSONProblem, parse_json, read_json
from miniwin.files.writing import remove_tree, said_if_unwritable, write_json, write_text
from miniwin.provenance import code_version, machine
from miniwin.specs.base import UserError, user_path
from miniwin.specs.yaml_scalars import shown

if TYPE_CHECKING:
    import torch

    from miniwin.specs import ModelSpec, TrainSpec

FORMAT = 1
RUN, MODEL, TRAIN, TOKENIZER = "run.json", "model.yaml", "train.yaml", "tokenizer.json"
IMPORT = "import.json"  # in place of run.json: the weights were not trained here, but imported
FROM = "from"  # in run.json: the model whose weights the run began with
TEACHER = "teacher"  # in run.json: the model that the run learns from
METRICS, CHECKPOINT, WEIGHTS, LOCK = "metrics.jsonl", "checkpoint.pt", "model.safetensors", ".lock"
BEST = "best.safetensors"
BEFORE_DECAY, BEFORE_DECAY_BEST = "before-decay.pt", "before-decay-best.safetensors"
CHECKPOINTS = (CHECKPOINT, BEFORE_DECAY)
ADAPTER = "adapter"
PARAMETERS = "parameters"  # in run.json: how many numbers the model has
TRAINED = "trained_parameters"  # in run.json: where these are not all, or not the model's own
GROWN = "grown"  # in run.json: what a run keeps whose budget has grown
CHAT = ("chat_template.jinja", "chat.json")  # as miniwin/chat/format.py writes them
FILES = (  # in the order in which a run is cleared
    *(WEIGHTS, BEST, CHECKPOINT, BEFORE_DECAY, BEFORE_DECAY_BEST),
    *(METRICS, *CHAT, TOKENIZER, TRAIN, MODEL, RUN),
)


def shard_folders(checkpoint: str) -> tuple[str, str]:
    """The folders beside a checkpoint that may have a sharded run's tensors. They are written in turns."""
    name = checkpoint.removesuffix(".pt")
    return f"{name}-a", f"{name}-b"


SHARDS = tuple(folder for name in CHECKPOINTS for folder in shard_folders(name))

Status = Literal["running", "complete", "pruned", "diverged", "interrupted", "failed"]


@dataclass(frozen=True)
class RunResult:
    """How a run ended. `final_loss` is the training loss in nats per token, smoothed over the last steps.

    `seconds` is wall-clock time over all sessions of the run; `tokens_per_second` counts the training steps
    alone. `dtype` is that of the matrix products, never `auto`. `best`: of the evaluation whose weights are in
    best.safetensors, the name and the value, and after which step and tokens it came.
    """

    folder: Path
    status: Status
    reason: str | None
    tokens: int
    steps: int
    seconds: float
    tokens_per_second: float
    final_loss: float
    spec_hash: str
    parameters: int
    seed: int
    data_fingerprint: str
    dtype: str
    tracking_run: str | None = None
    best: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}


KINDS: dict[str, Any] = {  # types of the fields of run.json that are computed with; a field may be missing
    **dict.fromkeys(("status", "model", "spec_hash"), str),
    **dict.fromkeys((PARAMETERS, TRAINED, "seed", "steps", "tokens"), int),
    **dict.fromkeys(("seconds", "tokens_per_second", "final_loss"), int | float),
    **dict.fromkeys(("train", "data", "machine", "tracking", "best", FROM, TEACHER, GROWN), dict),
}


def new_record(
    model: ModelSpec,
    train: TrainSpec,
    *,
    parameters: tuple[int, int],
    data: dict[str, Any],
    device: torch.device,
    product: str | None,
    tracking: dict[str, Any],
    before: dict[str, Any] | None,
    origin: dict[str, Any] | None = None,
    teacher: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What run.json says of a run that begins or continues, all but its progress.

    parameters: of the model, and how many numbers are trained. product: the library of float32 products on a CPU.
    before: what run.json said of the run so far. The start of the run is taken from there, and the tracking too where
    `tracking` has no run. origin: the model whose weights the run begins with; None: random ones. teacher: the model
    that it learns from.
    """
    return {
        "format": FORMAT,
        "status": "running",
        "reason": None,
        "model": model.name,
        "spec_hash": model.hash,
        **({} if origin is None else {FROM: origin}),
        **({} if teacher is None else {TEACHER: teacher}),
        PARAMETERS: parameters[0],
        **({} if parameters[1] == parameters[0] else {TRAINED: parameters[1]}),
        "train": train.model_dump(mode="json"),
        "seed": train.seed,
        "data": data,
        "code": code_version(),
        "machine": machine(),
        "device": str(device),
        "products": product,
        "started": before["started"] if before else datetime.now(UTC).isoformat(timespec="seconds"),
        "tracking": tracking if before is None or tracking["run_id"] else before["tracking"],
        **({} if before is None or GROWN not in before else {GROWN: before[GROWN]}),
    }


def write_record(
    folder: Path,
    record: dict[str, Any],
    status: Status,
    reason: str | None,
    *,
    steps: int,
    tokens: int,
    seconds: float,
    tokens_per_second: float,
    final_loss: float,
) -> None:
    """Put the progress of the run into `record`, and write run.json."""
    record |= {
        "status": status,
        "reason": reason,
        "steps": steps,
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "tokens_per_second": round(tokens_per_second, 1),
        "final_loss": final_loss,
    }
    write_json(folder / RUN, record)


def read_run(folder: str | Path) -> dict[str, Any]:
    """The contents of run.json.

    Raises:
        UserError: the folder is not a run folder, or run.json cannot be read or is damaged.
    """
    path = user_path(folder) / RUN
    try:
        data = read_json(path, names=True)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder} is not a run folder: it has no {RUN}; expected a folder that `miniwin train` made"
        ) from None
    except JSONProblem as error:
        raise UserError(f"{path} is {error}; expected what `miniwin train` wrote") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise UserError(f"{path} has format {found!r}; this version of miniwin reads format {FORMAT}")
    for name, kind in KINDS.items():
        if data.get(name) is not None and not isinstance(data[name], kind):
            raise UserError(f"{path}: {name}: got {shown(data[name])}; put back the file that `miniwin train` wrote")
    return data


def read_result(folder: str | Path) -> RunResult:
    """The RunResult that run.json records. For a run that was killed, this is the state of its last checkpoint."""
    data = read_run(folder)
    try:
        loss = data["final_loss"]
        return RunResult(
            folder=user_path(folder),
            status=data["status"],
            reason=data["reason"],
            tokens=data["tokens"],
            steps=data["steps"],
            seconds=data["seconds"],
            tokens_per_second=data["tokens_per_second"],
            final_loss=float("nan") if loss is None else loss,
            spec_hash=data["spec_hash"],
            parameters=data["parameters"],
            seed=data["seed"],
            data_fingerprint=data["data"]["fingerprint"],
            dtype=data["train"]["dtype"],
            tracking_run=data["tracking"]["run_id"],
            best=data.get("best"),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder}/{RUN} does not say how the run went ({error!r}); put back the file") from None


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that are about steps of training: loss, learning rate, speed."""
    return [line for line in read_lines(folder) if "eval" not in line]


def read_evaluations(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that are about evaluations.

    `line["eval"]` has the values by name: `{"loss@512": {"value": 1.9, "n": 65536}, ...}`. The share of right answers
    of a task also has `low` and `high`, a 95 % interval, and `chance`.
    """
    return [line for line in read_lines(folder) if "eval" in line]


def read_lines(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl.

    A last line that a crash cut short is left out. So is a line that is no line of metrics, with a warning. Neither is
    an error: the run continues from its checkpoint, not from this file.
    """
    path = user_path(folder) / METRICS
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines, _, _torn = text.rpartition("\n")
    found = []
    for number, line in enumerate(lines.split("\n"), 1):
        if not line:
            continue
        try:
            record = parse_json(line)
            found.append({**record, "step": int(record["step"])})
        except (ValueError, TypeError, KeyError):
            warnings.warn(f"{path}:{number}: no line of metrics; it is left out", stacklevel=2)
    return found


def keep_metrics(folder: Path, step: int) -> list[dict[str, Any]]:
    """Cut metrics.jsonl back to the lines up to `step`, and return them."""
    kept = [line for line in read_lines(folder) if line["step"] <= step]
    write_text(folder / METRICS, "".join(json.dumps(line) + "\n" for line in kept))
    return kept


def clear_run(folder: Path) -> None:
    """Remove the files of a run, and nothing else. run.json goes last: it makes the folder a run folder."""
    for name in FILES:
        with said_if_unwritable(folder / name):
            (folder / name).unlink(missing_ok=True)
        if name == WEIGHTS:
            remove_adapter(folder)
        if name == CHECKPOINT:
            remove_shards(folder)


def remove_adapter(folder: Path) -> None:
    """Remove the folder of the adapter that was trained, if there is one."""
    if (folder / ADAPTER).is_dir():
        remove_tree(folder / ADAPTER)


def remove_shards(folder: Path, but: str | None = None, of: str | None = None) -> None:
    """Remove the tensors that are in shards, but for the folder of this name. of: a checkpoint; by default of all."""
    for name in SHARDS if of is None else shard_folders(of):
        if name != but and (folder / name).is_dir():
            remove_tree(folder / name)


def checkpoint_bytes(folder: Path) -> int:
    """The bytes of the checkpoints of a run, and of their tensors in shards; 0 if there is none."""
    files = [folder / name for name in (*CHECKPOINTS, BEFORE_DECAY_BEST)]
    inside = [path for name in SHARDS for path in (folder / name).rglob("*")]
    return sum(path.stat().st_size for path in (*files, *inside) if path.is_file())


def remove_checkpoint(folder: Path) -> None:
    """Remove the checkpoints of a run: it cannot be continued from there any more."""
    for name in (*CHECKPOINTS, BEFORE_DECAY_BEST):
        with said_if_unwritable(folder / name):
            (folder / name).unlink(missing_ok=True)
    remove_shards(folder)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process was in the middle of writing."""
    for name in FILES:
        for leftover in folder.glob(f".{name}.*.tmp"):
            with said_if_unwritable(leftover):
                leftover.unlink(missing_ok=True)
